"""The shape of the project: names lead to things."""

from pathlib import Path

import pytest
import yaml

from genray.settings.base import flatten
from genray.settings.load import load
from genray.targets import Target, all_targets

ROOT = Path(__file__).parents[1]
PACKAGES = ("genray", "cluster", "configs", "jobs", "pipelines", "monitors")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_come_from_this_checkout(package: str) -> None:
    module = __import__(package)
    assert module.__file__ is not None
    assert Path(module.__file__).parent == ROOT / package


@pytest.mark.parametrize("target", all_targets(), ids=lambda t: t.name)
def test_a_target_has_one_name_everywhere(target: Target) -> None:
    stem = target.name.replace("-", "_")
    assert (ROOT / "configs" / f"{target.name}.yaml").exists()
    (module,) = [file for package in PACKAGES for file in (ROOT / package).glob(f"{stem}.py")]
    assert (ROOT / "tests" / module.parent.name / f"test_{stem}.py").exists()
    assert target.summary, "the first line of its YAML says what it does"


def test_a_targets_yaml_holds_its_defaults_and_nothing_else() -> None:
    for target in all_targets():
        shown = flatten(yaml.safe_load((ROOT / "configs" / f"{target.name}.yaml").read_text()))
        defaults = flatten(load(target.load().settings_class, target=target.name))
        assert shown.items() <= defaults.items()
