"""Bulk runs over lists: each row is processed once, and no secret of a URL is kept."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image_server import ImageServer, Request, image_server
from tests.pipelines.bulk_runs import png, submit
from tests.pipelines.conftest import Bulk, rows_of, write_photos

FETCH = ("read.fetch.private_hosts=true", "read.fetch.retries=0", "read.fetch.requests_per_second=1000")


@pytest.fixture
def site() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def write_list(path: Path, site: ImageServer, secret: str, names: list[str]) -> Path:
    path.write_text("".join(f"{site.url}/{name}?Signature={secret}\n" for name in names))
    return path


def everything_in(folder: Path) -> bytes:
    """All bytes below a folder, unpacked where they are compressed by gzip, and all names."""
    data = b""
    for file in folder.rglob("*"):
        data += str(file).encode()
        if file.is_file():
            content = file.read_bytes()
            data += gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return data


def test_listed_urls_are_processed_and_their_queries_are_kept_nowhere(
    site: ImageServer, tmp_path: Path
) -> None:
    names = [f"{index}.png" for index in range(4)]
    site.answers.update({f"/{name}": png(index) for index, name in enumerate(names)})
    site.answers["/3.png"] = lambda request: request.reply(403)
    file = write_list(tmp_path / "list.txt", site, "s3cret", names)
    sets = (f"input={file}", f"output={tmp_path / 'out'}", "report.samples=3", *FETCH)
    done = submit("corrupt", *sets)
    assert done.exit_code == 0, done.output
    rows = rows_of(tmp_path / "out")
    host = site.url.removeprefix("http://").replace(":", "_")
    assert [row["path"] for row in rows] == [f"{host}/{name}" for name in names]
    assert [row["status"] for row in rows] == ["done"] * 3 + ["failed"]
    assert rows[3]["detail"] == "HTTP 403 Forbidden"
    assert all((tmp_path / "out" / row["output"]).exists() for row in rows[:3])
    assert b"s3cret" not in everything_in(tmp_path / "out")
    assert "s3cret" not in done.output


def test_a_new_signature_resumes_where_the_old_one_ended(site: ImageServer, tmp_path: Path) -> None:
    def allowed(request: Request) -> None:
        request.reply(200, png(1)) if request.path.endswith("second") else request.reply(403)

    site.answers.update({"/0.png": png(0), "/1.png": allowed})
    sets = (f"input={tmp_path / 'list.txt'}", f"output={tmp_path / 'out'}", *FETCH)
    write_list(tmp_path / "list.txt", site, "first", ["0.png", "1.png"])
    submit("corrupt", *sets)
    write_list(tmp_path / "list.txt", site, "second", ["0.png", "1.png"])
    again = submit("corrupt", *sets, more=("--retry", "failed"))
    assert again.exit_code == 0
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["done", "done"]
    assert site.counts["/0.png"] == 1


def test_a_list_of_files_is_processed_by_workers_of_ray_too(bulk: Bulk, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 6)
    paths = sorted(file.relative_to(tmp_path / "in").as_posix() for file in (tmp_path / "in").rglob("*.*"))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},x\n" for path in [*paths, *paths]))
    outcome = bulk("corrupt", f"input={tmp_path / 'list.csv'}", f"read.root={tmp_path / 'in'}", workers=1)
    assert (outcome["done"], outcome["failed"]) == (6, 0)
    assert [row["path"] for row in rows_of(tmp_path / "out")] == paths


def test_rows_that_name_nothing_are_rows_of_the_ledger(bulk: Bulk, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 1)
    (tmp_path / "in/list.txt").write_text("0/0000.jpg\n/etc/passwd\nhttp://user:s3cret@host/a.jpg\n")
    outcome = bulk("corrupt", f"input={tmp_path / 'in/list.txt'}")
    assert (outcome["done"], outcome["failed"]) == (1, 2)
    rows = rows_of(tmp_path / "out")
    assert [(row["path"], row["reason"]) for row in rows] == [
        ("0/0000.jpg", ""),
        ("list.txt:2", "bad-name"),
        ("list.txt:3", "bad-name"),
    ]


def test_the_output_may_not_hold_the_listed_files(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 1)
    (tmp_path / "list.txt").write_text("0/0000.jpg\n")
    sets = (f"input={tmp_path / 'list.txt'}", f"read.root={tmp_path / 'in'}", f"output={tmp_path / 'in'}")
    refused = submit("corrupt", *sets)
    assert refused.exit_code == 2
    assert "contains the listed files" in refused.output


def test_patterns_choose_the_files_and_the_members_of_shards(bulk: Bulk, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 6)
    outcome = bulk("corrupt", f"input={tmp_path / 'in'}", 'read.include=["*.jpg"]', 'read.exclude=["1/*"]')
    kept = sorted(row["path"] for row in rows_of(tmp_path / "out"))
    assert kept == ["0/0000.jpg"]
    assert outcome["done"] == 1
