import json
from importlib import metadata
from importlib.metadata import version

import pytest
from click.testing import CliRunner

import genray
from genray.cli.main import main

NAMES = (
    *("genray", "python", "ray", "torch", "torchvision", "numpy", "pyarrow"),
    *("platform", "cpus", "gpus"),
)


def test_versions_are_one_json_line() -> None:
    result = CliRunner().invoke(main, ["version", "--json"], catch_exceptions=False)
    facts = json.loads(result.output)
    assert tuple(facts) == NAMES
    assert facts["genray"] == genray.__version__
    assert facts["numpy"] == version("numpy")
    assert facts["cpus"] > 0
    assert isinstance(facts["gpus"], list)


def test_versions_are_lines_for_a_person() -> None:
    output = CliRunner().invoke(main, ["version"], catch_exceptions=False).output
    assert [line.split()[0] for line in output.splitlines()] == list(NAMES)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("genray.cli.version.version", missing)
    assert "not installed" in CliRunner().invoke(main, ["version"], catch_exceptions=False).output
    facts = json.loads(CliRunner().invoke(main, ["version", "--json"], catch_exceptions=False).output)
    assert facts["torchvision"] is None
