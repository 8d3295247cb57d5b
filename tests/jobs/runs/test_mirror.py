"""Working copies of runs in a store; two locations of one store stand for two processes."""

import json
import os
import uuid
from pathlib import Path

import pytest

from genray.errors import RunError, TrainingError
from genray.io.files import lock_file
from genray.io.store import Store, open_store
from jobs.runs import mirror as mirrors
from jobs.runs.mirror import RunMirror
from jobs.runs.run import Run


@pytest.fixture
def place() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


def write(mirror: RunMirror, path: str, text: str) -> Path:
    file = mirror.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def files(store: Store) -> dict[str, str]:
    return {entry.path: store.read(entry.path).decode() for entry in store.walk([""])}


def test_what_changed_here_is_uploaded_and_what_was_deleted_is_deleted(place: str) -> None:
    mirror = RunMirror(place)
    history = write(mirror, "history.jsonl", "1")
    write(mirror, "samples/a.png", "a")
    write(mirror, ".bundle.new/half", "not yet")
    write(mirror, "empty.log", "")
    mirror.publish()
    assert files(mirror.store) == {"history.jsonl": "1", "samples/a.png": "a", "empty.log": ""}
    mirror.store.write("samples/a.png", b"of another process")
    history.write_text("1\n2")
    (mirror.folder / "empty.log").unlink()
    mirror.publish()
    assert files(mirror.store) == {"history.jsonl": "1\n2", "samples/a.png": "of another process"}


def test_files_that_name_others_are_uploaded_after_them(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = RunMirror(place)
    for path in ("outcome.json", "bundle/bundle.json", "bundle/weights-1.safetensors", "report.html"):
        write(mirror, path, path)
    write(mirror, "checkpoints/last.safetensors", "last")
    order: list[str] = []
    monkeypatch.setattr(mirrors, "_upload", lambda store, path, file: order.append(path))
    mirror.publish()
    assert order == [
        "checkpoints/last.safetensors",
        "bundle/weights-1.safetensors",
        "report.html",
        "bundle/bundle.json",
        "outcome.json",
    ]


def test_another_process_gets_what_is_new_and_loses_what_is_gone(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_LARGEST_SMALL", 10)
    here, there = RunMirror(place), RunMirror(f"{place}/")
    assert here.folder != there.folder
    assert here.folder.name == there.folder.name == "run"
    write(here, "settings.yaml", "a: 1")
    write(here, "samples/large.png", "12345678901")
    write(here, "checkpoints/last.safetensors", "last")
    stop = write(here, "stop", "")
    here.publish()
    there.refresh()
    assert (there.folder / "settings.yaml").read_text() == "a: 1"
    assert (there.folder / "stop").exists()
    assert not (there.folder / "samples" / "large.png").exists(), "of an implausible size"
    last = there.folder / "checkpoints" / "last.safetensors"
    assert not last.exists(), "only who needs a checkpoint gets it"
    there.fetch(last)
    assert last.read_text() == "last"
    here.remove(stop)
    write(here, "settings.yaml", "a: 23")
    here.publish()
    there.refresh()
    assert not (there.folder / "stop").exists()
    assert (there.folder / "settings.yaml").read_text() == "a: 23"
    there.publish()
    assert files(here.store)["settings.yaml"] == "a: 23", "what was only read is not written again"


def test_a_store_that_does_not_take_a_file_is_tried_again_and_named(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PAUSES_S", (0.0,))
    mirror = RunMirror(s3_root.replace("s3://bucket", "s3://no-such-bucket"))
    write(mirror, "history.jsonl", "1")
    with pytest.raises(TrainingError, match=r"does not let genray write history\.jsonl") as caught:
        mirror.publish()
    assert "resumes from it" in str(caught.value.hint)
    assert (mirror.folder / "history.jsonl").exists()


def test_one_process_at_a_time_has_a_run_of_a_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = Run.at(place), Run.at(f"{place}/")
    with run.locked():
        held = json.loads(open_store(place).read(".lease.json"))
        notes: list[str] = []
        open_store(place).write(".lease.json", json.dumps({**held, "until": held["until"] + 1}).encode())
        monkeypatch.setattr("genray.io.lease._POLL_S", 0.01)
        renewed = json.dumps({**held, "until": held["until"] + 2}).encode()

        def note(text: str) -> None:
            notes.append(text)
            open_store(place).write(".lease.json", renewed)  # as its holder does every few seconds

        with pytest.raises(RunError, match="in use by another process"), other.locked(note):
            pytest.fail("held twice")
        assert "for the lock of another process, which may have been killed" in notes[0]
    with other.locked():
        pass


def test_a_bucket_that_is_missing_is_an_error_before_the_training(s3_root: str) -> None:
    run = Run.named(s3_root.replace("s3://bucket", "s3://no-such-bucket"), "a", "train-pix2pix")
    run.refresh()
    with pytest.raises(RunError, match="cannot be locked in its store"), run.locked():
        pytest.fail("it was locked")


def test_a_stop_that_another_process_requests_is_seen(place: str) -> None:
    run, other = Run.at(place), Run.at(f"{place}/")
    assert not run.stop_requested()
    other.request_stop()
    assert other.stop_requested()
    assert not run.stop_requested(), "a store is looked at every few seconds"
    run = Run.at(place)
    assert run.stop_requested()
    run.clear_stop()
    assert not Run.at(place).stop_requested()


def test_working_copies_of_killed_processes_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, alive, young = (tmp_path / f"genray-runs-{name}" for name in ("dead", "alive", "young"))
    for folder in (dead, alive, young):
        (folder / "0123" / "first").mkdir(parents=True)
        if folder != young:
            os.utime(folder, (0, 0))
    with lock_file(alive / ".lock"):
        os.utime(alive, (0, 0))
        own = mirrors._working_folder.__wrapped__()
    assert {folder.name for folder in tmp_path.iterdir()} == {alive.name, young.name, own.path.name}
    with lock_file(own.path / ".lock") as is_free:
        assert not is_free
    own.lock.close()
