from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genray.cli import main
from genray.data.store import Store
from genray.errors import BulkError, DataError, RunError
from pipelines.output import HEADER, Output, check_apart, read_header
from tests.pipelines.conftest import Bulk, write_photos
from tests.pipelines.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {"input": "/in", "corrupt.seed": 0, "work.workers": None, "retry": "none", "read.max_bytes": 10}
RUN = {"target": "corrupt", "settings": SETTINGS, "identity": {"bundle": "aa"}, "prepared": None}
HELD = "another run is writing to this output"


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"))


@pytest.fixture
def begun(output: Output) -> Output:
    output.write_header(RUN)
    return output


def lease(root: str, holder: str, seconds: float) -> None:
    text = json.dumps({"holder": holder, "until": time.time() + seconds})
    Store(root).write("_genray/lease.json", text.encode())


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes a lease waits less before it is sure of it."""
    monkeypatch.setattr("pipelines.output._SETTLE_S", 0.1)


@pytest.fixture(params=["memory", "s3"])
def remote(soon: None, request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("s3_root"))


def test_an_output_is_made_with_nothing_in_it(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "a" / "b"))
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert output.header() == {}
    assert output.check("corrupt", SETTINGS, {}) == {}


def test_a_header_is_read_as_it_was_written(output: Output) -> None:
    header = {**RUN, "prepared": {"notes": ["ü\n📷"], "table": [1, 2.5, None]}, "passes": [{"number": 1}]}
    output.write_header(header)
    assert output.header() == read_header(output.store) == {"format": 1, **header}


def test_a_header_never_holds_what_is_not_json(begun: Output) -> None:
    with pytest.raises(ValueError, match="JSON"):
        begun.write_header({**RUN, "prepared": {"loss": float("nan")}})
    assert begun.header()["prepared"] is None, "the one of before is whole"


@pytest.mark.parametrize("text", ["", '{"format": 1, "targ', "\x00\x01", "nothing"])
def test_a_damaged_header_is_said_with_what_to_do(begun: Output, text: str) -> None:
    begun.store.write(HEADER, text.encode())
    with pytest.raises(RunError, match="header is damaged") as caught:
        begun.header()
    assert "_genray/run.json" in str(caught.value)
    assert "delete it" in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"format": 2}', '{"format": "1"}'])
def test_a_header_of_another_format_is_refused(begun: Output, text: str) -> None:
    begun.store.write(HEADER, text.encode())
    with pytest.raises(RunError, match="not one that this genray reads"):
        begun.check("corrupt", SETTINGS, {"bundle": "aa"})


def test_the_same_run_is_gone_on_with(begun: Output) -> None:
    assert begun.check("corrupt", SETTINGS, {"bundle": "aa"}) == {"format": 1, **RUN}


def test_settings_that_change_no_result_may_differ(begun: Output) -> None:
    more = {"work.workers": 8, "retry": "failed", "read.max_bytes": 20, "report.samples": 1, "output": "/o"}
    begun.check("corrupt", {**SETTINGS, **more}, {"bundle": "aa"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corrupt.seed": 4}, "corrupt.seed: 0 -> 4"),
        ({"input": "/other"}, "input: /in -> /other"),
        ({"write.format": "png"}, "write.format: not set -> png"),
    ],
)
def test_each_difference_is_named(begun: Output, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError) as caught:
        begun.check("corrupt", {**SETTINGS, **change}, {"bundle": "aa"})
    assert said in caught.value.what
    assert caught.value.what.count(" -> ") == 1
    assert "--retry all" in str(caught.value)


def test_a_setting_that_is_gone_is_a_difference(begun: Output) -> None:
    less = {key: value for key, value in SETTINGS.items() if key != "corrupt.seed"}
    with pytest.raises(RunError, match=r"corrupt\.seed: 0 -> not set"):
        begun.check("corrupt", less, {"bundle": "aa"})


def test_another_bundle_and_another_target_are_differences(begun: Output) -> None:
    with pytest.raises(RunError, match="another bundle: aa -> bb"):
        begun.check("corrupt", SETTINGS, {"bundle": "bb"})
    with pytest.raises(RunError, match="made by corrupt, not denoise") as caught:
        begun.check("denoise", {}, {})
    assert " -> " not in str(caught.value), "its settings say nothing then"


_HOLD = """
import sys, time
from pipelines.output import Output
with Output(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(output: Output) -> Any:
    """A process that holds the output."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, output.location], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_an_output_that_another_process_holds_is_refused_until_that_is_killed(
    output: Output, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunError, match=HELD), output.locked():
        pytest.fail("held twice")
    holder.kill()
    holder.wait(10)
    with output.locked():
        pass
    with output.locked():
        pass


def test_a_second_run_in_the_same_process_is_refused_too(output: Output) -> None:
    with output.locked(), pytest.raises(RunError, match=HELD), Output(output.location).locked():
        pytest.fail("held twice")


def test_a_remote_output_is_held_until_the_end(remote: str) -> None:
    output = Output(remote)
    with output.locked():
        with pytest.raises(RunError, match=HELD), Output(remote).locked():
            pytest.fail("held twice")
        assert output.store.exists("_genray/lease.json")
    assert not output.store.exists("_genray/lease.json")
    with Output(remote).locked():
        pass


def test_a_lease_is_waited_for_only_until_it_expires(remote: str) -> None:
    lease(remote, "other", 30)
    with pytest.raises(RunError, match="one that died lets go within 60 s"), Output(remote).locked():
        pytest.fail("held twice")
    assert Store(remote).exists("_genray/lease.json"), "it is the other's"
    lease(remote, "other", -1)
    with Output(remote).locked():
        held = json.loads(Store(remote).read("_genray/lease.json"))
        assert held["holder"] != "other"
        assert 50 < held["until"] - time.time() <= 60


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"holder": "a"}', '{"until": "soon", "holder": 1}'])
def test_a_damaged_lease_holds_nobody_off(soon: None, text: str) -> None:
    remote = f"memory://{uuid.uuid4().hex}"
    Store(remote).write("_genray/lease.json", text.encode())
    with Output(remote).locked():
        assert "holder" in json.loads(Store(remote).read("_genray/lease.json"))
    assert not Store(remote).exists("_genray/lease.json")


def test_a_lease_is_let_go_of_when_the_run_fails(remote: str) -> None:
    with pytest.raises(ZeroDivisionError), Output(remote).locked():
        raise ZeroDivisionError
    assert not Store(remote).exists("_genray/lease.json")


@pytest.fixture
def short(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease expires after a second."""
    monkeypatch.setattr("pipelines.output._LEASE_S", 1.0)


def test_a_lease_is_renewed_while_the_run_lasts(short: None) -> None:
    remote = f"memory://{uuid.uuid4().hex}"
    with Output(remote).locked():
        time.sleep(1.3)
        with pytest.raises(RunError, match=HELD), Output(remote).locked():
            pytest.fail("held twice")


def test_of_two_that_take_a_lease_at_once_the_one_that_wrote_last_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.output._SETTLE_S", 0.5)
    remote = f"memory://{uuid.uuid4().hex}"
    other = threading.Timer(0.2, lease, (remote, "other", 30))
    other.start()
    with pytest.raises(RunError, match=HELD), Output(remote).locked():
        pytest.fail("held twice")
    other.join()
    assert json.loads(Store(remote).read("_genray/lease.json"))["holder"] == "other"


def test_who_lost_a_lease_knows_and_does_not_take_it_from_its_new_holder(short: None) -> None:
    remote = f"memory://{uuid.uuid4().hex}"
    output = Output(remote)
    with output.locked():
        lease(remote, "other", 30)  # as after a pause that was longer than the lease
        time.sleep(0.5)
        assert output.lost
        assert json.loads(Store(remote).read("_genray/lease.json"))["holder"] == "other"
    assert Store(remote).exists("_genray/lease.json")


def test_a_run_that_lost_its_lease_ends_and_leaves_the_output_to_the_other(
    short: None, bulk: Bulk, tmp_path: Path
) -> None:
    remote, photos = f"memory://{uuid.uuid4().hex}", tmp_path / "in"
    write_photos(photos, 1, size=(200, 300))
    for index in range(400):
        os.link(photos / "0" / "0000.jpg", photos / f"{index}.jpg")

    def take() -> None:
        while not any(Store(remote).list([".jpg"])):
            time.sleep(0.01)
        lease(remote, "other", 30)

    thread = threading.Thread(target=take)
    thread.start()
    sets = (f"input={photos}", f"output={remote}", "write.format=same", "work.commit_seconds=0.2")
    with pytest.raises(BulkError, match="another run took this output over"):
        bulk("corrupt", *sets)
    thread.join()
    assert json.loads(Store(remote).read("_genray/lease.json"))["holder"] == "other"
    assert 0 < Output(remote).ledger.summary().total < 401


def submit(*sets: str) -> Result:
    """`genray submit corrupt`, in this process without Ray."""
    words = [word for text in (*sets, "work.workers=0", "work.gpu=false") for word in ("--set", text)]
    return CliRunner().invoke(main, ["submit", "corrupt", *words], catch_exceptions=False)


@pytest.mark.parametrize(
    ("output", "how"),
    [
        ("in", "is the input"),
        ("link", "is the input"),
        ("in/out", "inside of one another"),
        ("x/../in/out", "inside of one another"),
        ("link/out", "inside of one another"),
        ("", "inside of one another"),
    ],
)
def test_an_output_that_is_not_apart_from_the_input_is_refused_however_it_is_spelled(
    bulk: Bulk, tmp_path: Path, output: str, how: str
) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    write_photos(photos / "in", 2)
    (tmp_path / "link").symlink_to(photos)
    before = {file: file.read_bytes() for file in photos.rglob("*.*")}
    for more in ("retry=none", "retry=all", "overwrite=true"):
        with pytest.raises(DataError, match=how):
            bulk("corrupt", f"input={photos}", f"output={tmp_path}/{output}", more)
    assert {file: file.read_bytes() for file in photos.rglob("*.*")} == before
    assert {file.name for file in tmp_path.iterdir()} == {"in", "link"}


@pytest.mark.parametrize("folder", ["in/out", "."])
def test_an_output_in_s3_that_is_not_apart_from_the_input_is_refused(
    bulk: Bulk, s3_root: str, folder: str
) -> None:
    root, _, query = s3_root.partition("?")
    Store(f"{root}/in?{query}").write("a.png", b"1")
    with pytest.raises(DataError, match="inside of one another"):
        bulk("corrupt", f"input={root}/in?{query}", f"output={root}/{folder}?{query}")


@pytest.mark.parametrize(
    ("source", "output"),
    [("/a/in", "/a/in2"), ("/a/in/x", "/a/in/y"), ("s3://b/in", "s3://b/in2"), ("s3://b/in", "/b/in")],
)
def test_places_of_their_own_are_apart(source: str, output: str) -> None:
    check_apart(source, output)
    check_apart(output, source)


def test_a_folder_with_files_of_others_is_used_only_if_that_is_asked_for(bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 4)
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "mine.txt").write_text("mine")
    for retry in ("none", "failed", "all"):
        with pytest.raises(RunError, match="no run of genray began it") as caught:
            bulk("corrupt", f"input={photos}", f"retry={retry}")
        assert "overwrite=true" in str(caught.value)
    assert [file.name for file in out.rglob("*")] == ["deep", "mine.txt"]
    assert bulk("corrupt", f"input={photos}", "overwrite=true")["done"] == 4
    assert (out / "deep" / "mine.txt").read_text() == "mine"
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0, "it is a run's output now"


def test_what_a_first_run_left_that_died_before_its_header_is_in_nobodys_way(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    with Output(str(tmp_path / "out")).locked():
        pass
    assert list((tmp_path / "out").rglob("*"))
    assert bulk("corrupt", f"input={photos}")["done"] == 2


def test_an_output_that_cannot_be_made_is_said_before_anything_starts(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    (tmp_path / "file").write_text("not a folder")
    for output in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/out")):
        result = submit(f"input={photos}", f"output={output}")
        assert result.exit_code == 2, result.stderr
        assert str(output) in result.stderr
        assert "next:" in result.stderr
        assert "Traceback" not in result.stderr
    assert (tmp_path / "file").read_text() == "not a folder"


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 2)
    if os.geteuid() == 0:
        locked = Path("/proc/self/fd")  # to root too
    else:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
    result = submit(f"input={photos}", f"output={locked}", "overwrite=true")
    assert result.exit_code in (1, 2)
    assert str(locked) in result.stderr
    assert "permissions" in result.stderr
    assert "Traceback" not in result.stderr
