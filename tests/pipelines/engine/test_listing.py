from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.images.photo_writer import WriteSettings, output_path
from genray.io.sources import open_source
from genray.io.store import create_store
from genray.io.tar import write_member
from pipelines.corrupt import Corrupt, CorruptSettings
from pipelines.engine.plan import InputListing, PlannedInput, output_name
from pipelines.storage.ledger.index import LedgerIndex
from pipelines.storage.ledger.ledger import Ledger
from pipelines.storage.ledger.rows import LedgerRow


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listing(folder: Path, index: LedgerIndex | None = None, **settings: Any) -> InputListing:
    values = CorruptSettings.model_validate({"input": str(folder), "output": str(folder / "no"), **settings})
    source = open_source(values.input, values.read)
    return InputListing(source, Corrupt(values), index or LedgerIndex.empty(), lambda text: None)


def outputs(planned: Iterable[PlannedInput]) -> dict[str, str]:
    """The name of each input's output; an input or an output that is there twice is an error."""
    found = [(each.item.path, each.output) for each in planned]
    inputs = Counter(path for path, _ in found)
    names = Counter(name for _, name in found)
    assert [name for name, count in (inputs | names).items() if count > 1] == []
    return dict(found)


def index_of(tmp_path: Path, rows: Mapping[str, dict[str, Any]]) -> LedgerIndex:
    """The index of a ledger that has these rows."""
    ledger = Ledger(create_store(tmp_path / "ledger"))
    basis = {"status": "done", "bytes_in": 0, "modified": 0}
    ledger.add("00001-000000-0-0", [LedgerRow(path, **basis | row) for path, row in rows.items()])
    return ledger.index()


def stamp(file: Path) -> dict[str, int]:
    return {"bytes_in": file.stat().st_size, "modified": file.stat().st_mtime_ns}


def webp(folder: Path, index: LedgerIndex | None = None) -> dict[str, str]:
    return outputs(listing(folder, index, write={"format": "webp"}).remaining())


def test_every_input_is_listed_once_folder_by_folder(tmp_path: Path) -> None:
    names = [
        f"{folder}{i}.{kind}"
        for folder in ("", "a/", "a/b/", "z/")
        for i in range(3)
        for kind in ("png", "JPG")
    ]
    touch(tmp_path, [*names, "a/notes.txt", ".hidden.png", ".git/x.png"])
    listed = listing(tmp_path)
    found = outputs(listed.remaining())
    assert sorted(found) == sorted(names)
    assert all(path == name for path, name in found.items())
    assert (listed.listed, listed.changed, listed.retried, listed.problems) == (24, [], [], [])


def test_a_first_listing_reads_names_only_and_a_later_one_looks_up_what_the_ledger_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "in", [f"{index}.png" for index in range(10)])
    index = index_of(
        tmp_path, {f"{index}.png": stamp(tmp_path / "in" / f"{index}.png") for index in range(4)}
    )
    looked_up: list[str] = []
    stat = os.stat

    def counted(path: Any, **options: Any) -> os.stat_result:
        looked_up.append(Path(path).name)
        return stat(path, **options)

    first, later = listing(tmp_path / "in"), listing(tmp_path / "in", index)
    monkeypatch.setattr(os, "stat", counted)
    assert len(outputs(first.remaining())) == 10
    assert [name for name in looked_up if name.endswith(".png")] == []
    assert len(outputs(later.remaining())) == 6
    assert [name for name in looked_up if name.endswith(".png")] == [f"{index}.png" for index in range(4)]
    assert later.recorded == 4


