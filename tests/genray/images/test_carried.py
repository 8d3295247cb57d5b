"""What a file carries beside its pixels is in the output, or named."""

import io
import itertools
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from genray.images.carried.xmp import sized_packet, upright_packet
from genray.images.limits import ReadLimits
from genray.images.photo import Photo, read_photo
from genray.images.photo_writer import WriteSettings, WrittenPhoto, is_same_file, write_photo
from tests.broken_files import chunk, encode
from tests.genray.images.carried_samples import (
    FORMATS,
    ICC,
    IPTC,
    ITEMS,
    XMP,
    Item,
    irb,
    opened,
    outcome,
    with_chunk,
    with_segment,
)
from tests.genray.images.photo_samples import exif, smooth, tags_of, values


def photo(data: bytes, **limits: Any) -> Photo:
    return read_photo(data, ReadLimits.model_validate(limits))


def written(data: bytes, **settings: Any) -> WrittenPhoto:
    return write_photo(photo(data), WriteSettings.model_validate(settings))


def changed(given: Photo) -> Photo:
    pixels = given.pixels.copy()
    pixels[0, 0] ^= 1
    return replace(given, pixels=pixels)


PLACES = [(item, form) for item in ITEMS for form in FORMATS if item.draw(form) is not None]


@pytest.mark.parametrize(("item", "form"), PLACES, ids=lambda each: getattr(each, "name", each))
def test_the_same_format_keeps_every_item(item: Item, form: str) -> None:
    data = item.draw(form)
    assert data is not None
    made = written(data)
    assert item.see(made.data)
    assert made.not_kept == ()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_no_item_is_lost_without_a_word_between_any_two_formats(item: Item) -> None:
    found = {
        (source, target): outcome(item, source, target)
        for source, target in itertools.product(FORMATS, FORMATS)
    }
    assert "lost" not in found.values(), found
    assert "kept" in found.values()


def test_all_items_of_a_png_are_kept_together_in_their_order() -> None:
    text = PngImagePlugin.PngInfo()
    pairs = [("Title", "a"), ("Comment", "b"), ("Title", "c"), ("Größe", "d"), ("Software", "e" * 3000)]
    text.add_text(*pairs[0])
    text.add_text(*pairs[1], zip=True)
    text.add_text(*pairs[2])
    text.add_itxt(*pairs[3], lang="de", tkey="groß")
    text.add_text(*pairs[4], zip=True)
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    data = encode(smooth(), "PNG", pnginfo=text, icc_profile=ICC, exif=exif(6), dpi=(72, 144))
    for kind, body in ((b"bKGD", bytes(6)), (b"saFe", b"copied"), (b"sPLT", b"a\0\x08")):
        data = with_chunk(data, kind, body)
    after = data.index(b"IEND") - 4
    data = data[:after] + chunk(b"tEXt", b"Last\0f") + data[after:]
    made = written(data)
    texts = [
        body for kind, body in chunks_of(data) if kind in (b"tEXt", b"zTXt", b"iTXt") and XMP not in body
    ]
    assert len(texts) == 6
    assert [body for kind, body in chunks_of(made.data) if body in texts] == texts
    kinds = [kind for kind, _ in chunks_of(made.data)]
    assert {b"bKGD", b"saFe", b"iCCP", b"eXIf", b"pHYs"} <= set(kinds)
    assert kinds.index(b"iCCP") < kinds.index(b"IDAT")
    assert (made.not_kept, kinds.count(b"IEND")) == (("sPLT",) if b"sPLT" not in kinds else (), 1)
    assert opened(made.data).info["xmp"] == XMP


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    at = 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(png[at + 8 + length : at + 12 + length])
        found.append((kind, body))
        at += 12 + length
    return found


def test_chunks_that_depend_on_the_pixels_are_named() -> None:
    data = with_chunk(encode(smooth(), "PNG"), b"unSA", b"of these pixels")
    made = written(with_chunk(data, b"caBX", b"signed"))
    assert made.not_kept == ("caBX", "unSA")
    assert b"unSA" not in made.data


