"""Places of bundles: a folder, a store, or the name of a ready model."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from pathlib import Path

from genray.errors import BundleMissing, BundleUnsafe
from genray.io import user_cache
from genray.io.files import atomic_write
from genray.io.store import Store, open_store
from genray.named_bundles import is_ready, ready_folder
from genray.uris import is_uri

_MANIFEST = "bundle.json"
_MAX_MANIFEST = 4 * 2**20
_MAX_WEIGHTS = 64 * 2**30


def bundle_folder(location: str | Path, *, weights: bool = True) -> Path:
    """Return the folder of the bundle at `location`: a folder, a URI as s3://BUCKET/runs/first/bundle, or a
    name as ready:photo. A bundle in a store is copied to the user's cache, once for each version of it.

    Args:
        location: place of the bundle.
        weights: whether the weights are needed, or only the manifest.

    Raises:
        BundleMissing: there is no ready model of that name, or no bundle in the store.
        BundleUnsafe: a file of the store has an implausible size, or a place outside of the bundle.
        DataError: the store cannot be opened.
    """
    text = str(location)
    if is_ready(text):
        return ready_folder(text)
    text = text.removeprefix("file://")
    return _copied(text, weights=weights) if is_uri(text) else Path(text)


def _copied(uri: str, *, weights: bool) -> Path:
    store = open_store(uri)
    try:
        manifest = store.read(_MANIFEST, _MAX_MANIFEST + 1)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise BundleMissing(
            f"{uri} holds no {_MANIFEST}" if missing else f"cannot read {_MANIFEST} of {uri}: {error}",
            where=uri,
            hint="give the folder bundle/ of a run; a run has none before it has finished"
            if missing
            else "check the network, the credentials and their permissions",
        ) from error
    if len(manifest) > _MAX_MANIFEST:
        raise BundleUnsafe(f"{_MANIFEST} is larger than {_MAX_MANIFEST} bytes", where=uri)
    # A new version of the bundle has another manifest, and so another folder.
    key = f"bundle {uri} {hashlib.sha256(manifest).hexdigest()}"
    folder = user_cache.folder_of(key) or _own_folder(key)
    if not (folder / _MANIFEST).is_file():
        with atomic_write(folder / _MANIFEST, durable=False) as temporary:
            temporary.write_bytes(manifest)
    if weights:
        _copy_weights(store, manifest, folder)
    user_cache.mark_used(folder)
    user_cache.remove_oldest(folder)
    return folder


def _copy_weights(store: Store, manifest: bytes, folder: Path) -> None:
    """Copy the weights that the manifest names. A damaged manifest is reported by whoever reads it."""
    try:
        name = json.loads(manifest)["weights"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if not (isinstance(name, str) and name and Path(name).name == name) or (folder / name).is_file():
        return
    try:
        size = store.size(name)
        if size > _MAX_WEIGHTS:
            raise BundleUnsafe(f"{name} is larger than {_MAX_WEIGHTS} bytes", where=store.root)
        store.download(name, folder / name)
    except OSError as error:
        raise BundleMissing(
            f"cannot read the weights {name} of the bundle ({error})",
            where=store.root,
            hint="if the run is writing its bundle again, give the command again; else copy it again",
        ) from error


def _own_folder(key: str) -> Path:
    """Return a folder of this process, where there is no cache."""
    return Path(_own_root().name, hashlib.sha256(key.encode()).hexdigest()[:32])


@functools.cache
def _own_root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="genray-bundles-")
