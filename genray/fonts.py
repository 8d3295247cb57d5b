"""Fonts that come with matplotlib, so that none of the system is needed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont


@lru_cache(maxsize=512)
def load_font(name: str, em: int) -> ImageFont.FreeTypeFont:
    """Load a font file of matplotlib, such as DejaVuSans, with an em of `em` pixels."""
    import matplotlib  # slow to import

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    # Only the basic layout is in every build of Pillow, and each layout draws different pixels.
    return ImageFont.truetype(str(path), em, layout_engine=ImageFont.Layout.BASIC)
