"""Manifests of S3 Inventory: which files list the objects of a bucket, and with which columns.

A report of an inventory is a folder of a day, with `manifest.json`, beside a folder `data` that has the lists
of all days (https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genray.errors import DataError
from genray.io.file_types import FileCounts
from genray.io.listing import OnError, Place
from genray.io.sources.base import is_safe
from genray.io.store import Entry, Wanted, open_store

_MANIFEST = "manifest.json"
_MOST_BYTES = 2**26  # of a manifest, which names some thousand files
_FORMATS = ("CSV", "Parquet")
_COLUMNS = {
    "VersionId": "version_id",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
    "LastModifiedDate": "last_modified",
}
"""Names of an inventory's fields in lists, where these are not the same in lower case."""


@dataclass(frozen=True)
class InventoryPlace(Place):
    """Location of the lists that a manifest names.

    Attributes:
        files: paths of the lists.
        columns: columns of lists without a header, in lower case and snake case; () for Parquet files.
    """

    files: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def walk(
        self, wanted: Wanted, on_error: OnError | None, counts: FileCounts, *, sizes: bool = True
    ) -> Iterator[Entry]:
        """Yield the lists, in the order of the manifest. Whether they exist shows when they are read."""
        return (Entry(path, 0) for path in self.files)


def is_manifest(location: str) -> bool:
    """Return whether `location` is a manifest by its name."""
    path = location.partition("?")[0] if "://" in location else location
    return path.rpartition("/")[2] == _MANIFEST


def inventory_at(place: Place) -> InventoryPlace:
    """Return the place of the lists that the manifest at `place` names.

    Raises:
        DataError: it is no manifest of an inventory, or its lists are of a format that is not read.
    """
    where = place.location
    try:
        raw = place.store.read_range(place.name, 0, _MOST_BYTES + 1)
        manifest: Any = json.loads(raw) if len(raw) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        raise DataError(
            f"{where} is not a manifest of S3 Inventory",
            where="input",
            hint="give the manifest.json of one day of an inventory, or a list of paths or URLs (.txt, .csv, "
            ".parquet)",
        )
    form = manifest.get("fileFormat")
    if form not in _FORMATS:
        raise DataError(
            f"the inventory {where} is in the format {form}, which is not read",
            where="input",
            hint="set the inventory's format to CSV or Apache Parquet in S3",
        )
    keys = [str(file.get("key", "")) if isinstance(file, dict) else "" for file in manifest["files"]]
    names = [key.rpartition("/")[2] for key in keys]
    if not all(is_safe(name, name) for name in names):
        raise DataError(
            f"the manifest {where} has a list without a usable name",
            where="input",
            hint="give the lists themselves, which are in the folder data beside the manifest's own",
        )
    columns = str(manifest.get("fileSchema", "")).split(",") if form == "CSV" else []
    # The folder `data` is beside the one of the manifest, in the bucket and wherever both were copied to.
    return InventoryPlace(
        open_store(_above(place.store.root)),
        files=tuple(f"data/{name}" for name in names),
        columns=tuple(_COLUMNS.get(name.strip(), name.strip().lower()) for name in columns),
    )


def _above(root: str) -> str:
    """Return the folder or URI above the one of a manifest."""
    path, mark, query = root.partition("?") if "://" in root else (root, "", "")
    if "://" not in path:
        return os.path.normpath(f"{path}/..")
    return path.rstrip("/").rpartition("/")[0] + mark + query
