"""A table of layouts of pairs: what is drawn, what is said, and which files are trained on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.datasets.finding.finder import Pair
from genray.datasets.pairs.pair_set import find_pairs
from genray.datasets.pairs.samples import load_pair
from genray.errors import DataError
from genray.io.listing import find_place
from genray.io.store import open_store
from genray.settings.load import load
from jobs.train_pix2pix import TrainPix2PixSettings
from tests.genray.datasets.finding.pair_layouts import (
    LAYOUTS,
    SIZE,
    Layout,
    draw,
    each,
    found,
    joined,
    photo_of,
    scene,
    settings,
)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_two_files_are_known_by_their_names(tmp_path: Path, layout: Layout) -> None:
    draw(tmp_path, *layout.files)
    pairs = found(tmp_path)
    source, target = layout.pair
    assert pairs.lines[:3] == [
        f"layout: {layout.says}",
        f"direction: {layout.direction} (data.direction=BtoA)",
        f"pair: {pairs.train[0].input} -> {pairs.train[0].target}",
    ]
    every = {(pair.input, pair.target) for pair in (*pairs.train, *pairs.val)}
    assert (source, target) in every
    assert (len(pairs.train), len(pairs.val)) == (layout.train, layout.val)
    assert len({path for pair in every for path in pair}) == 2 * (layout.train + layout.val)
    assert not any("test" in pair.input.lower() or "holdout" in pair.input.lower() for pair in pairs.train)


@pytest.mark.parametrize(
    ("axis", "layout", "sides"),
    [(1, "side-by-side", "right half -> left half"), (0, "above-below", "lower half -> upper half")],
)
def test_halves_of_a_file_are_known_by_their_pixels(
    tmp_path: Path, axis: int, layout: str, sides: str
) -> None:
    for number in range(8):
        Image.fromarray(joined(axis)(number)).save(tmp_path / f"{number}.png")
    pairs = found(tmp_path)
    assert pairs.lines[:2] == [f"layout: {layout}", f"direction: {sides} (data.direction=BtoA)"]
    assert pairs.lines[3] == "split: 0.1 held out by seed 0"


def test_single_images_are_not_cut_into_halves(tmp_path: Path) -> None:
    for number in range(8):  # twice as wide as high, as a pair is
        wide = np.concatenate([scene(number), scene(number + 100)], axis=1)
        Image.fromarray(wide).resize((4 * SIZE, 2 * SIZE)).crop((32, 0, 32 + 192, 96)).save(
            tmp_path / f"{number}.png"
        )
    with pytest.raises(DataError, match="no pairs found in 8 images") as refused:
        found(tmp_path)
    assert "data.layout=side-by-side" in refused.value.hint
    assert "data.pairs={input: train/labels, target: train/images}" in refused.value.hint
    assert found(tmp_path, layout="side-by-side").layout == "side-by-side"


def test_two_names_without_a_direction_are_asked_for(tmp_path: Path) -> None:
    draw(tmp_path, *each("day/{}.png", "night/{}.png"))
    with pytest.raises(DataError, match="in 2 ways") as refused:
        found(tmp_path)
    assert "1. day -> night, 4 pairs: data.pairs={input: day, target: night}" in str(refused.value)
    assert "2. night -> day, 4 pairs: data.pairs={input: night, target: day}" in str(refused.value)
    pairs = found(tmp_path, pairs={"input": "night", "target": "day"})
    assert pairs.example == "night/1.png -> day/1.png" or pairs.example == "night/0.png -> day/0.png"


def test_three_folders_of_letters_are_asked_for(tmp_path: Path) -> None:
    draw(tmp_path, *each("train_A/{}.png", "train_B/{}.png", "train_C/{}.png"))  # as ISTD
    with pytest.raises(DataError, match="in 3 ways"):
        found(tmp_path)


def test_several_targets_are_asked_for_and_the_setting_of_the_error_chooses(tmp_path: Path) -> None:
    city = "{}/train/bonn/bonn_{:06}_000019_{}.png"
    draw(tmp_path, *(city.format("leftImg8bit", k, "leftImg8bit") for k in range(3)))
    for kind in ("color", "labelIds"):
        draw(tmp_path, *(city.format("gtFine", k, f"gtFine_{kind}") for k in range(3)))
    with pytest.raises(DataError, match="in 2 ways") as refused:
        found(tmp_path)
    setting = 'data.pairs={input: "gtFine/*_gtFine_labelIds", target: "leftImg8bit/*_leftImg8bit"}'
    assert setting in str(refused.value)
    chosen = load(TrainPix2PixSettings, target="train-pix2pix", sets=[setting, f"data.path={tmp_path}"]).data
    pairs = find_pairs(find_place(tmp_path), chosen.model_copy(update={"size": SIZE}), 0)
    assert {pair.input.rpartition("_")[2] for pair in pairs.train} == {"labelIds.png"}
    assert "of neither side: 3 files in gtFine/train/bonn" in pairs.notes


def test_the_user_names_the_sides_of_one_split_for_all(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *each("train/labels/{}.png", "train/images/{}.png", "val/labels/{}.png", "val/images/{}.png"),
    )
    pairs = found(tmp_path, pairs={"input": "train/images", "target": "train/labels"})
    assert pairs.example == "train/images/0.png -> train/labels/0.png"
    assert [pair.input for pair in pairs.val] == each("val/images/{}.png")


def test_the_direction_turns_named_sides(tmp_path: Path) -> None:
    draw(tmp_path, *each("images/{}.png", "labels/{}.png"))
    assert found(tmp_path, direction="AtoB").sides == ("images", "labels")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"input": "train/lables", "target": "images"}, "no image is in train/lables"),
        ({"input": "images", "target": "images"}, "the same side twice"),
        ({"input": "images", "target": "others"}, "no file of images has a partner in others"),
        ({"input": "../images", "target": "images"}, r"no image is in \.\./images"),
    ],
)
def test_names_that_cannot_be_sides_are_refused(tmp_path: Path, names: dict[str, str], message: str) -> None:
    draw(tmp_path, *each("images/{}.png", "labels/{}.png"), *each("others/x{}.png"))
    with pytest.raises(DataError, match=message):
        found(tmp_path, pairs=names)


def test_named_sides_contradict_a_direction_and_halves(tmp_path: Path) -> None:
    names = {"input": "a", "target": "b"}
    with pytest.raises(ValueError, match="exchange input and target"):
        settings(tmp_path, pairs=names, direction="AtoB")
    with pytest.raises(ValueError, match="two halves of one file"):
        settings(tmp_path, pairs=names, layout="side-by-side")


def test_what_has_no_partner_or_use_is_counted_and_said(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *each("train/images/{}.png", "train/labels/{}.png", "val/images/{}.png", "val/labels/{}.png"),
    )
    draw(tmp_path, "train/images/9.png", "train/overlays/0.png")
    draw(
        tmp_path,
        *each("test/images/{}.png", "test/labels/{}.png", "extra/images/{}.png", "extra/labels/{}.png"),
    )
    pairs = found(tmp_path)
    assert pairs.notes == (
        "unpaired: 1 file of images, such as train/images/9.png",
        "of neither side: 1 file in train/overlays",
        "not used: 4 pairs beside the folder train, in extra/labels",
        "not used: 4 test pairs, which are never trained on",
    )
    assert pairs.record["notes"].startswith("unpaired: 1 file of images")
    assert {pair.input.split("/")[0] for pair in pairs.train} == {"train"}


def test_class_folders_with_equal_names_are_no_silent_pairs(tmp_path: Path) -> None:
    draw(tmp_path, *each("cat/{}.png", "dog/{}.png", "cow/{}.png"))
    with pytest.raises(DataError, match="can be read as pairs in 6 ways"):
        found(tmp_path)


def write_table(root: Path, name: str, lines: Iterable[str]) -> Path:
    file = root / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_table_names_pairs_by_its_columns(tmp_path: Path) -> None:
    draw(tmp_path, *each("p/x{}.png", "q/y{}.png"))
    rows = [f"{k},p/x{k}.png,q/y{k}.png,{'train' if k else 'test'}" for k in range(4)]
    table = write_table(tmp_path, "list.csv", ["id,mask_path,image_path,split", *rows])
    pairs = found(table)
    assert pairs.lines == [
        "layout: table",
        "direction: mask_path -> image_path (data.direction=BtoA)",
        "pair: p/x1.png -> q/y1.png",
        "split: by the table, test is held out",
    ]
    assert len(pairs.train) == 3
    assert found(table, direction="AtoB").example == "q/y1.png -> p/x1.png"


def test_a_parquet_table_is_read_as_well(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw(tmp_path, *each("p/x{}.png", "q/y{}.png"))
    table = pa.table({"source": each("p/x{}.png"), "target": each("q/y{}.png"), "size": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "list.parquet")
    pairs = found(tmp_path / "list.parquet")
    assert (pairs.layout, pairs.sides, len(pairs.train), len(pairs.val)) == (
        "table",
        ("source", "target"),
        3,
        1,
    )


def test_columns_without_a_direction_are_asked_for(tmp_path: Path) -> None:
    draw(tmp_path, *each("p/x{}.png", "q/y{}.png"))
    table = write_table(tmp_path, "list.tsv", ["one\ttwo", *(f"p/x{k}.png\tq/y{k}.png" for k in range(4))])
    with pytest.raises(DataError, match="do not say which is the input") as refused:
        found(table)
    assert (
        "data.pairs={input: one, target: two}, or data.pairs={input: two, target: one}" in refused.value.hint
    )
    assert found(table, pairs={"input": "two", "target": "one"}).sides == ("two", "one")


def test_tables_of_splits_are_one_layout(tmp_path: Path) -> None:
    draw(tmp_path, *each("p/x{}.png", "q/y{}.png"))
    write_table(tmp_path, "train.csv", ["noisy;clean", *(f"p/x{k}.png;q/y{k}.png" for k in range(3))])
    write_table(tmp_path, "info.csv", ["name,rating", "p/x0.png,5"])
    write_table(tmp_path, "val.csv", ["noisy;clean", ".\\p\\x3.png;q/y3.png"])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for more in ({}, {"pairs": {"input": "noisy", "target": "clean"}, "layout": "table"}):
        if more:
            (tmp_path / "broken.parquet").unlink()
        pairs = found(tmp_path, **more)
        assert (pairs.layout, pairs.sides, len(pairs.train)) == ("table", ("noisy", "clean"), 3)
        assert [pair.input for pair in pairs.val] == ["p/x3.png"]


def test_a_table_without_names_of_columns_is_asked_about(tmp_path: Path) -> None:
    draw(tmp_path, *each("p/x{}.png", "q/y{}.png"))
    table = write_table(tmp_path, "list.csv", [f"p/x{k}.png,q/y{k}.png" for k in range(4)])
    with pytest.raises(DataError) as refused:
        found(table)
    setting = 'data.pairs={input: "2", target: "1"}'
    assert setting in refused.value.hint
    chosen = load(TrainPix2PixSettings, target="train-pix2pix", sets=[setting, f"data.path={table}"]).data
    pairs = find_pairs(find_place(table), chosen.model_copy(update={"size": SIZE}), 0)
    assert pairs.sides == ("2", "1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has 0 columns of image paths"),
        ("path,label\np/x0.png,1\n", r"has 1 columns of image paths \(path\)"),
        ("input,target\n/etc/x.png,/etc/y.png\n", "leaves the folder of the table"),
        ("input,target\nx0.png,y0.png\n", "'x0.png', which does not exist"),
    ],
)
def test_a_table_without_pairs_is_refused(tmp_path: Path, content: str, message: str) -> None:
    draw(tmp_path, "p/x0.png", "q/y0.png")
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        found(tmp_path / "list.csv")


def test_a_table_leaves_out_what_is_not_there_or_outside(tmp_path: Path) -> None:
    draw(tmp_path, *each("p/x{}.png", "q/y{}.png"))
    rows = [*(f"p/x{k}.png,q/y{k}.png" for k in range(4)), "p/x9.png,q/y9.png", "../x.png,q/y0.png"]
    pairs = found(write_table(tmp_path, "list.csv", ["input,target", *rows]))
    assert [(bad.path, bad.reason) for bad in pairs.bad] == [
        ("list.csv:5", "unreadable"),
        ("list.csv:6", "bad-name"),
    ]
    assert pairs.notes == ("left out: 2 rows of list.csv, such as 'p/x9.png', which does not exist",)


def test_a_table_beside_the_images_is_another_reading_only_if_it_pairs_others(tmp_path: Path) -> None:
    draw(tmp_path, *each("images/{}.png", "labels/{}.png"))
    write_table(tmp_path, "same.csv", ["label,image", *(f"labels/{k}.png,images/{k}.png" for k in range(4))])
    assert found(tmp_path).layout == "folders"
    (tmp_path / "same.csv").unlink()
    write_table(
        tmp_path, "other.csv", ["label,image", *(f"labels/{k}.png,images/{3 - k}.png" for k in range(4))]
    )
    with pytest.raises(DataError, match="in 2 ways") as refused:
        found(tmp_path)
    assert "columns label -> image of other.csv, 4 pairs: data.layout=table" in str(refused.value)


def test_halves_above_each_other_are_loaded_as_input_and_target(tmp_path: Path) -> None:
    upper, lower = photo_of(scene(0)), scene(0)
    Image.fromarray(np.concatenate([upper, lower])).save(tmp_path / "0.png")
    chosen = settings(tmp_path, layout="above-below", resize=0)
    source, target = load_pair(open_store(tmp_path), Pair("0.png"), chosen)
    assert np.array_equal(source, lower)
    assert np.array_equal(target, upper)
