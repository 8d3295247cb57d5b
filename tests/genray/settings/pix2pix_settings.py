"""Settings of train-pix2pix, loaded as a user would give them."""

from pathlib import Path

from genray.settings.load import load
from jobs.train_pix2pix import TrainPix2PixSettings


def load_pix2pix(config: Path | None = None, *sets: str) -> TrainPix2PixSettings:
    return load(TrainPix2PixSettings, target="train-pix2pix", config=config, sets=sets)


def write_config(folder: Path, text: str) -> Path:
    file = folder / "my.yaml"
    file.write_text(text)
    return file
