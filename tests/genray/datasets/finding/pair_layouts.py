"""Layouts of image pairs: what is drawn, what the search reports, and which files are trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genray.datasets.pairs.pair_set import Pairs, find_pairs
from genray.datasets.pairs.settings import PairedSettings
from genray.io.listing import find_place

SIZE = 64


def scene(seed: int) -> np.ndarray:
    """A label map of rectangles."""
    rng = np.random.default_rng(seed)
    label = np.full((SIZE, SIZE, 3), (0, 0, 170), np.uint8)
    for _ in range(5):
        top, left = rng.integers(0, SIZE - 12, 2)
        height, width = rng.integers(6, 20, 2)
        label[top : top + height, left : left + width] = rng.integers(60, 250, 3)
    return label


def photo_of(label: np.ndarray) -> np.ndarray:
    shade = np.linspace(0.6, 1.0, SIZE)[:, None, None]
    return (label[..., ::-1] * shade).astype(np.uint8)


def draw(root: Path, *names: str) -> None:
    """Draw one image at each path; each differs from the others."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(number)).save(file)


def each(*patterns: str, count: int = 4) -> list[str]:
    """The patterns with the numbers 0, 1, ... in place of {}."""
    return [pattern.format(number) for pattern in patterns for number in range(count)]


def settings(path: Path, **more: object) -> PairedSettings:
    return PairedSettings.model_validate({"path": str(path), "size": SIZE, **more})


def found(path: Path, **more: object) -> Pairs:
    return find_pairs(find_place(path), settings(path, **more), seed=0)


@dataclass(frozen=True)
class Layout:
    """A layout as it is drawn; what is said of it, and the first pair that is trained on."""

    files: list[str]
    says: str
    direction: str
    pair: tuple[str, str]
    train: int
    val: int