@pytest.mark.parametrize("layout", ["gray", "16 bits"])
def test_a_background_of_other_colours_is_named(layout: str) -> None:
    given = photo(with_chunk(encode(smooth(), "PNG"), b"bKGD", bytes(6)))
    pixels = given.pixels[..., :1] if layout == "gray" else given.pixels.astype(np.uint16)
    made = write_photo(replace(given, pixels=pixels), WriteSettings())
    assert made.not_kept == ("bKGD",)
    assert opened(made.data).format == "PNG"


def test_segments_of_a_jpeg_that_are_not_known_are_named() -> None:
    data = with_segment(encode(smooth(), "JPEG"), 0xEC, b"Ducky\0and more")
    data = with_segment(data, 0xEB, b"JP" + bytes(20))
    assert written(data).not_kept == ("content credentials (JUMBF)", "APP12 Ducky")


def test_comments_and_iptc_of_a_jpeg_keep_their_bytes() -> None:
    resources = irb(0x03ED, bytes(16)) + irb(0x0404, IPTC) + irb(1061, b"digest of sixteen")
    data = with_segment(encode(smooth(), "JPEG"), 0xED, b"Photoshop 3.0\0" + resources)
    comments = [b"first", "größer".encode(), b"not \xff UTF-8"]
    for comment in reversed(comments):
        data = with_segment(data, 0xFE, comment)
    made = written(data)
    assert made.not_kept == ()
    assert b"Photoshop 3.0\0" + resources in made.data
    places = [made.data.index(comment) for comment in comments]
    assert places == sorted(places)
    assert [text.body for text in photo(made.data).carried.texts] == comments


def test_resources_of_several_segments_are_kept() -> None:
    large = irb(1000, bytes(range(256)) * 300) + irb(0x0404, IPTC)
    data = encode(smooth(), "JPEG")
    parts = [large[at : at + 60_000] for at in range(0, len(large), 60_000)]
    for part in reversed(parts):
        data = with_segment(data, 0xED, b"Photoshop 3.0\0" + part)
    again = photo(written(data).data)
    assert again.carried.resources == photo(data).carried.resources
    assert {resource.number for resource in again.carried.resources} == {1000, 0x0404}


def test_extended_xmp_is_kept_in_a_jpeg_and_named_elsewhere() -> None:
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">LL", 4, 0)
    data = with_segment(encode(smooth(), "JPEG", xmp=XMP), 0xE1, head + b"more")
    assert head + b"more" in written(data).data
    for form in ("png", "webp", "tiff"):
        assert written(data, format=form).not_kept == ("extended XMP",)


