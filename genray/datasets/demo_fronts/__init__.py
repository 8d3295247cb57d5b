"""Building fronts drawn from a seed: pairs of a label map and a photo-like picture, for demos and tests."""

from genray.datasets.demo_fronts.canvas import PALETTE
from genray.datasets.demo_fronts.fronts import building_front, write_fronts

__all__ = ["PALETTE", "building_front", "write_fronts"]
