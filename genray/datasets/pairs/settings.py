"""Settings of image pairs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from genray.datasets.finding.finder import HALVES, Direction, PairLayout
from genray.datasets.values import WindowSetting
from genray.images.arrays import MOST_CHANNELS
from genray.images.limits import ReadLimits
from genray.settings.base import Location, Settings


class PairNames(Settings):
    """Settings of the two sides of image pairs in two files."""

    input: str = Field(
        min_length=1,
        description="side of the inputs: folder below data.path (labels, or train/labels for all splits), "
        "pattern of names (*_mask), both (gtFine/*_color), or column of a table",
    )
    target: str = Field(min_length=1, description="side of the targets: folder, pattern or column")


class _PairSettings(Settings):
    """Settings of the pairs: which, their form, and how they are loaded."""

    path: Location = Field(
        "data/fronts", description="pairs to train on: a folder, a pattern (photos/**/*.png), or a URI"
    )
    layout: Literal["auto"] | PairLayout = Field(
        "auto",
        description="layout of the pairs (side-by-side: A|B in one file; above-below: A over B; folders: two "
        "folders of equal file names; suffixes: two endings of the names; table: CSV or Parquet with two "
        "columns of paths; auto: by names and pixels)",
    )
    pairs: PairNames | None = Field(
        None, description="folders, name patterns or table columns of inputs and targets (null: by names)"
    )
    direction: Direction = Field(
        "BtoA",
        description="direction of the translation (BtoA: B is the input, AtoB: A is; A is the left or upper "
        "half or the folder A, as in the facades of the paper; under other names B is what sounds like an "
        "input: labels, masks, noisy, lq)",
    )
    input_channels: int = Field(
        3,
        ge=1,
        le=MOST_CHANNELS,
        description="channels of the input (1: gray, 3: RGB, 4: RGBA, others: those of the files)",
    )
    target_channels: int = Field(
        3,
        ge=1,
        le=MOST_CHANNELS,
        description="channels of the target (1: gray, 3: RGB, 4: RGBA, others: those of the files)",
    )
    input_window: WindowSetting | None = Field(
        None,
        description="levels of the inputs that become black and white, such as [0, 4] for maps of 5 classes "
        "(percentiles: the 0.1 % and 99.9 % levels of a sample; null: the whole range, of floats 0 and 1)",
    )
    target_window: WindowSetting | None = Field(
        None, description="levels of the targets that become black and white, likewise"
    )
    labels: Literal["values", "one-hot"] = Field(
        "values",
        description="form of the inputs (values: images; one-hot: label maps, of which each class, a level "
        "or a colour, becomes a channel; the classes are counted in the training pairs)",
    )
    size: int = Field(
        256,
        ge=64,
        le=1024,
        multiple_of=32,
        description="height and width of the crop that is trained on, in pixels",
    )
    resize: int | None = Field(
        None,
        ge=0,
        le=2048,
        description="height and width before the crop, in pixels (null: size * 286 / 256, 0: as they are)",
    )
    flip: bool = Field(True, description="mirror half of the training pairs left to right")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=0.9,
        description="share of the pairs that is held out (0 to 1), where there is no val or test folder",
    )
    val_max: int = Field(1000, ge=1, description="largest number of held-out pairs that are scored")
    allow_shared: bool = Field(
        False, description="train although a held-out pair is also trained on, byte for byte"
    )
    max_bad_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="largest share of broken files (0 to 1); with more the training does not start",
    )
    loader: Literal["auto", "memory", "stream"] = Field(
        "auto",
        description="way to load samples (memory: decode once, in this process; stream: decode in every "
        "epoch, by Ray Data; auto: by memory_gb)",
    )
    memory_gb: float = Field(
        2.0, gt=0, description="gigabytes of decoded pairs above which loader=auto streams them"
    )

    @property
    def load_size(self) -> int | None:
        """Pixels that an image is resized to before the crop; None: not resized."""
        if self.resize is None:
            return round(self.size * 286 / 256)
        return self.resize or None

    def for_validation(self) -> Self:
        """The same, but resized to the crop at once: a held-out pair is scored whole."""
        return self if self.resize == 0 else self.model_copy(update={"resize": self.size})

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize and self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) is smaller than the crop, size ({self.size})")
        return self

    @model_validator(mode="after")
    def _labels_have_no_window(self) -> Self:
        if self.labels == "one-hot" and self.input_window is not None:
            raise ValueError("labels=one-hot needs no input_window: classes have no levels")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.pairs is not None and self.direction == "AtoB":
            raise ValueError(
                "pairs says which side is the input: exchange input and target instead of direction=AtoB"
            )
        if self.pairs is not None and self.layout in HALVES:
            raise ValueError(f"pairs names two files, but layout={self.layout} means two halves of one file")
        return self


class PairedSettings(ReadLimits, _PairSettings):
    """Settings of a store of image pairs."""
