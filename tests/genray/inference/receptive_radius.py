"""Measures how far a network sees: what the overlap of tiles has to reach."""

import torch
from torch import nn

from genray.models.autoencoder import up_to_multiple

MAX_PROBE = 1024  # pixels; a network that sees further than a quarter of it counts as seeing all


def receptive_radius(network: nn.Module, channels: int, multiple: int = 1, draws: int = 2) -> int | None:
    """How many pixels away an image can still change a pixel of the result, or None: any number.

    The gradient of a block of `multiple` pixels in the middle is followed back to random images, at growing
    sizes until it ends well before the edges.

    Args:
        network: (N, channels, H, W) -> (N, any, H, W), on the CPU.
        multiple: heights and widths that it takes, and the period of its pixels.
        draws: random images; a path that one of them finds closed another may find open.
    """
    generator = torch.Generator().manual_seed(0)
    side = up_to_multiple(256, 2 * multiple)
    while side <= max(MAX_PROBE, 4 * multiple):
        middle = side // 2 // multiple * multiple
        far = 0
        for _ in range(draws):
            image = torch.rand(1, channels, side, side, generator=generator).requires_grad_()
            block = network(image)[..., middle : middle + multiple, middle : middle + multiple]
            weights = torch.randn(block.shape, generator=generator)
            (gradient,) = torch.autograd.grad((block * weights).sum(), image)
            rows, columns = (gradient[0] != 0).any(dim=0).nonzero(as_tuple=True)
            for places in (rows, columns):
                if len(places):
                    far = max(far, middle - int(places.min()), int(places.max()) - (middle + multiple - 1))
        if 2 * far < side - middle - multiple:  # it may see some pixels beyond others that it does not see
            return far
        side *= 2
    return None
