"""genray as somebody has it who installed it: a wheel, and no checkout anywhere near."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.submit import PACKAGES
from tests.conftest import write_images

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was installed into."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels, source]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = wheels.glob("genray-*.whl")
    site = tmp_path_factory.mktemp("site")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True, timeout=120
    )
    return site


def genray(installed: Path, folder: Path, *words: str, module: bool = False) -> str:
    """What the installed command prints, started in `folder`."""
    command = (
        [sys.executable, "-m", "genray"] if module else [sys.executable, str(installed / "bin" / "genray")]
    )
    done = subprocess.run(
        [*command, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_all_that_it_ships(installed: Path) -> None:
    """Files that are not Python are easily left out of a wheel, and missed late."""
    shipped = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not [name for name in sorted(shipped) if not (installed / name).exists()]


def test_it_lists_the_targets(installed: Path, tmp_path: Path) -> None:
    assert "train-pix2pix        Train pix2pix on image pairs" in genray(installed, tmp_path, "targets")


@pytest.mark.parametrize("module", [False, True], ids=["script", "python -m"])
def test_a_folder_called_configs_beside_the_user_is_not_taken_for_ours(
    installed: Path, tmp_path: Path, module: bool
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "t.yaml").write_text("# somebody else's\n")
    names = [line.split()[0] for line in genray(installed, tmp_path, "targets", module=module).splitlines()]
    assert "denoise" in names
    assert "t" not in names


def test_it_works_on_images(installed: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)
    words = ("submit", "corrupt", "--set", "input=in", "--set", "output=out", "--json")
    outcome = json.loads(genray(installed, tmp_path, *words))
    assert (outcome["done"], outcome["failed"]) == (3, 0)
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_its_monitor_watches_the_demos_patients(installed: Path, tmp_path: Path) -> None:
    ports = ("--metrics-port", "0", "--page-port", "0")
    outcome = json.loads(
        genray(installed, tmp_path, "monitor", "ecg", "--demo", "--seconds", "20", *ports, "--json")
    )
    assert outcome["streams"] > 0
    assert outcome["beats"] > 0