LAYOUTS = {
    "images and labels in each split": Layout(
        each("train/images/{}.png", "train/labels/{}.png", "val/images/{}.png", "val/labels/{}.png"),
        "folders",
        "labels -> images",
        ("train/labels/0.png", "train/images/0.png"),
        4,
        4,
    ),
    "splits in images and labels": Layout(
        each("images/train/{}.png", "labels/train/{}.png", "images/val/{}.png", "labels/val/{}.png"),
        "folders",
        "labels -> images",
        ("labels/train/0.png", "images/train/0.png"),
        4,
        4,
    ),
    "images and masks": Layout(
        each("images/{}.jpg", "masks/{}.png"),
        "folders",
        "masks -> images",
        ("masks/0.png", "images/0.jpg"),
        3,
        1,
    ),
    "masks with a suffix": Layout(
        each("train/images/car{}_01.jpg", "train/masks/car{}_01_mask.png"),
        "folders",
        "masks/*_mask -> images",
        ("train/masks/car0_01_mask.png", "train/images/car0_01.jpg"),
        3,
        1,
    ),
    "VOC": Layout(
        each("VOC2012/JPEGImages/2007_{:06}.jpg", count=9)
        + each("VOC2012/SegmentationClass/2007_{:06}.png", count=4),
        "folders",
        "SegmentationClass -> JPEGImages",
        ("VOC2012/SegmentationClass/2007_000000.png", "VOC2012/JPEGImages/2007_000000.jpg"),
        3,
        1,
    ),
    "Cityscapes": Layout(
        [
            file.format(split, city, city, number)
            for file in (
                "leftImg8bit/{}/{}/{}_{:06}_000019_leftImg8bit.png",
                "gtFine/{}/{}/{}_{:06}_000019_gtFine_color.png",
            )
            for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau"))
            for number in range(3)
        ],
        "folders",
        "gtFine/*_gtFine_color -> leftImg8bit/*_leftImg8bit",
        (
            "gtFine/train/aachen/aachen_000000_000019_gtFine_color.png",
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        ),
        6,
        3,
    ),
    "Oxford pets": Layout(
        each("images/Abyssinian_{}.jpg", "annotations/trimaps/Abyssinian_{}.png"),
        "folders",
        "annotations/trimaps -> images",
        ("annotations/trimaps/Abyssinian_0.png", "images/Abyssinian_0.jpg"),
        3,
        1,
    ),
    "pix2pixHD": Layout(
        each("train_A/{}.png", "train_B/{}.png", "test_A/{}.png", "test_B/{}.png"),
        "folders",
        "train_B -> train_A",
        ("train_B/0.png", "train_A/0.png"),
        4,
        4,
    ),
    "pix2pixHD with words": Layout(
        each("train_label/{}.png", "train_img/{}.png", "train_inst/{}.png"),
        "folders",
        "train_label -> train_img",
        ("train_label/0.png", "train_img/0.png"),
        3,
        1,
    ),
    "BasicSR": Layout(
        each("train/gt/{}.png", "train/lq/{}.png"),
        "folders",
        "lq -> gt",
        ("train/lq/0.png", "train/gt/0.png"),
        3,
        1,
    ),
    "DIV2K": Layout(
        each(
            "DIV2K_train_HR/{:04}.png",
            "DIV2K_train_LR_bicubic/X2/{:04}x2.png",
            "DIV2K_valid_HR/08{:02}.png",
            "DIV2K_valid_LR_bicubic/X2/08{:02}x2.png",
        ),
        "folders",
        "DIV2K_train_LR_bicubic/X2/*x2 -> DIV2K_train_HR",
        ("DIV2K_train_LR_bicubic/X2/0000x2.png", "DIV2K_train_HR/0000.png"),
        4,
        4,
    ),
    "GoPro": Layout(
        [
            f"{split}/{scene}/{side}/{frame:06}.png"
            for split, scene in (("train", "GOPR0372"), ("train", "GOPR0374"), ("test", "GOPR0384"))
            for side in ("blur", "sharp")
            for frame in range(3)
        ],
        "folders",
        "blur -> sharp",
        ("train/GOPR0372/blur/000000.png", "train/GOPR0372/sharp/000000.png"),
        6,
        3,
    ),
    "SIDD": Layout(
        [f"Data/{k:04}_001_S6/{k:04}_{side}_SRGB_010.PNG" for k in range(4) for side in ("NOISY", "GT")],
        "suffixes",
        "*NOISY* -> *GT*",
        ("Data/0000_001_S6/0000_NOISY_SRGB_010.PNG", "Data/0000_001_S6/0000_GT_SRGB_010.PNG"),
        3,
        1,
    ),
    "SIDD, equal names in every scene": Layout(
        [f"Data/{k:04}_001_S6/{side}_SRGB_010.PNG" for k in range(4) for side in ("NOISY", "GT")],
        "suffixes",
        "NOISY* -> GT*",
        ("Data/0000_001_S6/NOISY_SRGB_010.PNG", "Data/0000_001_S6/GT_SRGB_010.PNG"),
        3,
        1,
    ),
    "suffixes": Layout(
        each("train/{}_image.png", "train/{}_mask.png", "val/{}_image.png", "val/{}_mask.png"),
        "suffixes",
        "*_mask -> *_image",
        ("train/0_mask.png", "train/0_image.png"),
        4,
        4,
    ),
    "one suffix": Layout(
        each("{}.png", "{}_mask.png"), "suffixes", "*_mask -> .", ("0_mask.png", "0.png"), 3, 1
    ),
    "CamVid": Layout(
        each(
            "train/s_{:04}.png", "train_labels/s_{:04}_L.png", "val/s_{:04}.png", "val_labels/s_{:04}_L.png"
        ),
        "folders",
        "train_labels/*_L -> .",
        ("train_labels/s_0000_L.png", "train/s_0000.png"),
        4,
        4,
    ),
    "a folder of masks beside the images": Layout(
        each("{}.png", "masks/{}.png"), "folders", "masks -> .", ("masks/0.png", "0.png"), 3, 1
    ),
    "PNG beside TIFF": Layout(
        [*each("A/{}.png", count=2), "A/2.tif", "A/3.tif", "B/0.tif", *each("B/{}.png")[1:]],
        "folders",
        "B -> A",
        ("B/0.tif", "A/0.png"),
        3,
        1,
    ),
    "A/training and A/testing": Layout(
        each("A/training/{}.png", "B/training/{}.png")
        + each("A/testing/1{}.png", "B/testing/1{}.png", count=2),
        "folders",
        "B -> A",
        ("B/training/0.png", "A/training/0.png"),
        4,
        2,
    ),
    "input and target": Layout(
        each("Train/Input/{}.png", "Train/Target/{}.png", "Holdout/Input/{}.png", "Holdout/Target/{}.png"),
        "folders",
        "Input -> Target",
        ("Train/Input/0.png", "Train/Target/0.png"),
        4,
        4,
    ),
    "LOL of a later year": Layout(
        each("Real/Train/Low/low{:05}.png", "Real/Train/Normal/normal{:05}.png"),
        "folders",
        "Low/low* -> Normal/normal*",
        ("Real/Train/Low/low00000.png", "Real/Train/Normal/normal00000.png"),
        3,
        1,
    ),
    "Rain100": Layout(
        each("train/rain/rain-{:03}.png", "train/norain/norain-{:03}.png"),
        "folders",
        "rain/rain* -> norain/norain*",
        ("train/rain/rain-000.png", "train/norain/norain-000.png"),
        3,
        1,
    ),
    "LOL": Layout(
        each("our485/low/{}.png", "our485/high/{}.png", "eval15/low/{}.png", "eval15/high/{}.png"),
        "folders",
        "low -> high",
        ("our485/low/0.png", "our485/high/0.png"),
        4,
        4,
    ),
}


def joined(axis: int) -> Callable[[int], np.ndarray]:
    return lambda seed: np.concatenate([photo_of(scene(seed)), scene(seed)], axis=axis)
