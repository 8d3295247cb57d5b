"""Run the network of a bundle on one image.

python examples/use_a_bundle.py runs/first/bundle labels.png made.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genray.bundle import load_bundle
from genray.images.tensors import to_network, to_pixels

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def main(bundle_path: Path, source: Path, output: Path) -> None:
    """Write what the network makes of the image `source`, at the size that it was trained at."""
    bundle = load_bundle(bundle_path)
    takes, gives = bundle.manifest.preprocessing.input, bundle.manifest.preprocessing.output
    height, width = bundle.manifest.preprocessing.size
    image = Image.open(source).convert(MODES[takes.channels]).resize((width, height))
    images = np.asarray(image).reshape(1, height, width, takes.channels)  # (N, H, W, C), uint8
    with torch.inference_mode():
        made = bundle.network(to_network(images, span=takes.range))
    pixels = to_pixels(made, span=gives.range)[0]
    Image.fromarray(pixels.squeeze()).save(output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
