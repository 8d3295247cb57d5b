"""A sample of the inputs, for what a step fits to the user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genray.images.decode import BadImage
from genray.images.photo import Photo, read_photo
from genray.io.sources import Item, Source
from pipelines.settings import BulkSettings


class Sample(Sequence[Photo]):
    """Photos of some inputs, read when they are asked for; those that cannot be read are not in it."""

    def __init__(self, source: Source, items: Sequence[Item], settings: BulkSettings) -> None:
        self._source, self._settings = source, settings
        self._items = list(items)
        self._photos: list[Photo] = []

    def __len__(self) -> int:
        self._fill(len(self._items))
        return len(self._photos)

    def __getitem__(self, index: Any) -> Any:
        self._fill(len(self._items) if isinstance(index, slice) or index < 0 else index + 1)
        return self._photos[index]

    def _fill(self, count: int) -> None:
        while self._items and len(self._photos) < count:
            item = self._items.pop(0)
            try:
                data = self._source.read(item, self._settings.read.max_bytes)
                self._photos.append(read_photo(data, self._settings.read))
            except BadImage:
                continue
