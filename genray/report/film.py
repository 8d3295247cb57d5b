"""Films: pictures of one size as an animated WebP file."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from genray.images.pixels import Pixels


def film(frames: Sequence[Pixels], milliseconds: int, quality: int = 80) -> bytes:
    """Return the frames (H, W, 3) uint8, all of one size, as an animated WebP file that starts again at its
    end.

    Args:
        frames: at least one.
        milliseconds: duration of a frame.
        quality: quality of the lossy compression, 0 to 100.
    """
    first, *others = (Image.fromarray(frame) for frame in frames)
    stream = io.BytesIO()
    first.save(
        stream,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=2,
    )
    return stream.getvalue()