@pytest.mark.parametrize(("retry", "left"), [("none", "bcde"), ("failed", "bcdef")])
def test_only_what_is_new_or_has_changed_is_left_and_what_failed_if_asked_for(
    tmp_path: Path, retry: str, left: str
) -> None:
    folder = tmp_path / "in"
    touch(folder, [f"{name}.png" for name in "abcdef"])
    files = {name: folder / f"{name}.png" for name in "abcdef"}
    for file in files.values():
        file.write_bytes(b"12345")
    rows = {f"{name}.png": stamp(files[name]) for name in "abcdf"}
    rows["b.png"]["bytes_in"] += 1
    rows["c.png"]["modified"] -= 1
    rows["d.png"] |= {"modified": 1, "status": "failed"}  # type: ignore[dict-item]
    rows["f.png"] |= {"status": "failed"}  # type: ignore[dict-item]
    rows["gone.png"] = {"bytes_in": 5, "modified": 5}
    listed = listing(folder, index_of(tmp_path, rows), retry=retry)
    assert [each.item.path for each in listed.remaining()] == [f"{name}.png" for name in left]
    assert listed.listed == 6
    assert listed.changed == ["b.png", "c.png", "d.png"]
    assert listed.retried == (["f.png"] if retry == "failed" else [])


def test_a_name_keeps_its_suffix_and_gets_the_one_of_the_output_behind_it(tmp_path: Path) -> None:
    touch(tmp_path, ["a.jpg", "a.png", "x/a.jpg", "x/y/a.PNG", "c.d.tif", "d.jpeg"])
    assert webp(tmp_path) == {
        "a.jpg": "a.jpg.webp",
        "a.png": "a.png.webp",
        "x/a.jpg": "x/a.jpg.webp",
        "x/y/a.PNG": "x/y/a.PNG.webp",
        "c.d.tif": "c.d.tif.webp",
        "d.jpeg": "d.jpeg.webp",
    }


