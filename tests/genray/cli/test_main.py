import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from genray.cli.main import main
from tests.conftest import write_pair_files

Tiny = Callable[..., list[str]]


def genray(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def submit(sets: list[str], *more: str) -> Result:
    return genray("submit", "train-pix2pix", *more, *(word for text in sets for word in ("--set", text)))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom genray.cli.main import main\n"
        "assert CliRunner().invoke(main, ['submit', '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'ray', 'numpy', 'pydantic', 'yaml', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bulk_run_starts_without_what_only_other_targets_use() -> None:
    code = (
        "import sys\nimport pipelines.denoise, pipelines.engine.target\n"
        "heavy = ('ray', 'openvino', 'pandas', 'scipy.signal', 'scipy.stats', 'torchmetrics', 'triton')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("submit",),
        ("targets",),
        ("config",),
        ("fronts",),
        ("bundle", "show"),
        ("jobs", "list"),
        ("jobs", "logs"),
    ],
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = genray(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_targets_are_listed_with_what_they_do() -> None:
    assert "train-pix2pix        Train pix2pix on image pairs" in genray("targets").output


def test_config_shows_the_effective_settings() -> None:
    output = genray("config", "train-pix2pix", "--set", "loop.epochs=7").output
    assert yaml.safe_load(output)["loop"]["epochs"] == 7
    schema = json.loads(genray("config", "train-pix2pix", "--schema").output)
    assert schema["properties"]["seed"]["description"]


def test_submit_trains_and_ends_standard_output_with_one_json_line(tiny: Tiny, tmp_path: Path) -> None:
    result = submit(tiny("loop.epochs=1"), "--name", "a", "--json")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    outcome = json.loads(line)
    assert outcome["target"] == "train-pix2pix"
    assert {"run", "bundle", "metrics", "seconds"} <= set(outcome)
    assert outcome["metrics"]["baselines"]["mean_image"]["l1"] > 0
    assert str(tmp_path / "runs" / "a" / "loss_curves.png") in result.stderr
    shown = genray("bundle", "show", outcome["bundle"])
    assert "pix2pix" in shown.output
    assert json.loads(genray("bundle", "show", outcome["bundle"], "--json").output)["seed"] == 0


def test_dry_run_checks_and_starts_nothing(tiny: Tiny, tmp_path: Path) -> None:
    result = submit(tiny(), "--dry-run")
    assert result.exit_code == 0
    assert "12 training pairs, 4 held out" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["data.path=nowhere"], "nowhere is missing"),
        (["loop.epoch=3"], "did you mean loop.epochs?"),
        (["loop.workers=5", "loop.cpus_per_worker=1000"], "loop.workers"),
        (["loop.workers=2", "device.gpu=true"], "GPU"),
        (["data.size=128", "data.resize=0"], "smaller than the crop of 128 pixels"),
        (["loop.accumulate=64"], "one step takes"),
        (["discriminator.layers=5"], "is too many for images of 64 pixels"),
        (["runs=memory://bucket/runs"], "is the memory of one process"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_said_before_anything_starts(
    tiny: Tiny, tmp_path: Path, sets: list[str], said: str
) -> None:
    result = submit(tiny(*sets))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_wrong_usage_exits_with_2(tiny: Tiny, tmp_path: Path) -> None:
    assert genray("submit").exit_code == 2
    unknown = genray("submit", "train-pix2pixel")
    assert unknown.exit_code == 2
    assert "did you mean train-pix2pix?" in unknown.stderr
    detached = submit(tiny(), "--detach")
    assert detached.exit_code == 2
    assert "--detach needs --address" in detached.stderr
    missing = genray("bundle", "show", str(tmp_path / "nowhere"))
    assert missing.exit_code == 2
    assert "there is no such folder" in missing.stderr


def test_a_failure_exits_with_1_and_no_traceback(tiny: Tiny) -> None:
    result = submit(tiny("loop.loss_limit=0.01"), "--name", "a")
    assert result.exit_code == 1
    assert "too large at step 1" in result.stderr


def test_fronts_can_be_made_and_trained_on(tmp_path: Path) -> None:
    assert genray("fronts", str(tmp_path / "fronts"), "--count", "12", "--size", "64").exit_code == 0
    sets = [f"data.path={tmp_path / 'fronts'}", f"runs={tmp_path}", "data.size=64", "loop.epochs=1"]
    result = submit([*sets, "generator.filters=4", "discriminator.filters=4", "device.gpu=false"], "--json")
    assert result.exit_code == 0, result.stderr


def test_a_store_behind_a_uri_is_trained_on(tiny: Tiny, pairs: Path) -> None:
    result = submit(tiny(f"data.path={pairs.as_uri()}", "loop.epochs=1"), "--json")
    assert result.exit_code == 0, result.stderr


def test_an_error_is_a_json_line_too(tiny: Tiny) -> None:
    result = submit(tiny("data.path=nowhere"), "--json")
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["exit_code"] == result.exit_code == 2
    assert "nowhere is missing" in json.loads(line)["error"]["what"]


def test_a_store_with_odd_names_is_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "ödd [1] # store"
    write_pair_files(root / "train", 4)
    write_pair_files(root / "val", 2, seed=1)
    (root / "train" / "000.png").rename(root / "train" / "a b\nc.png")
    assert submit(tiny(f'data.path="{root}"', "loop.epochs=1"), "--json").exit_code == 0
