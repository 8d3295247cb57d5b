"""The shape of the project: who may import whom, and that names lead to things."""

import ast
from pathlib import Path

import pytest
import yaml

from cluster.targets import all_targets

ROOT = Path(__file__).parent.parent
PACKAGES = ("genray", "cluster", "configs", "jobs", "pipelines", "monitors")
# The command joins them all.
_COMMANDS = ("jobs_commands", "bulk_commands", "monitor_commands", "evaluate_commands", "alarms_commands")
JOINERS = {f"genray/{name}.py" for name in (*_COMMANDS, "cli", "submitting")}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """The top-level names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    for file in modules(package):
        if str(file.relative_to(ROOT)) not in JOINERS:
            above = imported(file) & set(PACKAGES) - {package, "genray"}
            assert not above, f"{file.relative_to(ROOT)} imports {above}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_come_from_this_checkout(package: str) -> None:
    module = __import__(package)
    assert module.__file__ is not None
    assert Path(module.__file__).parent == ROOT / package


@pytest.mark.parametrize("target", all_targets(), ids=lambda t: t.name)
def test_a_target_has_one_name_everywhere(target: object) -> None:
    name = getattr(target, "name", "")
    stem = name.replace("-", "_")
    assert (ROOT / "configs" / f"{name}.yaml").exists()
    (module,) = [f for package in PACKAGES for f in modules(package) if f.stem == stem]
    assert (ROOT / "tests" / module.parent.name / f"test_{stem}.py").exists()
    assert getattr(target, "summary", ""), "the first line of its YAML says what it does"


def test_a_targets_yaml_holds_its_defaults_and_nothing_else() -> None:
    from configs.loading import load
    from genray.settings import flatten

    for target in all_targets():
        cls = target.load().settings_class
        shown = flatten(yaml.safe_load((ROOT / "configs" / f"{target.name}.yaml").read_text()))
        defaults = flatten(load(cls, target=target.name))
        assert shown.items() <= defaults.items()


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    for package in PACKAGES:
        for file in modules(package):
            assert len(file.read_text().splitlines()) <= 300, file.relative_to(ROOT)


def test_every_module_has_its_tests() -> None:
    tests = {f.stem.removeprefix("test_") for f in (ROOT / "tests").rglob("test_*.py")}
    # Tested through the command, the loop or the reader that they are parts of.
    parts = "terminal submitting jobs_commands targets recipe loop_settings group device state evaluation "
    parts += "fronts_canvas fronts_parts pairing layers registry resources auth "
    parts += "image_recipe autoencoding restoring __init__ __main__ photo_formats tiff_tags bulk_commands "
    parts += "bulk_pass packed summary writing parquet_rows assignment bundle_step coding known pool record "
    parts += "restoration sample step options monitor_cli monitor_commands evaluate_commands vino "
    parts += "evaluate_table playback totals alert chunk csv_record edf database heartbeat leads "
    parts += "metrics_server metrics_text observation pace preprocessing record_beats source wfdb_writer"
    missing = {f.stem for p in PACKAGES for f in modules(p)} - tests - set(parts.split())
    assert not missing
