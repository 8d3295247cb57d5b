"""The shape of the project: who may import whom, and that names lead to things."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from genray.settings.base import flatten
from genray.settings.load import load
from genray.targets import Target, all_targets

ROOT = Path(__file__).parents[1]
PACKAGES = ("genray", "cluster", "configs", "jobs", "pipelines", "monitors")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
MOST_SIDE_BY_SIDE = 16  # modules of one folder


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, anywhere in it: in functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in MODULES:
                    yield name
                elif node.module in MODULES:
                    yield node.module


IMPORTS = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def is_command(name: str) -> bool:
    """The command joins all packages."""
    return name == "genray.__main__" or name.startswith("genray.cli")


def room(name: str) -> str:
    """The folder that a module lies in; a file beside rooms, at the top of its package, stands for itself."""
    parts = MODULES[name].relative_to(ROOT).parts
    return "/".join(parts[:-1]) if len(parts) > 2 else "/".join(parts)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of the graph, if it has any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_packages_import_themselves_and_genray_and_nothing_else() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if not is_command(name)
        and (other.split(".")[0] not in {name.split(".")[0], "genray"} or is_command(other))
    ]
    assert not wrong


def test_rooms_use_of_their_package_only_its_settings_and_other_rooms() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if name.split(".")[0] in ("jobs", "pipelines", "monitors")
        and room(name) != room(other)
        and not room(name).endswith(".py")
        and room(other).endswith(".py")
        and other.split(".")[0] == name.split(".")[0]
        and not other.endswith(".settings")
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circle(IMPORTS)


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        if not is_command(name):
            rooms.setdefault(room(name), set()).update(room(other) for other in others)
    assert not circle({name: others - {name} for name, others in rooms.items()})


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(folder): count for folder, count in counts.items() if count > MOST_SIDE_BY_SIDE}


def test_no_test_imports_another() -> None:
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and ".test_" in f".{node.module}":
                wrong.append(f"{path.relative_to(ROOT)} imports {node.module}")
    assert not wrong


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
