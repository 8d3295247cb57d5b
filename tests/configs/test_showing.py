import yaml

from configs.loading import load
from configs.showing import annotated_yaml
from genray.settings import flatten
from jobs.train_pix2pix import TrainPix2PixSettings


def test_the_shown_yaml_loads_as_the_same_settings_with_a_comment_on_each_line() -> None:
    settings = load(
        TrainPix2PixSettings, target="train-pix2pix", sets=["loop.workers=[1, 4]", "device.gpu=true"]
    )
    text = annotated_yaml(settings)
    assert flatten(yaml.safe_load(text)) == flatten(settings)
    assert TrainPix2PixSettings.model_validate(yaml.safe_load(text)) == settings
    assert all("  # " in line for line in text.splitlines())


def test_choices_and_limits_are_in_the_comment() -> None:
    text = annotated_yaml(TrainPix2PixSettings())
    assert "one of AtoB, BtoA" in text
    assert "from 0 below 2147483648" in text
