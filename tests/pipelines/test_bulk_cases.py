"""Whole runs over what large stores are like: broken, packed, remote, busy, interrupted, changing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from cluster.targets import find_target
from configs.loading import load
from genray.cli import main
from genray.data.photo import ReadLimits, read_photo
from genray.data.store import Store
from genray.data.tar import write_member
from genray.errors import RunError
from genray.progress import LineDisplay
from genray.resources import Resources
from genray.settings import flatten
from pipelines.attempts import Attempt
from pipelines.bulk_pass import Pass
from pipelines.corrupt import Corrupt
from pipelines.output import Output
from pipelines.sources import SourceSettings, open_source
from tests.broken_files import write_broken_files
from tests.pipelines.conftest import Bulk, leftovers, photo, rows_of, write_photos
from tests.pipelines.s3 import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]

ROOT = Path(__file__).parent.parent.parent
Bundles = Callable[[str], Path]


def png(seed: int, height: int = 40, width: int = 52) -> bytes:
    """A photo as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(photo(np.random.default_rng(seed), height, width)).save(stream, "PNG")
    return stream.getvalue()


def listed(root: str, container: Any) -> dict[str, bytes]:
    """What an output has, by name; one that is there twice is an error."""
    source = open_source(root, SourceSettings(container=container))
    items = list(source.items(lambda bad: pytest.fail(f"{bad.path}: {bad.detail}")))
    found = {item.path.split("/", 2)[-1]: source.read(item, 10**9) for item in items}
    assert len(found) == len(items)
    return found


