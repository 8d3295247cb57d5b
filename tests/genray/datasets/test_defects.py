"""Layouts of anomaly data sets: which files are images, which class each has, and what is a mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.datasets.defects import DefectMasks
from genray.datasets.image_set import ImageSet, open_image_set
from genray.errors import DataError
from genray.io.store import open_store
from jobs.train_anomaly import NormalSetSettings, TrainAnomaly, TrainAnomalySettings


def draw(root: Path, *names: str, black: bool = False) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(name.encode()[-6:], "little")
        image = np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)
        Image.fromarray(image * (not black)).save(file)


def each(*patterns: str, count: int = 4) -> list[str]:
    return [pattern.format(number) for pattern in patterns for number in range(count)]


def selected(root: Path) -> ImageSet:
    settings = TrainAnomalySettings(data=NormalSetSettings(path=str(root)))
    return TrainAnomaly(settings).select(open_image_set(settings.data, seed=0))


def names(image_set: ImageSet) -> tuple[set[str], set[str]]:
    """Folders of the images that are trained on or set the threshold, and of those that judge."""
    test = image_set.test
    judged = set() if test is None else {test.name(index) for index in range(len(test))}
    train = {part.name(index) for part in (image_set.train, image_set.val) for index in range(len(part))}
    return {name.rpartition("/")[0] for name in train}, {name.rpartition("/")[0] for name in judged}


@dataclass(frozen=True)
class Layout:
    files: list[str]
    trained: set[str]
    judged: set[str]
    normal: str
    masks: int


LAYOUTS = {
    "MVTec AD": Layout(
        each(
            "train/good/{:03}.png",
            "test/good/9{:02}.png",
            "test/hole/8{:02}.png",
            "ground_truth/hole/8{:02}_mask.png",
        ),
        {"train/good"},
        {"test/good", "test/hole"},
        "good",
        4,
    ),
    "BTAD": Layout(
        each(
            "01/train/ok/{:04}.bmp",
            "01/test/ok/9{:03}.bmp",
            "01/test/ko/8{:03}.bmp",
            "01/ground_truth/ko/8{:03}.png",
        ),
        {"01/train/ok"},
        {"01/test/ok", "01/test/ko"},
        "ok",
        4,
    ),
    "VisA": Layout(
        each("candle/Data/Images/Normal/{:03}.JPG", count=20)
        + each("candle/Data/Images/Anomaly/{:03}.JPG", "candle/Data/Masks/Anomaly/{:03}.png"),
        {"candle/Data/Images/Normal"},
        {"candle/Data/Images/Normal", "candle/Data/Images/Anomaly"},
        "Normal",
        4,
    ),
    "plain folders": Layout(
        each("good/{}.png", count=20) + each("scratch/{}.png"), {"good"}, {"good", "scratch"}, "good", 0
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_normal_images_are_trained_on_and_masks_are_no_images(tmp_path: Path, layout: Layout) -> None:
    draw(tmp_path, *layout.files)
    image_set = selected(tmp_path)
    assert names(image_set) == (layout.trained, layout.judged)
    masks = f"; {layout.masks} masks of defects are not images" * (layout.masks > 0)
    assert image_set.split.endswith(f"{masks}; normal: {layout.normal}")


def trained_names(image_set: ImageSet) -> set[str]:
    return {part.name(i) for part in (image_set.train, image_set.val) for i in range(len(part))}


def test_images_with_a_mask_are_defects_where_no_folder_is_called_normal(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *each("Class1/Train/{:04}.PNG", count=12),
        *each("Class1/Train/Label/{:04}_label.PNG", count=3),
    )
    draw(tmp_path, *each("Class1/Test/1{:03}.PNG"))
    image_set = selected(tmp_path)  # as DAGM
    assert trained_names(image_set) < set(each("Class1/Train/{:04}.PNG", count=12)[3:])
    assert len(image_set.train) == 7
    assert "3 masks of defects are not images; " in image_set.split


def test_masks_beside_the_images_mark_defects_unless_they_are_black(tmp_path: Path) -> None:
    draw(tmp_path, *each("kos{:02}/Part0.png", count=60))
    draw(tmp_path, *each("kos{:02}/Part0_label.bmp", count=60), black=True)
    draw(tmp_path, "kos03/Part0_label.bmp", "kos07/Part0_label.bmp")  # as KolektorSDD
    image_set = selected(tmp_path)
    assert not {"kos03/Part0.png", "kos07/Part0.png"} & trained_names(image_set)
    assert not any("label" in name for name in trained_names(image_set))
    assert image_set.test is not None
    judged = {image_set.test.name(index) for index in range(len(image_set.test))}
    assert {"kos03/Part0.png", "kos07/Part0.png"} <= judged


def test_classes_without_a_usual_name_are_asked_for(tmp_path: Path) -> None:
    draw(tmp_path, *each("apple/{}.png", "pear/{}.png"))
    with pytest.raises(DataError, match="which classes are normal") as refused:
        selected(tmp_path)
    assert refused.value.hint == "name the normal ones, such as data.normal=[apple], or all of them"


def test_a_folder_of_masks_only_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, *each("ground_truth/{}.png"))
    with pytest.raises(DataError, match=r"all 4 images under .* are in folders of masks"):
        selected(tmp_path)


def test_unlabelled_test_images_do_not_hide_known_anomalies_of_the_training_part(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *each("Class1/Train/{:04}.PNG", count=12),
        *each("Class1/Train/Label/{:04}_label.PNG", count=3),
    )
    draw(tmp_path, *each("Class1/Test/1{:03}.PNG"))
    image_set = selected(tmp_path)
    assert image_set.test is not None
    judged = {image_set.test.name(index) for index in range(len(image_set.test))}
    assert judged >= set(each("Class1/Train/{:04}.PNG", count=3))
    assert not any("Test" in name for name in judged)
    assert "4 test images without a class do not judge, known anomalies do" in image_set.split


def test_a_mask_is_fitted_like_its_image(tmp_path: Path) -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[10:, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "1.png")
    masks = DefectMasks(open_store(tmp_path), {"a.png": "1.png", "b.png": "gone.png"})
    cropped, stretched = (masks.read("a.png", (10, 10), fit) for fit in ("crop", "stretch"))
    assert cropped is not None
    assert stretched is not None
    assert np.argwhere(cropped).tolist() == [[r, c] for r in range(5, 10) for c in range(5)]
    assert np.flatnonzero(stretched.any(axis=0)).tolist() == [2, 3, 4]
    assert masks.read("b.png", (10, 10), None) is None
    assert masks.read("c.png", (10, 10), None) is None


@pytest.mark.parametrize("layout", ["MVTec AD", "BTAD", "VisA"])
def test_each_defect_has_its_mask(tmp_path: Path, layout: str) -> None:
    draw(tmp_path, *LAYOUTS[layout].files)
    image_set = selected(tmp_path)
    assert image_set.defects is not None
    assert len(image_set.defects.by_image) == 4
    for image, mask in image_set.defects.by_image.items():
        assert Path(image).stem == Path(mask).stem.removesuffix("_mask")
        assert image_set.defects.read(image, (24, 24), None) is not None
