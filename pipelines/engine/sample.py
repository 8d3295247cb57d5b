"""Samples of the inputs: drawn while they are listed, and read when a step fits itself to the user's
images."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from genray.images.photo import Photo, read_photo
from genray.io.bad_input import BadImage
from genray.io.sources import Item, ItemSource
from pipelines.settings import ReadSettings

_SIZE = 64


class ItemSample:
    """A uniform sample of inputs of unknown number (reservoir sampling, Li 1994, algorithm L, which
    draws only for the inputs that it takes).

    Args:
        seed: seed of the draw.
    """

    def __init__(self, seed: int) -> None:
        self.items: list[Item] = []
        self._random = random.Random(seed)
        self._count = 0
        self._next = _SIZE  # number of the next input that is taken
        self._weight = 1.0

    def add(self, item: Item) -> None:
        """Add `item`, or drop it, or let it replace another one, at random."""
        self._count += 1
        if self._count < self._next:
            if self._count < _SIZE:
                self.items.append(item)
            return
        if self._count == _SIZE:
            self.items.append(item)
        else:
            self.items[self._random.randrange(_SIZE)] = item
        self._weight *= self._drawn() ** (1 / _SIZE)
        self._next += 1 + int(math.log(self._drawn()) / math.log1p(-self._weight))

    def _drawn(self) -> float:
        """Draw a number in (0, 1)."""
        return self._random.random() or 0.5


class PhotoSample(Sequence[Photo]):
    """Photos of some inputs, read on access; inputs that cannot be read are left out.

    Args:
        source: source of the inputs.
        items: the inputs.
        settings: how they are read.
        levels: read floats as they are, and any number of channels.
    """

    def __init__(
        self, source: ItemSource, items: Sequence[Item], settings: ReadSettings, *, levels: bool = False
    ) -> None:
        self._levels = levels
        self._source = source
        self._settings = settings
        self._unread = list(items)
        self._photos: list[Photo] = []

    def __len__(self) -> int:
        self._read_all()
        return len(self._photos)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) or index < 0:
            self._read_all()
        else:
            self._read_until(index + 1)
        return self._photos[index]

    def _read_all(self) -> None:
        self._read_until(len(self._photos) + len(self._unread))

    def _read_until(self, count: int) -> None:
        while self._unread and len(self._photos) < count:
            item = self._unread.pop(0)
            try:
                data = self._source.read(item, self._settings.max_bytes)
                self._photos.append(read_photo(data, self._settings, levels=self._levels))
            except BadImage:
                continue
