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

from genray.errors import BulkError, RunError
from genray.io.store import open_store
from pipelines.storage.output import Output
from tests.pipelines.conftest import Bulk, write_photos

ROOT = Path(__file__).parents[3]
HELD = "another run is writing to this output"


def lease(root: str, holder: str, seconds: float) -> None:
    text = json.dumps({"holder": holder, "until": time.time() + seconds})
    open_store(root).write("_genray/lease.json", text.encode())


def remote_output(root: str) -> Output:
    """An output whose lease is sure after a moment."""
    return Output.create(root, settle_seconds=0.1)


def short_lease(root: str) -> Output:
    """An output whose lease expires after a second."""
    return Output.create(root, settle_seconds=0.1, lease_seconds=1.0)


def new_root() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return new_root()
    return str(request.getfixturevalue("s3_root"))


_HOLD = """
import sys, time
from pipelines.storage.output import Output
with Output.create(sys.argv[1]).locked():
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
    with output.locked(), pytest.raises(RunError, match=HELD), Output.create(output.location).locked():
        pytest.fail("held twice")


def test_a_remote_output_is_held_until_the_end(remote: str) -> None:
    output = remote_output(remote)
    with output.locked():
        with pytest.raises(RunError, match=HELD), remote_output(remote).locked():
            pytest.fail("held twice")
        assert output.store.exists("_genray/lease.json")
    assert not output.store.exists("_genray/lease.json")
    with remote_output(remote).locked():
        pass


def test_a_lease_is_waited_for_only_until_it_expires(remote: str) -> None:
    lease(remote, "other", 30)
    with (
        pytest.raises(RunError, match="the lock of a killed run expires within 60 s"),
        remote_output(remote).locked(),
    ):
        pytest.fail("held twice")
    assert open_store(remote).exists("_genray/lease.json"), "it is the other's"
    lease(remote, "other", -1)
    with remote_output(remote).locked():
        held = json.loads(open_store(remote).read("_genray/lease.json"))
        assert held["holder"] != "other"
        assert 50 < held["until"] - time.time() <= 60


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"holder": "a"}', '{"until": "soon", "holder": 1}'])
def test_a_damaged_lease_holds_nobody_off(text: str) -> None:
    remote = new_root()
    open_store(remote).write("_genray/lease.json", text.encode())
    with remote_output(remote).locked():
        assert "holder" in json.loads(open_store(remote).read("_genray/lease.json"))
    assert not open_store(remote).exists("_genray/lease.json")


def test_a_lease_is_let_go_of_when_the_run_fails(remote: str) -> None:
    with pytest.raises(ZeroDivisionError), remote_output(remote).locked():
        raise ZeroDivisionError
    assert not open_store(remote).exists("_genray/lease.json")


def test_a_lease_is_renewed_while_the_run_lasts() -> None:
    remote = new_root()
    with short_lease(remote).locked():
        time.sleep(1.3)
        with pytest.raises(RunError, match=HELD), short_lease(remote).locked():
            pytest.fail("held twice")


def test_of_two_that_take_a_lease_at_once_the_one_that_wrote_last_has_it() -> None:
    remote = new_root()
    output = Output.create(remote, settle_seconds=0.5)
    other = threading.Timer(0.2, lease, (remote, "other", 30))
    other.start()
    with pytest.raises(RunError, match=HELD), output.locked():
        pytest.fail("held twice")
    other.join()
    assert json.loads(open_store(remote).read("_genray/lease.json"))["holder"] == "other"


def test_who_lost_a_lease_knows_and_does_not_take_it_from_its_new_holder() -> None:
    remote = new_root()
    output = short_lease(remote)
    with output.locked():
        lease(remote, "other", 30)  # as after a pause that was longer than the lease
        time.sleep(0.5)
        assert output.lost
        assert json.loads(open_store(remote).read("_genray/lease.json"))["holder"] == "other"
    assert open_store(remote).exists("_genray/lease.json")


def test_a_run_that_lost_its_lease_ends_and_leaves_the_output_to_the_other(
    bulk: Bulk, tmp_path: Path
) -> None:
    remote = new_root()
    photos = tmp_path / "in"
    write_photos(photos, 1, size=(200, 300))
    for index in range(400):
        os.link(photos / "0" / "0000.jpg", photos / f"{index}.jpg")

    def take_over() -> None:
        while not any(open_store(remote).list([".jpg"])):
            time.sleep(0.01)
        lease(remote, "other", 30)

    thread = threading.Thread(target=take_over)
    thread.start()
    sets = (f"input={photos}", f"output={remote}", "write.format=same", "work.commit_seconds=0.2")
    with pytest.raises(BulkError, match="another run has taken over this output"):
        bulk("corrupt", *sets, output=short_lease(remote))
    thread.join()
    assert json.loads(open_store(remote).read("_genray/lease.json"))["holder"] == "other"
    assert 0 < Output.create(remote).ledger.summary().total < 401
