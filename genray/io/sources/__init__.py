"""Sources of the inputs of a bulk run: files, rows of Parquet files, members of tar shards, lists.

Inputs are listed one by one, and read one by one by any number of threads.
"""

from genray.io.listing import Container, ImageFiles, Place, choose_container, find_place
from genray.io.parquet import PARQUET_ERRORS, has_bytes
from genray.io.patterns import PathFilter
from genray.io.sources.base import ContainerSettings, Item, ItemPaths, ItemSource, OnError
from genray.io.sources.containers import FileSource, ParquetSource, TarSource
from genray.io.sources.inventory import InventoryPlace, inventory_at, is_manifest
from genray.io.sources.listed import ListSource, is_list, list_root

__all__ = [
    "ContainerSettings",
    "Item",
    "ItemPaths",
    "ItemSource",
    "OnError",
    "TarSource",
    "is_list",
    "list_root",
    "open_source",
]

_SOURCES: dict[Container, type[FileSource] | type[ListSource] | type[ParquetSource] | type[TarSource]] = {
    "files": FileSource,
    "parquet": ParquetSource,
    "webdataset": TarSource,
    "list": ListSource,
}
_CHOICES: dict[Container, str] = {
    container: f"read.container={container}" for container in _SOURCES if container != "list"
}


def open_source(location: str, settings: ContainerSettings) -> ItemSource:
    """Return the source of the inputs at `location`: a folder, a pattern such as photos/**/*.png, a file, or
    a URI of one. A survey of all names there finds the container, unless `settings` give it. A text or CSV
    file is a list, and so are a Parquet file without a column of bytes and the manifest of an inventory.

    Raises:
        DataError: the location is missing, or has no inputs, or inputs in several containers.
    """
    place = find_place(location)
    if settings.container in ("auto", "list") and is_manifest(place.name):
        place = inventory_at(place)
    container: Container = (
        _find_container(location, place, settings) if settings.container == "auto" else settings.container
    )
    return _SOURCES[container](place.store, settings, place)


def _find_container(location: str, place: Place, settings: ContainerSettings) -> Container:
    if isinstance(place, InventoryPlace):
        return "list"
    if place.name and (is_list(place.name) or settings.path_column or _is_parquet_list(place)):
        return "list"
    images = ImageFiles(settings.suffixes, PathFilter(settings.include, settings.exclude))
    return choose_container(location, place, images, _CHOICES)


def _is_parquet_list(place: Place) -> bool:
    if not place.name.lower().endswith(".parquet"):
        return False
    try:
        return not has_bytes(place.store.open(place.name))
    except PARQUET_ERRORS:  # damaged: reading it as rows of images reports that
        return False
