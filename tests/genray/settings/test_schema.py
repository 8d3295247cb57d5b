from collections.abc import Mapping

from genray.settings.schema import annotation_of, describe_type, group_classes, is_mapping, setting_keys
from jobs.train_autoencoder import TrainAutoencoderSettings


def test_the_keys_are_those_of_every_kind_of_a_group() -> None:
    keys = list(setting_keys(TrainAutoencoderSettings))
    assert {"model", "model.kind", "model.hidden", "model.filters", "model.beta"} <= set(keys)
    kinds = [
        group.model_fields["kind"].default
        for group in group_classes(annotation_of(TrainAutoencoderSettings, "model"))
    ]
    assert kinds == ["dense", "conv", "improved", "vae", "numpy"]


def test_a_mapping_is_told_from_other_types() -> None:
    assert [is_mapping(kind) for kind in (Mapping[str, int], dict[str, int], list[int], str)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_types_are_put_in_words() -> None:
    shown = {
        key: describe_type(annotation_of(TrainAutoencoderSettings, key))
        for key in ("seed", "loop.clip", "loop.workers", "model.hidden", "eval.projection", "data.path")
    }
    assert shown == {
        "seed": "a whole number",
        "loop.clip": "a number or null",
        "loop.workers": "a whole number or [a whole number, a whole number]",
        "model.hidden": "a list, each a whole number",
        "eval.projection": "one of tsne, none",
        "data.path": "text",
    }
