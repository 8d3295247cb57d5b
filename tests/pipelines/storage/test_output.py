from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genray.errors import RunError
from pipelines.storage.output import HEADER, Output, PassRecord, RunHeader, read_header

SETTINGS = {"input": "/in", "corrupt.seed": 0, "work.workers": None, "retry": "none", "read.max_bytes": 10}
RUN = RunHeader("corrupt", SETTINGS, {"bundle": "aa"})


@pytest.fixture
def begun(output: Output) -> Output:
    output.write_header(RUN)
    return output


def test_an_output_is_made_with_nothing_in_it(tmp_path: Path) -> None:
    output = Output.create(str(tmp_path / "a" / "b"))
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert output.read_header() is None
    output.check_same_run("corrupt", SETTINGS, {}, {})


def test_a_header_is_read_as_it_was_written(output: Output) -> None:
    prepared = {"notes": ["ü\n📷"], "table": [1, 2.5, None]}
    passes = [PassRecord(1, "2025-03-01", died=0, ended="2025-03-02", failed=0), PassRecord(2, left=7)]
    header = replace(RUN, prepared=prepared, again={"corrupt.seed": 0}, passes=passes)
    output.write_header(header)
    assert output.read_header() == read_header(output.store) == header


def test_a_header_is_json_with_what_is_known_of_each_pass(output: Output) -> None:
    passes = [PassRecord(1, "then", 0, 9, 7, "later", 2, 1.5, 0.5, 0.1), PassRecord(2, "now", 1)]
    output.write_header(replace(RUN, passes=passes))
    assert json.loads(output.store.read(HEADER)) == {
        "format": 1,
        "target": "corrupt",
        "settings": SETTINGS,
        "identity": {"bundle": "aa"},
        "prepared": None,
        "again": None,
        "passes": [
            {
                "number": 1,
                "started": "then",
                "died": 0,
                "listed": 9,
                "left": 7,
                "ended": "later",
                "failed": 2,
                "images_per_second": 1.5,
                "mb_per_second": 0.5,
                "start_seconds": 0.1,
            },
            {"number": 2, "started": "now", "died": 1},
        ],
    }


def test_a_header_never_holds_what_is_not_json(begun: Output) -> None:
    with pytest.raises(ValueError, match="JSON"):
        begun.write_header(replace(RUN, prepared={"loss": float("nan")}))
    assert begun.read_header() == RUN, "the one of before is whole"


@pytest.mark.parametrize("text", ["", '{"format": 1, "targ', "\x00\x01", "nothing"])
def test_a_damaged_header_is_said_with_what_to_do(begun: Output, text: str) -> None:
    begun.store.write(HEADER, text.encode())
    with pytest.raises(RunError, match="the header of the run is damaged") as caught:
        begun.read_header()
    assert "_genray/run.json" in str(caught.value)
    assert "delete the file" in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"format": 2}', '{"format": "1"}'])
def test_a_header_of_another_format_is_refused(begun: Output, text: str) -> None:
    begun.store.write(HEADER, text.encode())
    with pytest.raises(RunError, match="this version of genray cannot read"):
        begun.check_same_run("corrupt", SETTINGS, {"bundle": "aa"}, {})


def test_the_same_run_is_gone_on_with(begun: Output) -> None:
    begun.check_same_run("corrupt", SETTINGS, {"bundle": "aa"}, {})
    assert begun.read_header() == RUN


def test_settings_that_change_no_result_may_differ(begun: Output) -> None:
    more = {"work.workers": 8, "retry": "failed", "read.max_bytes": 20, "report.samples": 1, "output": "/o"}
    begun.check_same_run("corrupt", {**SETTINGS, **more}, {"bundle": "aa"}, {})


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"corrupt.seed": 4}, "corrupt.seed: 0 -> 4"),
        ({"input": "/other"}, "input: /in -> /other"),
        ({"write.format": "png"}, "write.format: not set -> png"),
    ],
)
def test_each_difference_is_named(begun: Output, change: dict[str, Any], difference: str) -> None:
    with pytest.raises(RunError) as caught:
        begun.check_same_run("corrupt", {**SETTINGS, **change}, {"bundle": "aa"}, {})
    assert difference in caught.value.what
    assert caught.value.what.count(" -> ") == 1
    assert "--retry all" in str(caught.value)


def test_a_setting_that_is_newer_than_the_run_had_its_default(begun: Output) -> None:
    identity = {"bundle": "aa"}
    newer = {**SETTINGS, "read.damaged": "salvage"}
    begun.check_same_run("corrupt", newer, identity, {"read.damaged": "salvage"})
    with pytest.raises(RunError, match=r"read\.damaged: refuse -> salvage"):
        begun.check_same_run("corrupt", newer, identity, {"read.damaged": "refuse"})


def test_a_setting_that_is_gone_is_a_difference(begun: Output) -> None:
    less = {key: value for key, value in SETTINGS.items() if key != "corrupt.seed"}
    with pytest.raises(RunError, match=r"corrupt\.seed: 0 -> not set"):
        begun.check_same_run("corrupt", less, {"bundle": "aa"}, {})


def test_another_bundle_and_another_target_are_differences(begun: Output) -> None:
    with pytest.raises(RunError, match="another bundle: aa -> bb"):
        begun.check_same_run("corrupt", SETTINGS, {"bundle": "bb"}, {})
    with pytest.raises(RunError, match="made by corrupt, not denoise") as caught:
        begun.check_same_run("denoise", {}, {}, {})
    assert " -> " not in str(caught.value), "its settings say nothing then"