SAID_OF_PIXELS = (
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:e2="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    b'tiff:Orientation=\'6\' tiff:ImageWidth="32" xmp:Rating="6"><tiff:ImageLength> 24 </tiff:ImageLength>'
    b"<e2:PixelXDimension>4000</e2:PixelXDimension><e2:PixelYDimension>3000</e2:PixelYDimension>"
    b"<xmp:Thumbnails><rdf:Alt>Orientation 6</rdf:Alt></xmp:Thumbnails></rdf:Description>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("form", ["jpeg", "webp", "tiff"])
def test_xmp_says_what_is_true_of_the_pixels(form: str, encoding: str) -> None:
    packet = SAID_OF_PIXELS.decode().encode(encoding)
    options: dict[str, Any] = {"tiffinfo": {700: packet, 274: 6}} if form == "tiff" else {"xmp": packet}
    if form != "tiff":
        options["exif"] = exif(6)
    made = written(encode(smooth(), form.upper(), **options))
    assert made.not_kept == ("XMP thumbnail",)
    true = opened(made.data).info["xmp"].decode(encoding)
    assert 'tiff:Orientation=\'1\' tiff:ImageWidth="24" xmp:Rating="6"' in true
    assert "<tiff:ImageLength> 24 </tiff:ImageLength>".replace(" 24 ", "32") in true
    assert "XDimension>24<" in true
    assert "YDimension>32<" in true
    assert "Thumbnails" not in true


def test_an_orientation_that_xmp_alone_says_is_left_to_it() -> None:
    packet = SAID_OF_PIXELS.replace(b"<xmp:Thumbnails><rdf:Alt>Orientation 6</rdf:Alt></xmp:Thumbnails>", b"")
    made = written(encode(smooth(), "JPEG", xmp=packet))
    shown = opened(made.data)
    assert shown.size == (32, 24)
    assert b"tiff:Orientation='6'" in shown.info["xmp"]
    assert made.not_kept == ()


def camera_exif(order: str = "II", thumbnail: bytes = b"", behind: bytes = b"") -> bytes:
    """An EXIF block with the image's size in both directories, and a thumbnail in the second."""
    mark = "<" if order == "II" else ">"

    def directory(tags: list[tuple[int, int, int, int]], following: int) -> bytes:
        body = struct.pack(mark + "H", len(tags))
        for tag, kind, count, value in tags:
            packed = struct.pack(mark + ("H2x" if kind == 3 else "L"), value)
            body += struct.pack(mark + "HHL", tag, kind, count) + packed
        return body + struct.pack(mark + "L", following)

    sizes = [(0x0100, 4, 1, 4000), (0x0101, 4, 1, 3000), (0x0112, 3, 1, 6)]
    first_at, inner_at = 8, 8 + 2 + 12 * 4 + 4
    second_at = inner_at + 2 + 12 * 2 + 4
    picture_at = second_at + 2 + 12 * 2 + 4
    first = directory([*sizes, (0x8769, 4, 1, inner_at)], second_at if thumbnail else 0)
    inner = directory([(0xA002, 4, 1, 4000), (0xA003, 3, 1, 3000)], 0)
    second = directory([(0x0201, 4, 1, picture_at), (0x0202, 4, 1, len(thumbnail))], 0)
    head = order.encode() + struct.pack(mark + "HL", 42, first_at)
    return head + first + inner + (second + thumbnail if thumbnail else b"") + behind


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_exif_says_the_size_of_the_pixels(form: str, order: str) -> None:
    made = written(encode(smooth(), form.upper(), exif=b"Exif\0\0" + camera_exif(order)))
    block = opened(made.data).getexif()
    inner = block.get_ifd(0x8769)
    assert (block[0x0100], block[0x0101], block[0x0112]) == (24, 32, 1)
    assert (inner[0xA002], inner[0xA003]) == (24, 32)
    assert made.not_kept == ()


@pytest.mark.parametrize("behind", [b"", b"a maker note"])
def test_the_thumbnail_of_exif_is_gone_and_named(behind: bytes) -> None:
    picture = b"\xff\xd8 the pixels as they were \xff\xd9"
    data = encode(smooth(), "JPEG", exif=b"Exif\0\0" + camera_exif("II", picture, behind))
    made = written(data)
    assert made.not_kept == ("EXIF thumbnail",)
    assert picture not in made.data
    assert behind in made.data
    assert not opened(made.data).getexif().get_ifd(1)


def test_thumbnails_elsewhere_are_gone_and_named() -> None:
    jpeg = encode(smooth(), "JPEG")
    pixels = bytes(range(48))
    data = with_segment(jpeg, 0xED, b"Photoshop 3.0\0" + irb(0x040C, pixels) + irb(0x0404, IPTC))
    data = with_segment(data, 0xE0, b"JFXX\0\x13\x04\x04" + pixels)
    made = written(data)
    assert made.not_kept == ("JFIF thumbnail", "Photoshop thumbnail")
    assert pixels not in made.data
    assert b"a caption" in made.data


def test_all_of_damaged_exif_that_can_be_read_is_kept_and_the_rest_named() -> None:
    block = camera_exif()[:-20]
    made = written(encode(smooth(), "JPEG", exif=b"Exif\0\0" + block))
    assert opened(made.data).size == (24, 32)
    assert opened(made.data).getexif().get(0x0112, 1) == 1


def test_words_are_left_out_on_request_and_not_named() -> None:
    data = with_segment(
        encode(smooth(), "JPEG", xmp=XMP, exif=exif(6), comment=b"secret"),
        0xED,
        b"Photoshop 3.0\0" + irb(0x0404, IPTC),
    )
    for form in ("same", *FORMATS):
        made = written(data, format=form, keep_exif=False)
        for words in (b"secret", b"a caption", b"a format", b"a maker of cameras"):
            assert words not in made.data
        assert made.not_kept == ()
        assert opened(made.data).size == (24, 32)


def test_colours_are_left_out_on_request() -> None:
    data = with_chunk(encode(smooth(), "PNG", icc_profile=ICC), b"gAMA", struct.pack(">L", 100_000))
    made = written(data, keep_icc=False)
    assert "gamma" not in opened(made.data).info
    assert "icc_profile" not in opened(made.data).info


def test_chunks_that_say_srgb_are_not_missed_in_other_formats() -> None:
    data = encode(smooth(), "PNG")
    usual = struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    for kind, body in ((b"sRGB", b"\0"), (b"gAMA", struct.pack(">L", 45455)), (b"cHRM", usual)):
        data = with_chunk(data, kind, body)
    assert written(data, format="jpeg").not_kept == ()
    assert b"sRGB" in written(data).data


@pytest.mark.parametrize("dpi", [1, 72, 96, 150, 299, 300, 301, 600, 1200, 2400])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff", "bmp"])
def test_a_resolution_in_whole_dots_per_inch_survives_every_format(source: str, dpi: int) -> None:
    data = encode(smooth(), source.upper(), dpi=(dpi, dpi))
    for target in FORMATS:
        made = photo(written(data, format=target).data)
        back = written(written(data, format=target).data, format="tiff").data
        assert opened(back).info["dpi"] == (dpi, dpi), target
        assert made.carried.density is not None or target == "webp"


def test_a_resolution_in_centimetres_and_the_shape_of_pixels_are_kept() -> None:
    data = bytearray(encode(smooth(), "JPEG"))
    for unit, across, down in ((2, 118, 118), (0, 2, 1), (1, 72, 144)):
        data[13:18] = struct.pack(">BHH", unit, across, down)
        assert written(bytes(data)).data[13:18] == data[13:18]


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_a_hostile_file_cannot_blow_up_the_output(form: str) -> None:
    packet = b"<x" + b" " * 3_000_000 + b"/>"
    if form == "jpeg":
        data = encode(smooth(), "JPEG")
        for _ in range(60):
            data = with_segment(data, 0xFE, bytes(60_000))
    elif form == "png":
        body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)
        data = with_chunk(encode(smooth(), "PNG"), b"iTXt", body)
        for number in range(300):
            data = with_chunk(data, b"tEXt", b"key%d\0" % number + bytes(5000))
    elif form == "webp":
        data = encode(smooth(), "WEBP", xmp=packet)
    else:
        data = encode(smooth(), "TIFF", tiffinfo={700: packet})
    given = photo(data, max_text_bytes=1_000_000)
    made = write_photo(given, WriteSettings())
    assert len(made.data) < 1_100_000
    assert made.not_kept
    assert len(made.not_kept) <= 40
    assert all(len(name) <= 80 for name in made.not_kept)
    assert np.asarray(opened(made.data)).shape == (24, 32, 3)


