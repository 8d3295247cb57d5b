"""Reduce photographs to a size at which neither their own noise nor the blocks of their files show.

    python examples/shrink_photographs.py FOLDER OUTPUT [SIDE]

Writes a PNG for each image in FOLDER, its shorter side SIDE pixels long (1100), for a training of a denoiser
on clean images. Images whose shorter side is less than 1.5 times SIDE are reduced to 0.6 of their size.

Two more of each, enlarged again by 1.5 and 2.2 (_x1.5.png, _x2.2.png), are as soft as photographs are at the
full size of a camera: a denoiser that has not seen such images takes coarse noise for detail.
"""

import sys
from pathlib import Path

from PIL import Image, ImageOps


def shrink(source: Path, output: Path, side: int) -> tuple[int, int]:
    """Write the reduced image and the enlarged ones; returns its width and height."""
    with Image.open(source) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    shorter = min(image.size)
    factor = side / shorter if shorter >= 1.5 * side else 0.6
    width, height = (round(factor * length) for length in image.size)
    reduced = image.resize((width, height), Image.Resampling.LANCZOS)
    reduced.save(output)
    for times in (1.5, 2.2):
        soft = reduced.resize((round(times * width), round(times * height)), Image.Resampling.BICUBIC)
        soft.save(output.with_name(f"{output.stem}_x{times}.png"))
    return width, height


if __name__ == "__main__":
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    side = int(sys.argv[3]) if len(sys.argv) > 3 else 1100
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            width, height = shrink(path, output / f"{path.stem}.png", side)
            print(f"{path.name}: {width}x{height}")
