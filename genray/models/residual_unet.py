"""The residual U-Net: the family of DRUNet (Zhang et al. 2021, "Plug-and-Play Image Restoration with Deep
Denoiser Prior", section 3), and the U shape that other restoration networks share with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal, overload

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from genray.models.autoencoder import Widths, init_he
from genray.models.restorer import Restorer
from genray.settings.base import Settings

_LEAST_MASK = 0.1  # in evaluation, smaller values of the mask are set to 0


class UShapeSettings(Settings):
    """Settings of every U shape."""

    kind: str = Field(description="kind of the network's blocks")
    widths: Widths = Field(
        (32, 64, 128),
        min_length=1,
        max_length=6,
        description="channels of each level; a level has half the height and width of the one before",
    )
    blocks: int = Field(
        2, ge=1, le=32, description="number of blocks of each level but the innermost, down and up"
    )
    middle: int = Field(2, ge=1, le=32, description="number of blocks of the innermost level")
    shuffle: int = Field(
        2,
        ge=1,
        le=4,
        description=(
            "side of the squares of pixels that the first level works on (1: full resolution, at "
            "about 4 times the cost of 2)"
        ),
    )
    bias: bool = Field(
        False,
        description=(
            "add a bias to every convolution (false: the network also serves noise levels that "
            "it was not trained on)"
        ),
    )
    gate: bool = Field(
        False, description="predict a mask of the damage, too, and leave the image unchanged outside of it"
    )


class ResidualUNetSettings(UShapeSettings):
    """Settings of the residual U-Net."""

    kind: Literal["unet"] = Field("unet", description="U-Net of residual blocks")


class UShape(Restorer):
    """Levels of blocks, down by 2x2 convolutions and up by transposed ones, with skips that are added.

    Shapes: (N, C, H, W) -> (N, C, H, W), not clamped. Any size: what `multiple` = shuffle *
    2**(len(widths) - 1) does not divide is padded and cropped.

    The network predicts the damage, which is subtracted from the image and easier to learn than the image
    (Zhang et al. 2017, "Beyond a Gaussian Denoiser", DnCNN); a new network subtracts nothing. Squares of
    pixels are stacked as channels, for speed (Zhang et al. 2018, FFDNet). Between levels, kernels are as
    large as their strides, which avoids a chequerboard.

    With a gate the network has one more output channel, the logits of a mask of the damage, by which the
    subtracted part is multiplied. In evaluation a mask below a tenth is set to 0, so that undamaged pixels
    are unchanged.

    Args:
        channels: channels of the images.
        settings: widths and numbers of blocks.
        block: makes a block from (N, channels, H, W) to the same shape, for a number of channels.
    """

    def __init__(self, channels: int, settings: UShapeSettings, block: Callable[[int], nn.Module]) -> None:
        widths, shuffle = settings.widths, settings.shuffle
        super().__init__(channels, shuffle * 2 ** (len(widths) - 1))
        self.shuffle = shuffle

        def level(width: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(block(width) for _ in range(blocks)))

        steps = list(pairwise(widths))
        self.gate = settings.gate
        self.head = conv3x3(channels * shuffle**2, widths[0], bias=settings.bias)
        self.inward = nn.ModuleList(level(width, settings.blocks) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=settings.bias) for a, b in steps)
        self.middle = level(widths[-1], settings.middle)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2, bias=settings.bias) for a, b in reversed(steps)
        )
        self.outward = nn.ModuleList(level(width, settings.blocks) for width in widths[-2::-1])
        self.tail = conv3x3(widths[0], (channels + settings.gate) * shuffle**2, bias=settings.bias)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    @overload
    def forward(self, images: torch.Tensor, *, parts: Literal[False] = False) -> torch.Tensor: ...

    @overload
    def forward(self, images: torch.Tensor, *, parts: Literal[True]) -> tuple[torch.Tensor, torch.Tensor]: ...

    def forward(
        self, images: torch.Tensor, *, parts: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return `images`, restored; with `parts` also the logits of the mask, (N, 1, H, W), if the network
        has a gate."""
        both = self.run_padded(self._restore_with_mask, images)
        restored, logits = both[:, : self.channels], both[:, self.channels :]
        return (restored, logits) if parts else restored

    def restore(self, images: torch.Tensor) -> torch.Tensor:
        return self._restore_with_mask(images)[:, : self.channels]

    def _restore_with_mask(self, images: torch.Tensor) -> torch.Tensor:
        if not self.gate:
            return images - self.damage(images)
        both = self.damage(images)
        damage, logits = both[:, : self.channels], both[:, self.channels :]
        mask = torch.sigmoid(logits)
        if not self.training:
            mask = mask * (mask >= _LEAST_MASK)
        return torch.cat([images - mask * damage, logits], dim=1)

    def damage(self, images: torch.Tensor) -> torch.Tensor:
        """Return the predicted damage of `images`, (N, C, H, W), H and W multiples of `multiple`; with a
        gate also the logits of its mask, as one more channel."""
        x = self.head(F.pixel_unshuffle(images, self.shuffle))
        skips = []
        for blocks, down in zip(self.inward, self.down, strict=True):
            skips.append(blocks(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, blocks in zip(self.up, self.outward, strict=True):
            x = blocks(up(x) + skips.pop())
        return F.pixel_shuffle(self.tail(x), self.shuffle)


class ConvBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3 (Lim et al. 2017, EDSR).

    The second convolution is initialised to a fifth of its scale, so that sums over many blocks stay small.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        last = init_he(conv3x3(channels, channels, bias=bias))
        with torch.no_grad():
            last.weight.mul_(0.2)
        self.layers = nn.Sequential(
            init_he(conv3x3(channels, channels, bias=bias)), nn.ReLU(inplace=True), last
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refine `x`."""
        result: torch.Tensor = x + self.layers(x)
        return result


class ResidualUNet(UShape):
    """A U shape of residual blocks; see `UShape`.

    Without biases (the default) twice the image gives twice the result, so that training on one noise level
    generalises to others (Mohan et al. 2020, "Robust and Interpretable Blind Image Denoising via Bias-Free
    Convolutional Neural Networks"). Damage that is recognised by its brightness, such as a stamp, needs
    biases. An output pixel depends only on its neighbourhood.

    Parameters for gray with the defaults: 1,042,688 =
      blocks 18 * (4 * 32^2 + 4 * 64^2 + 2 * 128^2)       = 958,464
      down and up 2 * 4 * (32*64 + 64*128)                =  81,920
      first and last 2 * 9 * 4*32                         =   2,304
    48,704 multiply-accumulates per pixel, 49,856 for colour.

    Args:
        channels: channels of the images.
        settings: widths and numbers of blocks.
    """

    def __init__(self, channels: int, settings: ResidualUNetSettings) -> None:
        super().__init__(channels, settings, partial(ConvBlock, bias=settings.bias))


def conv3x3(before: int, after: int, *, bias: bool) -> nn.Conv2d:
    """Return a 3x3 convolution that preserves height and width."""
    return nn.Conv2d(before, after, 3, padding=1, bias=bias)