def test_odd_items_cost_no_image() -> None:
    png, jpeg = encode(smooth(), "PNG"), encode(smooth(), "JPEG")
    for data in (
        with_chunk(png, b"pHYs", b"\0"),
        with_chunk(png, b"tEXt", b""),
        with_chunk(png, b"zTXt", b"key\0\0no zlib"),
        with_chunk(png, b"iTXt", b"XML:com.adobe.xmp\0"),
        with_chunk(png, b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0no zlib"),
        with_chunk(png, b"sBIT", b""),
        with_chunk(png, b"bKGD", b""),
        with_chunk(png, b"cICP", b""),
        with_segment(jpeg, 0xE0, b"JFIF\0"),
        with_segment(jpeg, 0xED, b"Photoshop 3.0\0" + b"no resource"),
        with_segment(jpeg, 0xED, b"Photoshop 3.0\0" + irb(1, b"x" * 9)[:-5]),
        with_segment(jpeg, 0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe\x00"),
        with_segment(jpeg, 0xDB, b""),
        encode(smooth(), "TIFF", tiffinfo={700: b"", 33723: b"\0", 34377: b"8BIM"}),
    ):
        for form in ("same", *FORMATS):
            made = written(data, format=form)
            assert np.asarray(opened(made.data)).shape == (24, 32, 3)


@pytest.mark.parametrize("quality", [80, 88, 97])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_keeps_its_quantisation_tables(quality: int, mode: str) -> None:
    def tables(data: bytes) -> dict[int, list[int]]:
        found: dict[int, list[int]] = opened(data).quantization  # type: ignore[attr-defined]
        return found

    usual = encode(smooth(mode), "JPEG", quality=quality)
    odd = [
        [min(255, step + place % 5) for place, step in enumerate(table)] for table in tables(usual).values()
    ]
    for data in (usual, encode(smooth(mode), "JPEG", qtables=odd, subsampling="4:2:2")):
        made = write_photo(changed(photo(data)), WriteSettings())
        assert tables(made.data) == tables(data)
        assert photo(made.data).subsampling == photo(data).subsampling


@pytest.mark.parametrize("form", ["png", "tiff", "bmp"])
@pytest.mark.parametrize("colours", [2, 3, 16, 17, 256])
def test_few_colours_stay_in_a_palette(form: str, colours: int) -> None:
    image = smooth().quantize(colours)
    data = encode(image, form.upper())
    made = written(data)
    assert opened(made.data).mode == "P"
    assert np.array_equal(np.asarray(opened(made.data).convert("RGB")), np.asarray(image.convert("RGB")))
    given = photo(data)
    # Other colours, but few: a palette of them.
    shifted = replace(given, pixels=255 - given.pixels)
    made = write_photo(shifted, WriteSettings())
    assert (opened(made.data).mode, made.not_kept) == ("P", ())
    assert np.array_equal(photo(made.data).pixels, shifted.pixels)
    noisy = replace(given, pixels=values())
    made = write_photo(noisy, WriteSettings())
    assert (opened(made.data).mode, made.not_kept) == ("RGB", ("palette",))
    assert np.array_equal(photo(made.data).pixels, noisy.pixels)


def test_a_palette_with_alpha_keeps_both() -> None:
    image = smooth().quantize(20)
    alphas = bytes(255 - 12 * number for number in range(20))
    data = encode(image, "PNG", transparency=alphas)
    made = written(data)
    assert opened(made.data).mode == "P"
    assert np.array_equal(
        np.asarray(opened(made.data).convert("RGBA")), np.asarray(opened(data).convert("RGBA"))
    )
    tiff = written(data, format="tiff")
    assert (opened(tiff.data).mode, tiff.not_kept) == ("RGBA", ("palette",))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("form", ["png", "tiff", "bmp"])
@pytest.mark.parametrize("size", [(32, 24), (33, 5), (1, 1)])
def test_few_bits_of_gray_stay_few(form: str, bits: int, size: tuple[int, int]) -> None:
    numbers = np.random.default_rng(0).integers(0, 2**bits, (size[1], size[0], 1))
    levels = (numbers * (255 // (2**bits - 1))).astype(np.uint8)
    source = encode(Image.new("1", size), "PNG")
    given = photo(source)
    given = replace(given, pixels=levels, carried=replace(given.carried, bits=bits))
    made = write_photo(given, WriteSettings.model_validate({"format": form}))
    again = photo(made.data)
    assert np.array_equal(again.pixels, levels)
    if form == "bmp" and bits > 1:
        assert made.not_kept == (f"{bits} bits",)
        return
    assert (again.carried.bits, made.not_kept) == (bits, ())
    if bits == 1:
        assert opened(made.data).mode == "1"
    between = replace(given, pixels=np.full_like(levels, 100))
    made = write_photo(between, WriteSettings.model_validate({"format": form}))
    assert made.not_kept == ("1 bit" if bits == 1 else f"{bits} bits",)
    assert np.array_equal(photo(made.data).pixels, between.pixels)


def test_what_is_unchanged_is_the_same_file_unless_settings_ask_for_another() -> None:
    jpeg = photo(encode(smooth(), "JPEG", exif=exif(6), icc_profile=ICC))
    copied = replace(jpeg, pixels=jpeg.pixels.copy())
    same = WriteSettings(png_level=9)
    assert is_same_file(jpeg, copied, same)
    assert not is_same_file(jpeg, changed(jpeg), same)
    assert not is_same_file(jpeg, replace(jpeg, exif=None), same)
    for asked in ({"format": "png"}, {"quality": 50}, {"keep_exif": False}, {"keep_icc": False}):
        assert not is_same_file(jpeg, copied, WriteSettings.model_validate(asked))
    png = photo(encode(smooth(), "PNG"))
    assert is_same_file(png, png, WriteSettings(quality=50))
    assert not is_same_file(png, replace(png, pixels=png.pixels.astype(np.uint16)), same)
    assert not is_same_file(png, replace(png, alpha=png.pixels[..., 0]), same)


def test_exif_of_a_tiff_and_its_map_tags_are_kept_and_private_tags_named() -> None:
    info = {
        269: "a document",
        316: "a computer",
        33550: (1.0, 1.0, 0.0),
        42112: "<GDALMetadata/>",
        65000: b"private",
    }
    image = smooth()
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", tiffinfo=info)
    made = written(buffer.getvalue())
    tags = opened(made.data).tag_v2  # type: ignore[attr-defined]
    assert (tags[269], tags[316], tags[33550]) == ("a document", "a computer", (1.0, 1.0, 0.0))
    assert made.not_kept == ("TIFF tag 65000",)
    long = written(encode(image, "TIFF", tiffinfo={270: "d" * 100_000}))
    assert len(opened(long.data).tag_v2[270]) == 100_000  # type: ignore[attr-defined]


def test_words_of_exif_become_no_words_of_others() -> None:
    given = photo(encode(smooth(), "TIFF", tiffinfo={270: "words"}))
    assert tags_of(given.exif)[270] == "words"
    assert given.carried.texts == ()


def test_all_tags_of_exif_are_in_a_tiff_but_those_of_the_old_pixels() -> None:
    block = Image.Exif()
    block[0x0112], block[0x0100], block[40092], block[18246], block[50341] = 6, 4000, b"w\0", 4, b"print"
    made = written(encode(smooth(), "JPEG", exif=block.tobytes()), format="tiff")
    tags = opened(made.data).tag_v2  # type: ignore[attr-defined]
    assert (tags[256], tags[40092], tags[18246], tags[50341]) == (24, b"w\0", 4, b"print")
    again = written(made.data, format="tiff")
    assert again.not_kept == ("TIFF tag 50341",)
    assert opened(again.data).tag_v2[40092] == b"w\0"  # type: ignore[attr-defined]


def test_many_namespaces_do_not_make_a_packet_slow() -> None:
    declared = b"".join(b' xmlns:t%d="http://ns.adobe.com/tiff/1.0/"' % number for number in range(50_000))
    packet = b"<rdf:Description" + declared + b' t0:Orientation="6"/>'
    assert b'Orientation="1"' in upright_packet(sized_packet(packet, 3, 4))


def test_the_palette_of_a_large_image_is_found_as_that_of_a_small_one() -> None:
    small = smooth().quantize(40)
    given = photo(encode(small, "PNG"))
    large = replace(given, pixels=np.tile(given.pixels, (50, 40, 1)))
    shown = opened(write_photo(large, WriteSettings()).data)
    assert shown.mode == "P"
    assert np.array_equal(np.asarray(shown.convert("RGB")), large.pixels)
    assert shown.getpalette() == opened(encode(small, "PNG")).getpalette()


def test_the_comment_of_a_gif_becomes_a_text() -> None:
    made = written(encode(smooth("L").convert("P"), "GIF", comment="words of a person"))
    assert opened(made.data).info["Comment"] == "words of a person"
    assert made.not_kept == ()


def test_a_resolution_of_another_type_than_rational_costs_no_image_its_exif() -> None:
    buffer = io.BytesIO()
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[271] = "maker"
    directory[282] = 72.0
    Image.new("RGB", (9, 7), (200, 30, 60)).save(buffer, "TIFF", tiffinfo=directory)
    data = bytearray(buffer.getvalue())
    entry = data.index(struct.pack("<HH", 282, 5))
    data[entry : entry + 12] = struct.pack("<HHLL", 282, 1, 2, 0x0101)
    photo = read_photo(bytes(data), ReadLimits())
    written = write_photo(photo, WriteSettings(format="jpeg"))
    with Image.open(io.BytesIO(written.data)) as image:
        assert image.getexif()[271] == "maker"