def test_a_name_that_fits_stays_unless_it_looks_as_if_it_was_made_here(tmp_path: Path) -> None:
    touch(tmp_path, ["a.webp", "a.b.webp", "a.jpg", "a.jpg.webp", "a.JPG.webp", "a.jpg.webp.webp"])
    assert webp(tmp_path) == {
        "a.webp": "a.webp",
        "a.b.webp": "a.b.webp",
        "a.jpg": "a.jpg.webp",
        "a.jpg.webp": "a.jpg.webp.webp",
        "a.JPG.webp": "a.JPG.webp.webp",
        "a.jpg.webp.webp": "a.jpg.webp.webp.webp",
    }


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_no_two_of_all_names_that_may_meet_become_one_output(tmp_path: Path, kind: str) -> None:
    suffixes = [".png", ".PNG", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"]
    ends = ["".join(some) for count in (1, 2, 3) for some in product(suffixes, repeat=count)]
    settings = WriteSettings(format=kind)
    assert len({output_name(f"a{end}", settings) for end in ends}) == len(ends)
    assert all(output_path(name := output_name(f"a{end}", settings), settings) == name for end in ends)


def test_all_names_stay_where_the_format_does(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.jpg.png", "b.tiff"]
    touch(tmp_path, names)
    assert outputs(listing(tmp_path, write={"format": "same"}).remaining()) == dict(
        zip(names, names, strict=True)
    )


def test_names_are_the_same_whatever_of_the_folder_is_left_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    touch(folder, ["a.jpg"])
    alone = webp(folder)
    touch(folder, ["a.png", "a.webp", "a.jpg.webp"])
    whole = webp(folder)
    assert whole["a.jpg"] == alone["a.jpg"], "what comes later changes nothing"
    index = index_of(tmp_path, {name: stamp(folder / name) for name in ("a.jpg", "a.webp", "a.jpg.webp")})
    assert webp(folder, index) == {"a.png": whole["a.png"]}


def test_members_of_a_tar_in_any_order_have_outputs_of_their_own(tmp_path: Path) -> None:
    names = ["x/a.jpg", "y/b.jpg", "x/a.png", "y/b.png", "c.png", "x/c.png", "c.jpg"]
    with tarfile.open(tmp_path / "shard.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            write_member(tar, name, b"1")
    assert sorted(webp(tmp_path)) == sorted(f"shard/{name}" for name in names)


def test_rows_of_a_parquet_file_in_any_order_have_outputs_of_their_own(tmp_path: Path) -> None:
    names = ["x/a.jpg", "y/b.jpg", "x/a.png"]
    pq.write_table(pa.table({"path": names, "image": [b"\xff\xd8\xff"] * 3}), tmp_path / "part.parquet")
    assert sorted(webp(tmp_path)) == sorted(f"part/{name}" for name in names)


def test_a_name_that_is_not_utf8_is_a_problem_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, ["good.png", "größe.png"])
    touch(tmp_path, [os.fsdecode(b"\xff\xfe.png")])
    listed = listing(tmp_path)
    assert sorted(outputs(listed.remaining())) == ["good.png", "größe.png"]
    (bad,) = listed.problems
    assert (bad.path, bad.reason) == ("\\udcff\\udcfe.png", "bad-name")
    bad.path.encode()


def test_a_folder_whose_name_is_not_utf8_costs_what_is_in_it(tmp_path: Path) -> None:
    touch(tmp_path, ["good.png"])
    touch(tmp_path / os.fsdecode(b"\xe9"), ["1.png", "2.png"])
    listed = listing(tmp_path)
    assert list(outputs(listed.remaining())) == ["good.png"]
    assert [bad.reason for bad in listed.problems] == ["bad-name"] * 2


def test_a_damaged_shard_is_a_problem_and_the_others_are_listed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        write_member(tar, "a.png", b"1" * 2000)
    (tmp_path / "good.tar").write_bytes(buffer.getvalue())
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    listed = listing(tmp_path)
    assert list(outputs(listed.remaining())) == ["good/a.png"]
    assert [(bad.path, bad.reason) for bad in listed.problems] == [("bad.tar", "truncated")]


def test_a_sample_of_few_is_all_of_them(tmp_path: Path) -> None:
    touch(tmp_path, [f"{i}.png" for i in range(20)])
    listed = listing(tmp_path)
    left = [each.item for each in listed.remaining()]
    assert listed.sample.items == left


def shares(folder: Path, index: LedgerIndex | None, parts: int) -> list[float]:
    """Of samples by 40 seeds the share that comes from each of as many equal parts of the store."""
    counts = [0] * parts
    for seed in range(40):
        listed = listing(folder, index, report={"seed": seed})
        left = [each.item.path for each in listed.remaining()]
        place = {path: index * parts // len(left) for index, path in enumerate(left)}
        assert len(listed.sample.items) == 64
        assert len({item.path for item in listed.sample.items}) == 64
        for item in listed.sample.items:
            counts[place[item.path]] += 1
    return [count / sum(counts) for count in counts]


def test_a_sample_is_drawn_evenly_from_all_of_the_store(tmp_path: Path) -> None:
    touch(tmp_path, [f"{i % 3}/{i:03}.png" for i in range(400)])
    # 2560 are drawn: 0.25 +- 4.5 standard deviations.
    assert shares(tmp_path, None, 4) == pytest.approx([0.25] * 4, abs=0.04)


def test_a_sample_is_drawn_evenly_from_what_is_left_of_a_store_that_is_nearly_done(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = [f"{i:04}.png" for i in range(600)]
    touch(folder, names)
    index = index_of(tmp_path, {name: stamp(folder / name) for name in names[:400]})
    assert shares(folder, index, 4) == pytest.approx([0.25] * 4, abs=0.04)


def test_the_same_seed_draws_the_same_sample(tmp_path: Path) -> None:
    touch(tmp_path, [f"{i:03}.png" for i in range(200)])
    drawn = []
    for seed in (1, 1, 2):
        listed = listing(tmp_path, report={"seed": seed})
        assert len(list(listed.remaining())) == 200
        drawn.append([item.path for item in listed.sample.items])
    assert drawn[0] == drawn[1] != drawn[2]
