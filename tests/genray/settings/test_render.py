import yaml

from genray.settings.base import flatten
from genray.settings.load import load
from genray.settings.render import annotated_yaml
from jobs.train_autoencoder import TrainAutoencoderSettings
from jobs.train_destamper import TrainDestamperSettings
from jobs.train_pix2pix import TrainPix2PixSettings


def comment(text: str, line: str) -> str:
    """The comment of the first line that begins with `line`."""
    return next(row for row in text.splitlines() if row.strip().startswith(line)).partition("# ")[2]


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


def test_every_kind_of_a_group_can_be_found_whichever_is_chosen() -> None:
    for kind in ("dense", "vae"):
        sets = [f"model.kind={kind}"]
        text = annotated_yaml(load(TrainAutoencoderSettings, target="train-autoencoder", sets=sets))
        assert comment(text, f"kind: {kind}").endswith("one of dense, conv, improved, vae, numpy")
        assert comment(text, "kind: adam").endswith("one of adam, adamw"), "a group without kinds of its own"


def test_the_choices_of_a_lists_items_are_in_the_comment() -> None:
    text = annotated_yaml(TrainDestamperSettings())
    assert comment(text, "kinds:").endswith("each one of date, date-time, time, word, number")


def test_a_comment_stands_apart_from_a_long_value() -> None:
    colours = tuple(f"#{shade:06x}" for shade in range(40))
    settings = TrainDestamperSettings.model_validate({"stamps": {"colors": colours}})
    text = annotated_yaml(settings)
    assert all("  # " in line for line in text.splitlines())
    assert TrainDestamperSettings.model_validate(yaml.safe_load(text)) == settings