def check_outputs(out: Path) -> None:
    """All outputs of the ledger are there, whole, and of the size of their inputs."""
    for row in rows_of(out):
        if row["status"] == "done":
            data = (out / row["output"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row["sha256"]
            made = read_photo(data, ReadLimits())
            assert made.pixels.shape == (row["height"], row["width"], row["channels"])


def submit(target: str, *sets: str, more: tuple[str, ...] = ()) -> Any:
    """`genray submit`, in this process without Ray."""
    given = (*sets, "work.workers=0", "work.gpu=false", "work.cpus_per_worker=1", "report.samples=0")
    words = [word for text in given for word in ("--set", text)]
    return CliRunner().invoke(main, ["submit", target, *words, *more], catch_exceptions=False)


def test_of_a_thousand_broken_and_odd_files_each_is_recorded_once_with_its_reason(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    expected = write_broken_files(photos, 1000)
    hidden = {path for path in expected if any(part.startswith(".") for part in path.split("/"))}
    expected = {path: reason for path, reason in expected.items() if path not in hidden}
    assert len(hidden) > 20
    before = {file: file.stat().st_mtime_ns for file in photos.rglob("*")}
    outcome = bulk("corrupt", f"input={photos}", "work.max_failed_share=1")
    rows = rows_of(out)
    found = {row["path"]: row["reason"] if row["status"] == "failed" else "" for row in rows}
    assert {p: (found.get(p), r) for p, r in expected.items() if found.get(p) != r} == {}
    assert found.keys() == expected.keys()
    assert outcome["reasons"] == Counter(filter(None, expected.values()))
    assert all(row["detail"] for row in rows if row["status"] == "failed")
    assert outcome["done"] == sum(not reason for reason in expected.values())
    check_outputs(out)
    written = {f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()}
    outputs = {row["output"] for row in rows if row["status"] == "done"}
    assert {name for name in written if not name.startswith("_genray/")} == outputs
    assert len(outputs) == outcome["done"]
    assert {file: file.stat().st_mtime_ns for file in photos.rglob("*")} == before
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            write_member(tar, name, data)


def write_parquet(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"path": list(members), "image": list(members.values())})
    pq.write_table(table, path, row_group_size=3)


_PACK = {"tar": write_tar, "parquet": write_parquet}


@pytest.mark.parametrize(
    ("kind", "container"), [("parquet", "webdataset"), ("tar", "parquet"), ("tar", "files")]
)
def test_shards_in_and_out_stay_without_doubles_when_inputs_come_and_change(
    bulk: Bulk, tmp_path: Path, kind: str, container: str
) -> None:
    photos, out, write = tmp_path / "in", tmp_path / "out", _PACK[kind]
    sets = (f"input={photos}", f"write.container={container}")
    first = {f"s/{i}.png": png(i) for i in range(8)}
    write(photos / f"a.{kind}", first | {"broken.png": b"\x89PNG"})
    outcome = bulk("corrupt", *sets)
    assert (outcome["done"], outcome["reasons"]) == (8, {"truncated": 1})
    write(photos / f"b.{kind}", {f"s/{i}.png": png(i) for i in range(20, 25)})
    assert bulk("corrupt", *sets)["this_pass"]["images"] == 5
    assert bulk("corrupt", *sets)["this_pass"]["images"] == 0
    before = outputs_of(out, container)
    assert before.keys() == {f"a/s/{i}.png" for i in range(8)} | {f"b/s/{i}.png" for i in range(20, 25)}
    write(photos / f"a.{kind}", first | {"s/3.png": png(99, 30, 30), "broken.png": png(7), "new.png": png(8)})
    outcome = bulk("corrupt", *sets)
    assert (outcome["this_pass"]["images"], outcome["total"], outcome["done"]) == (10, 15, 15)
    after = outputs_of(out, container)
    assert after.keys() == before.keys() | {"a/broken.png", "a/new.png"}
    assert {name for name in before if before[name] != after[name]} == {"a/s/3.png"}
    assert {row["path"]: row["sha256"] for row in rows_of(out)} == {
        name: hashlib.sha256(data).hexdigest() for name, data in after.items()
    }


def outputs_of(out: Path, container: str) -> dict[str, bytes]:
    if container != "files":
        return listed(str(out), container)
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in out.rglob("*.png")}


def test_images_in_a_tar_are_embedded_and_those_of_a_new_tar_are_added(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    sets = (f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")
    write_tar(tmp_path / "in" / "a.tar", {f"{i}.png": png(i) for i in range(5)} | {"x.json": b"{}"})
    assert bulk("embed", *sets)["done"] == 5
    write_tar(tmp_path / "in" / "b.tar", {f"{i}.png": png(i) for i in range(3)})
    assert bulk("embed", *sets)["this_pass"]["images"] == 3
    rows = pq.read_table(tmp_path / "out" / "embeddings").to_pylist()
    vectors = {row["path"]: row["vector"] for row in rows}
    assert len(rows) == len(vectors) == 8
    assert vectors["a/2.png"] == pytest.approx(vectors["b/2.png"], abs=1e-4)
    assert vectors["a/2.png"] != vectors["a/1.png"]


@pytest.fixture
def remote(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The URI of a folder in the test's own bucket; nobody else takes its lease."""
    monkeypatch.setattr("pipelines.output._SETTLE_S", 0.05)
    root, _, query = s3_root.partition("?")
    return lambda folder: f"{root}/{folder}?{query}"


def upload(uri: str, count: int) -> None:
    store = Store(uri)
    for index in range(count):
        store.write(f"{index % 2}/ü {index}.png", png(index))
    store.write("broken.jpg", b"\xff\xd8\xff")


def test_a_run_from_and_to_s3_ends_and_has_nothing_left_to_do(
    bulk: Bulk, remote: Callable[[str], str], tmp_path: Path
) -> None:
    upload(remote("in"), 9)
    sets = (f"input={remote('in')}", f"output={remote('out')}")
    outcome = bulk("corrupt", *sets)
    assert (outcome["done"], outcome["reasons"]) == (9, {"truncated": 1})
    out = Store(remote("out"))
    names = {f"{index % 2}/ü {index}.png" for index in range(9)}
    assert {entry.path for entry in out.list([".png"])} == names
    before = {name: out.read(name) for name in names}
    again = bulk("corrupt", *sets)
    assert (again["this_pass"]["images"], again["total"]) == (0, 10)
    Store(remote("in")).write("0/ü 0.png", png(77, 20, 20))
    changed = bulk("corrupt", *sets)
    assert (changed["this_pass"]["images"], changed["total"]) == (1, 10)
    assert {name for name in names if out.read(name) != before[name]} == {"0/ü 0.png"}
    assert not out.exists("_genray/lease.json")
    result = CliRunner().invoke(main, ["ledger", remote("out"), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (said["total"], said["done"], said["failed"]) == (10, 9, 1)
    failed = CliRunner().invoke(main, ["ledger", remote("out"), "--list", "failed"], catch_exceptions=False)
    assert "broken.jpg" in failed.stdout


def test_images_in_s3_are_embedded_into_s3(
    bulk: Bulk, bundle_of: Bundles, remote: Callable[[str], str]
) -> None:
    upload(remote("in"), 5)
    sets = (f"input={remote('in')}", f"output={remote('out')}", f"bundle={bundle_of('autoencoder')}")
    assert bulk("embed", *sets)["done"] == 5
    assert bulk("embed", *sets)["this_pass"]["images"] == 0
    out = Store(remote("out"))
    (part,) = out.list([".parquet"], "embeddings")
    assert len(pq.read_table(io.BytesIO(out.read(part.path)))) == 5


def test_an_output_whose_name_is_taken_by_a_folder_or_too_long_fails_alone(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    (photos / "a.jpg.webp").mkdir(parents=True)
    long = "x" * 250 + ".png"
    for name in ("a.jpg", "a.jpg.webp/b.png", "c.png", long):
        (photos / name).write_bytes(png(1))
    assert bulk("corrupt", f"input={photos}", "write.format=same", f"output={out}-same")["done"] == 4
    outcome = bulk("corrupt", f"input={photos}", "write.format=webp")
    assert (outcome["done"], outcome["reasons"]) == (2, {"unwritable": 2})
    assert {row["path"]: row["reason"] for row in rows_of(out) if row["status"] == "failed"} == {
        "a.jpg.webp/b.png" if (out / "a.jpg.webp").is_file() else "a.jpg": "unwritable",
        long: "unwritable",
    }


_HOLD = """
import sys
from pipelines.output import Output
with Output(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_on_the_same_output_is_refused_and_changes_nothing(bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 4)
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 2)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(out)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        with pytest.raises(RunError, match="another run is writing to this output"):
            bulk("corrupt", f"input={photos}")
        result = submit("corrupt", f"input={photos}", f"output={out}")
        assert result.exit_code == 2
        assert "another run is writing to this output" in result.stderr
        assert "wait for it, or give another output" in result.stderr
        assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
        holder.kill()
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 2


def test_two_runs_at_once_do_the_work_once(tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 60, size=(200, 260))
    results: list[Any] = []

    def work() -> None:
        settings = settings_of("corrupt", f"input={photos}", f"output={out}")
        prepared = find_target("corrupt").load().prepare(settings, "corrupt", None, lambda text: None)
        try:
            results.append(prepared.run(LineDisplay(), Resources(2, 0), attached=False)["total"])
        except RunError as error:
            results.append(error.what)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["60", "another run is writing to this output"]
    assert len(rows_of(out)) == 60


def settings_of(target: str, *sets: str) -> Any:
    given = ("work.workers=0", "work.gpu=false", "work.cpus_per_worker=1", "report.samples=0", *sets)
    return load(find_target(target).load().settings_class, target=target, sets=list(given))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 names of one image whose noise takes some time."""
    folder = tmp_path_factory.mktemp("many") / "in"
    folder.mkdir()
    (folder / "000.png").write_bytes(png(0, 200, 300))
    for index in range(1, 300):
        os.link(folder / "000.png", folder / f"{index:03}.png")
    return folder


def start(photos: Path, out: Path, *sets: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "genray", "submit", "corrupt", "--json"]
    for text in (f"input={photos}", f"output={out}", "work.workers=0", "work.cpus_per_worker=1", *sets):
        command += ["--set", text]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_outputs(process: subprocess.Popen[str], out: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not out.exists() or sum(1 for _ in out.glob("*.png")) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the run made no progress"
        time.sleep(0.02)


def test_a_run_that_ctrl_c_stops_records_what_it_did_and_the_same_command_goes_on(
    bulk: Bulk, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_outputs(process, out, 20)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after what is in hand" in stderr
    assert "the same command goes on from there" in stderr
    assert "Traceback" not in stderr
    assert json.loads(stdout)["exit_code"] == 130
    rows = rows_of(out)
    assert 0 < len(rows) < 300
    assert f"stopped: {300 - len(rows)} images are left, {len(rows)} were done" in stderr
    assert {row["output"] for row in rows} == {f.name for f in out.glob("*.png")}
    assert not leftovers(out)
    outcome = bulk("corrupt", f"input={many}")
    assert (outcome["this_pass"]["images"], outcome["total"]) == (300 - len(rows), 300)
    assert len(rows_of(out)) == 300


def test_inputs_that_cannot_be_opened_fail_alone_and_are_done_when_they_can(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    write_photos(photos, 6)
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (photos / "itself.png").symlink_to(photos / "itself.png")
    os.mkfifo(photos / "pipe.png")
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["reasons"]) == (6, {"unreadable": 3})
    (tmp_path / "nowhere.png").write_bytes(png(3))
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["this_pass"]["images"], outcome["done"], outcome["total"]) == (1, 7, 9)


def test_inputs_that_vanish_while_the_run_works_fail_alone(many: Path, bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(many, photos, copy_function=os.link)

    def remove() -> None:
        while not out.exists() or not any(out.glob("*.png")):
            time.sleep(0.01)
        for index in range(280, 300):
            (photos / f"{index}.png").unlink()

    thread = threading.Thread(target=remove)
    thread.start()
    outcome = bulk("corrupt", f"input={photos}")
    thread.join()
    assert (outcome["total"], outcome["done"], outcome["reasons"]) == (300, 280, {"unreadable": 20})


def _picture(kind: str) -> Image.Image:
    colour = Image.fromarray(photo(np.random.default_rng(5), 60, 90))
    gray = colour.convert("L")
    if kind == "gray":
        return gray
    if kind == "deep":
        return Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    if kind == "alpha":
        colour.putalpha(gray)
        return colour
    return gray.convert("LA") if kind == "gray-alpha" else colour


@pytest.mark.parametrize("kind", ["gray", "deep", "alpha", "gray-alpha", "colour"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_image_keeps_its_channels_its_depth_and_its_transparency(
    bulk: Bulk, tmp_path: Path, kind: str, suffix: str
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    before = _picture(kind)
    if kind == "gray-alpha":
        before.putalpha(Image.fromarray(np.arange(60 * 90).astype(np.uint8).reshape(60, 90)))
    before.save(photos / f"a.{suffix}")
    outcome = bulk("corrupt", f"input={photos}", "write.format=same", "corrupt.noise.sigma=2")
    assert outcome["done"] == 1, outcome["reasons"]
    with Image.open(out / f"a.{suffix}") as made:
        assert made.mode == before.mode
        old, new = (np.asarray(image).astype(float).reshape(60, 90, -1) for image in (before, made))
    if kind in ("alpha", "gray-alpha"):
        assert (old[..., -1] == new[..., -1]).all()
        old, new = old[..., :-1], new[..., :-1]
    noise = (new - old).std() / (257 if kind == "deep" else 1)
    assert noise == pytest.approx(2, rel=0.15)
    (row,) = rows_of(out)
    assert (row["depth"], row["channels"]) == (
        16 if kind == "deep" else 8,
        3 if kind in ("alpha", "colour") else 1,
    )
    assert row["change"] == pytest.approx(2 * 0.8, rel=0.2)


def test_a_photo_that_its_camera_turned_comes_out_upright_with_its_exif_and_profile(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "A camera"
    from PIL import ImageCms, ImageOps

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _picture("colour").save(photos / "a.jpg", exif=exif, icc_profile=profile, quality=95)
    bulk("corrupt", f"input={photos}", "write.format=same", "corrupt.noise.sigma=1")
    with Image.open(photos / "a.jpg") as before, Image.open(out / "a.jpg") as made:
        assert made.size == (60, 90)
        assert made.getexif().get(0x0112, 1) == 1
        assert made.getexif()[0x0110] == "A camera"
        assert made.info["icc_profile"] == profile
        upright = np.asarray(ImageOps.exif_transpose(before)).astype(float)
        assert np.abs(upright - np.asarray(made)).mean() < 3


@pytest.mark.parametrize(("target", "folder"), [("embed", "embeddings"), ("detect", "detections")])
def test_rows_that_the_ledger_does_not_speak_of_are_gone_at_the_next_run(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path, target: str, folder: str
) -> None:
    photos, table = tmp_path / "in", tmp_path / "out" / folder
    write_photos(photos, 6, noise=0)
    sets = (f"input={photos}", f"bundle={bundle_of('autoencoder' if target == 'embed' else 'anomaly')}")
    bulk(target, *sets)
    (part,) = table.glob("*.parquet")
    before = sorted(pq.read_table(part)["path"].to_pylist())
    # Killed between the commit of a part and that of its rows.
    shutil.copy(part, part.with_name("part-00001-000007-0-0.parquet"))
    (table / "notes.parquet").write_bytes(part.read_bytes())
    assert bulk(target, *sets)["this_pass"]["images"] == 0
    assert sorted(file.name for file in table.iterdir()) == ["notes.parquet", part.name]
    assert sorted(pq.read_table(part)["path"].to_pylist()) == before


def test_a_part_whose_rows_were_never_recorded_is_made_again_once(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 6, noise=0)
    sets = (f"input={photos}", f"bundle={bundle_of('autoencoder')}")
    bulk("embed", *sets)
    for file in (out / "_genray" / "ledger").iterdir():
        file.unlink()
    assert bulk("embed", *sets)["this_pass"]["images"] == 6
    assert pq.read_table(out / "embeddings").num_rows == len(rows_of(out)) == 6


_DEADLY = """
import os, sys
from pipelines.corrupt import Corrupt

def look(self, inputs, make=Corrupt.make):
    if any(each.path == sys.argv[1] for each in inputs):
        os.kill(os.getpid(), 9)
    return make(self, inputs)

Corrupt.make = look
from genray.cli import main
main(sys.argv[2:])
"""


def die_of(image: str, photos: Path, out: Path) -> None:
    """A run in one process that is killed as soon as the image comes to the model."""
    words = [
        f"input={photos}",
        f"output={out}",
        "work.workers=0",
        "work.cpus_per_worker=1",
        "report.samples=0",
    ]
    given = [word for text in words for word in ("--set", text)]
    command = [sys.executable, "-c", _DEADLY, image, "submit", "corrupt", *given]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode == -signal.SIGKILL


def left_by_dead_passes(out: Path, died: int, attempt: Attempt) -> None:
    """Make the output's last pass one that was killed, before it recorded anything."""
    for file in (out / "_genray" / "ledger").iterdir():
        file.unlink()
    output = Output(str(out))
    header = output.header()
    del header["passes"][-1]["ended"]
    header["passes"][-1]["died"] = died
    output.write_header(header)
    marker = out / "_genray" / "attempts" / f"{header['passes'][-1]['number']:05}-000000.json"
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(json.dumps(asdict(attempt)))


def test_an_image_that_kills_the_driver_twice_in_a_row_is_recorded_in_the_end(
    bulk: Bulk, tmp_path: Path
) -> None:
    photos, out, deadly = tmp_path / "in", tmp_path / "out", "0/0004.png"
    write_photos(photos, 6)
    bulk("corrupt", f"input={photos}")
    left_by_dead_passes(out, 1, Attempt(1))  # from here on images are worked on one by one
    for _ in range(2):
        die_of(deadly, photos, out)
        (marker,) = (out / "_genray" / "attempts").iterdir()
        assert json.loads(marker.read_text())["suspect"] == deadly
    assert [each["died"] for each in Output(str(out)).header()["passes"]] == [1, 2, 3]
    outcome = bulk("corrupt", f"input={photos}")
    assert (outcome["done"], outcome["reasons"]) == (5, {"killed-worker": 1})
    assert [row["path"] for row in rows_of(out) if row["status"] == "failed"] == [deadly]
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 0
    assert bulk("corrupt", f"input={photos}", "retry=failed")["done"] == 6, "what died long ago is forgotten"


@pytest.mark.parametrize(
    ("attempt", "poisonous"),
    [
        (Attempt(1), False),
        (Attempt(2, "1/0003.jpg", 1), False),
        (Attempt(3, "1/0003.jpg", 2), True),
        (Attempt(3, "1/0003.jpg", 2, done=True), False),
    ],
)
def test_what_killed_passes_left_decides_over_an_image(
    bulk: Bulk, tmp_path: Path, attempt: Attempt, poisonous: bool
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_dead_passes(out, attempt.number, attempt)
    outcome = bulk("corrupt", f"input={photos}")
    assert outcome["total"] == 5
    assert outcome["reasons"] == ({"killed-worker": 1} if poisonous else {})
    passes = Output(str(out)).header()["passes"]
    assert [each["number"] for each in passes] == [1, 2]
    assert passes[-1]["died"] == (0 if attempt.done else attempt.number + 1)
    assert not list((out / "_genray" / "attempts").iterdir())


def test_a_pass_that_ended_well_leaves_nothing_of_those_that_died_before(bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 5)
    bulk("corrupt", f"input={photos}")
    left_by_dead_passes(out, 2, Attempt(2, "1/0003.jpg", 1))
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 2)
    bulk("corrupt", f"input={photos}")
    assert [each["died"] for each in Output(str(out)).header()["passes"]] == [2, 3, 0]


def test_retry_all_that_is_stopped_goes_on_with_what_is_left_and_old_outputs_are_gone(
    bulk: Bulk, many: Path, tmp_path: Path
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    for name in ("000.png", "299.png"):
        os.link(many / name, photos / name)
    bulk("corrupt", f"input={photos}", "write.format=webp")
    assert len(list(out.glob("*.webp"))) == 2
    for file in many.glob("[01]*.png"):
        if file.name != "000.png":
            os.link(file, photos / file.name)
    again = ("retry=all", "write.format=png", "work.gpu=false", "report.samples=0")
    process = start(photos, out, *again)
    wait_for_outputs(process, out, 20)
    assert not list(out.glob("*.webp")), "deleted before the first is made again"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    done = {row["path"]: row["finished"] for row in rows_of(out)}
    assert 0 < len(done) < 201
    outcome = bulk("corrupt", f"input={photos}", *again)
    assert (outcome["this_pass"]["images"], outcome["total"]) == (201 - len(done), 201)
    assert done.items() <= {row["path"]: row["finished"] for row in rows_of(out)}.items()
    assert len(list(out.glob("*.png"))) == 201
    assert [each["number"] for each in Output(str(out)).header()["passes"]] == [1, 2, 3]


def test_retry_all_after_one_that_came_to_its_end_does_all_again(bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 6)
    for number in (1, 2, 3):
        outcome = bulk("corrupt", f"input={photos}", "retry=all")
        assert (outcome["this_pass"]["images"], outcome["total"]) == (6, 6)
        assert Output(str(out)).header()["passes"][-1]["number"] == number


def test_passes_are_counted_on_when_the_header_is_gone(bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 4)
    bulk("corrupt", f"input={photos}")
    write_photos(photos / "more", 3)
    bulk("corrupt", f"input={photos}")
    (out / "_genray" / "run.json").unlink()
    write_photos(photos / "most", 2)
    outcome = bulk("corrupt", f"input={photos}", "overwrite=true")
    assert (outcome["this_pass"]["images"], outcome["total"]) == (2, 9)
    assert [each["number"] for each in Output(str(out)).header()["passes"]] == [3]


@pytest.mark.parametrize("container", ["files", "parquet", "webdataset"])
def test_nothing_is_left_of_an_input_that_can_no_longer_be_made(
    bulk: Bulk, tmp_path: Path, container: str
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    for index in range(4):
        (photos / f"{index}.png").write_bytes(png(index))
    sets = (f"input={photos}", f"write.container={container}")
    bulk("corrupt", *sets)
    (photos / "2.png").write_bytes(b"\x89PNG broken")
    outcome = bulk("corrupt", *sets)
    assert (outcome["this_pass"]["changed"], outcome["reasons"]) == (1, {"truncated": 1})
    assert outputs_of(out, container).keys() == {"0.png", "1.png", "3.png"}
    outcome = bulk("corrupt", *sets, "retry=failed")
    assert (outcome["this_pass"]["retried"], outcome["this_pass"]["changed"]) == (1, 0)
    (photos / "1.png").unlink()
    assert bulk("corrupt", *sets)["this_pass"]["gone"] == 1
    assert outputs_of(out, container).keys() == {"0.png", "1.png", "3.png"}, "what is gone keeps its output"


def test_a_late_row_of_an_earlier_pass_does_not_count(bulk: Bulk, tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_photos(photos, 6)
    bulk("corrupt", f"input={photos}")
    rows = rows_of(out)
    settings = settings_of("corrupt", f"input={photos}", f"output={out}", "retry=all")
    output = Output(str(out))
    source = open_source(settings.input, settings.read)
    with output.locked():
        this = Pass(Corrupt(settings), source, output, flatten(settings), "corrupt", lambda text: None)
        assert (this.number, this.inputs) == (2, 6)
        output.ledger.add("00001-000009-0-0", [row | {"detail": "late"} for row in rows])
        output.ledger.add("00002-000000-0-0", rows[:4])
        summary = this.end({})
    assert (summary.total, this.recorded) == (4, 4)
    assert {row["detail"] for row in rows_of(out)} == {""}
    assert bulk("corrupt", f"input={photos}")["this_pass"]["images"] == 2, "what only the late one did"


def test_a_run_of_which_every_image_fails_is_an_error_of_its_own(tmp_path: Path) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    for index in range(3):
        (photos / f"{index}.png").write_bytes(b"\x89PNG")
    result = submit("corrupt", f"input={photos}", f"output={out}")
    assert result.exit_code not in (0, 130)
    assert "all 3 images failed" in result.stderr
    assert f"genray ledger {out} --list failed" in result.stderr
    assert len(rows_of(out)) == 3
    (photos / "3.png").write_bytes(png(0))
    assert submit("corrupt", f"input={photos}", f"output={out}").exit_code == 0


def test_the_outcome_says_what_the_workers_said_of_how_they_run(
    bulk: Bulk, bundle_of: Bundles, tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 2)
    this = bulk("embed", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")["this_pass"]
    assert this.keys() == {
        *("images", "changed", "retried", "gone", "notes"),
        *("images_per_second", "mb_per_second", "start_seconds"),
    }
    assert any("fp32" in line or "bf16" in line for line in this["notes"]), this["notes"]
