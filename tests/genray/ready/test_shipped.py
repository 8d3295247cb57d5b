"""The models that come with genray."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genray.bundle import load_bundle
from genray.named_bundles import FOLDER, ready_folder
from genray.ready.catalog import ReadyModel, ready_models
from genray.ready.export import read_about
from genray.settings.load import load
from genray.targets import find_target
from monitors.patient.scoring import BeatModel
from monitors.settings import EcgSettings

MOST_BYTES = 10e6  # of all ready models together
MODELS = ready_models()


def test_they_are_small() -> None:
    files = [path for model in MODELS for path in Path(ready_folder(model.location)).rglob("*")]
    assert sum(path.stat().st_size for path in files if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_each_is_float16_and_tells_its_origin_and_figures(model: ReadyModel) -> None:
    weights = load_file(ready_folder(model.location) / "weights.safetensors")
    assert {tensor.dtype for tensor in weights.values()} <= {torch.float16, torch.int64}
    assert model.about == read_about(FOLDER / f"{model.name}.json")
    assert model.about.figures


@pytest.mark.parametrize("recipe", sorted(FOLDER.glob("*.yaml")), ids=lambda recipe: recipe.stem)
def test_each_recipe_has_what_its_bundle_will_tell(recipe: Path) -> None:
    about = read_about(recipe.with_suffix(".json"))
    assert about.made_for == {"photo": "photographs", "document": "pages"}.get(recipe.stem)


def test_the_monitor_needs_no_training() -> None:
    settings = load(find_target("ecg").load().settings_class, target="ecg")
    assert isinstance(settings, EcgSettings)
    assert BeatModel.from_bundle(load_bundle(settings.bundle))
