from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genray.errors import DataError
from tests.pipelines.conftest import Bulk, write_photos


def test_a_folder_that_compress_did_not_write_is_refused(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"code": [b"x"]}), tmp_path / "in" / "part.parquet")
    with pytest.raises(DataError, match="not an output of compress"):
        bulk("decompress", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")


def test_a_damaged_code_costs_its_own_image_only(
    bulk: Bulk, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    write_photos(tmp_path / "in", 5, noise=0)
    bulk("compress", f"input={tmp_path / 'in'}", f"bundle={bundle_of('autoencoder')}")
    codes = (tmp_path / "out").rename(tmp_path / "codes")
    (part,) = (codes / "codes").glob("*.parquet")
    table = pq.read_table(part)
    blobs = table["code"].to_pylist()
    blobs[2] = blobs[2][:-1] + bytes([blobs[2][-1] ^ 255])
    pq.write_table(table.set_column(table.column_names.index("code"), "code", pa.array(blobs)), part)
    outcome = bulk("decompress", f"input={codes}", f"bundle={bundle_of('autoencoder')}")
    assert (outcome["done"], outcome["reasons"]) == (4, {"truncated": 1})
