import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from genray.images.decode import decode, decode_header, read_image
from genray.images.limits import ReadLimits
from genray.images.photo import read_photo
from genray.io.bad_input import BadImage
from genray.io.store import Store, open_store
from tests.broken_files import chunk, encode
from tests.genray.images.photo_samples import ICC, exif, reason, smooth


def jpeg_of_scans(scans: int, image: Image.Image | None = None) -> bytes:
    """A progressive JPEG with so many scans more, which say nothing."""
    data = encode(image or smooth(), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    head = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 1, 5, 0x00)
    return data[:end] + (head + bytes(4)) * scans + data[end:]


def test_jpegs_of_many_scans_are_refused_before_they_are_decoded() -> None:
    usual = encode(smooth(), "JPEG", progressive=True)
    count = usual.count(b"\xff\xda")
    assert read_photo(usual, ReadLimits(max_scans=count)).pixels.shape == (24, 32, 3)
    assert reason(usual, ReadLimits(max_scans=count - 1)) == "too-much-work"
    many = jpeg_of_scans(1000, Image.new("RGB", (2000, 2000)))
    began = time.perf_counter()
    assert reason(many, ReadLimits()) == "too-much-work"
    with pytest.raises(BadImage, match="scans, the limit is 500"):
        decode(many, channels=3, limits=ReadLimits())
    with pytest.raises(BadImage, match="scans, the limit is 500"):
        decode_header(many, ReadLimits())
    assert time.perf_counter() - began < 1.0, "decoding it takes some seconds"


def test_what_only_looks_like_scans_is_not_counted() -> None:
    marks = b"\xff\xda" * 3000
    jpeg = encode(smooth(), "JPEG", progressive=True, comment=marks)
    for data in (jpeg, jpeg + marks, encode(smooth(), "JPEG") + marks):
        assert read_photo(data, ReadLimits()).pixels.shape == (24, 32, 3)


def test_scans_times_pixels_are_limited_in_seconds() -> None:
    data = jpeg_of_scans(400)
    large = data.replace(struct.pack(">HH", 24, 32), struct.pack(">HH", 9000, 9000))
    assert reason(large, ReadLimits()) == "too-much-work"
    assert reason(large, ReadLimits(max_seconds=0.001)) == "too-much-work"
    assert reason(large, ReadLimits(max_seconds=1000)) != "too-much-work"


def test_what_took_longer_than_the_limit_all_the_same_is_noted() -> None:
    (note,) = read_photo(encode(smooth(), "PNG"), ReadLimits(max_seconds=1e-9)).notes
    assert note.startswith("decoding it took ")


def test_scans_inside_a_tiff_count_too() -> None:
    data = encode(smooth(), "TIFF", compression="jpeg")
    assert read_photo(data, ReadLimits(max_scans=1)).pixels.shape == (24, 32, 3)
    with Image.open(io.BytesIO(data)) as image:
        (start,), (length,) = image.tag_v2[273], image.tag_v2[279]
    longer = data.replace(struct.pack("<L", length), struct.pack("<L", len(data) + 1200 - start))
    assert reason(longer + b"\xff\xda" * 600, ReadLimits()) == "too-much-work"
    assert read_photo(data + b"\xff\xda" * 600, ReadLimits(max_scans=1)).pixels.shape == (24, 32, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_pixels_and_bytes_are_limited(kind: str) -> None:
    data = encode(smooth(), kind)
    assert reason(data, ReadLimits(max_bytes=len(data) - 1)) == "too-large"
    assert reason(data, ReadLimits(max_pixels=24 * 32 - 1)) == "too-large"
    within = ReadLimits(max_bytes=len(data), max_pixels=24 * 32)
    assert read_photo(data, within).pixels.shape == (24, 32, 3)
    assert decode(data, channels=3, limits=within).shape == (24, 32, 3)


def test_no_more_is_read_of_a_file_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encode(smooth(), "PNG") + bytes(10_000))
    store: Store = open_store(str(tmp_path))
    with pytest.raises(BadImage, match="more than 5000 bytes"):
        read_image(store, "large.png", channels=3, limits=ReadLimits(max_bytes=5000))


def test_profiles_that_unpack_to_much_are_left_out_and_noted() -> None:
    png = encode(smooth(), "PNG")
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(ICC + bytes(200 * 2**20), 9))
    tracemalloc.start()
    photo = read_photo(png[:33] + bomb + png[33:], ReadLimits())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert photo.icc is None
    assert photo.notes == ("its colour profile has more than 4194304 bytes: left out",)
    assert peak < 20 * 2**20


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_profiles_and_exif_beyond_the_limit_are_left_out_and_noted(kind: str) -> None:
    data = encode(smooth(), kind, icc_profile=ICC, exif=exif(6))
    kept = read_photo(data, ReadLimits())
    assert kept.icc == ICC
    assert kept.exif
    bare = read_photo(data, ReadLimits(max_text_bytes=20))
    assert (bare.icc, bare.exif) == (None, None)
    assert len(bare.notes) == 2
    assert bare.pixels.shape == (32, 24, 3), "it is turned all the same"


def test_the_limits_are_settings_of_training_and_of_bulk() -> None:
    from genray.datasets.image_set import ImageSetSettings
    from genray.datasets.pairs.settings import PairedSettings
    from pipelines.settings import ReadSettings

    for settings in (ImageSetSettings(), PairedSettings(), ReadSettings()):
        assert (
            ReadLimits(**{name: getattr(settings, name) for name in ReadLimits.model_fields}) == ReadLimits()
        )
    assert ReadLimits().max_scans == 500
