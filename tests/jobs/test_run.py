from pathlib import Path

import pytest

from genray.data.paired import BadPair
from genray.errors import RunError
from jobs.run import Run


def test_a_run_without_a_name_is_named_by_target_and_time(tmp_path: Path) -> None:
    assert Run.named(str(tmp_path), None, "train-pix2pix").name.startswith("train-pix2pix-20")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "x" * 101, "a b"])
def test_a_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(RunError, match="cannot be called"):
            Run.named(str(tmp_path), name, "t")
    else:
        assert Run.named(str(tmp_path), name, "t").name.startswith("t-")


def test_two_processes_cannot_hold_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with (
        run.locked(),
        pytest.raises(RunError, match="in use by another process"),
        Run(tmp_path / "a").locked(),
    ):
        pass
    with run.locked():
        assert True, "it is free again"


def test_a_run_belongs_to_its_settings(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with run.locked():
        assert run.adopt({"seed": 1, "loop.epochs": 5}, frozenset({"loop.epochs"})) == []
        assert run.adopt({"seed": 1, "loop.epochs": 9}, frozenset({"loop.epochs"})) == ["loop.epochs: 5 -> 9"]
        with pytest.raises(RunError, match="seed: 1 -> 2") as caught:
            run.adopt({"seed": 2, "loop.epochs": 9}, frozenset({"loop.epochs"}))
    assert "another --name" in str(caught.value)


def test_an_input_is_set_aside_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(2):
        run.add_set_aside(BadPair("a\nb.png", "empty", "0 bytes"))
    assert run.read_set_aside() == [{"path": "a\nb.png", "reason": "empty", "detail": "0 bytes"}]
