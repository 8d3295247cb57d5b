"""Images in tar shards, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genray.images.decode import ImageHeader, decode, decode_header, decode_levels
from genray.images.image_file import Levels
from genray.images.limits import ReadLimits
from genray.images.pixels import Pixels, Window
from genray.io.sources import Item, ItemSource


@dataclass(frozen=True)
class TarImages:
    """Members of tar shards: `StoredImages`, see `genray/datasets/layouts.py`.

    Args:
        source: reads the members.
        items: place of each image, an Arrow table, which Ray shares without copies.
    """

    source: ItemSource
    items: Any

    @classmethod
    def of_items(cls, source: ItemSource, items: Sequence[Item]) -> TarImages:
        """Return the images at `items` of `source`."""
        import pyarrow as pa

        columns = zip(*items, strict=True)
        return cls(source, pa.table(dict(zip(Item._fields, map(list, columns), strict=True))))

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return str(self.items["path"][index])

    def header(self, index: int) -> ImageHeader:
        return decode_header(self.data(index, ReadLimits()))

    def size(self, index: int) -> int:
        return int(self.items["size"][index].as_py())

    def pixels(self, index: int, channels: int, limits: ReadLimits, window: Window | None = None) -> Pixels:
        return decode(self.data(index, limits), channels=channels, limits=limits, window=window)

    def levels(self, index: int, limits: ReadLimits) -> Levels:
        return decode_levels(self.data(index, limits), limits)

    def data(self, index: int, limits: ReadLimits) -> bytes:
        (row,) = self.items.slice(index, 1).to_pylist()
        return self.source.read(Item(**row), limits.max_bytes)
