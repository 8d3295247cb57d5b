"""Random numbers for the damage of a batch of images."""

from __future__ import annotations

import torch


class Sampler:
    """Source of random tensors for a batch: drawn on the generator's device, moved to that of the images."""

    def __init__(self, images: torch.Tensor, generator: torch.Generator | None) -> None:
        self.target = images.device
        self._count = len(images)
        self._generator = generator
        self._source = images.device if generator is None else generator.device

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self._generator, device=self._source).to(self.target)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self._source).to(self.target)

    def poisson(self, mean: torch.Tensor) -> torch.Tensor:
        # Contiguous, because torch assigns the draws in the order of memory.
        return torch.poisson(mean.to(self._source).contiguous(), generator=self._generator).to(self.target)

    def strength(self, bounds: float | tuple[float, float]) -> torch.Tensor:
        """Draw a strength for each image, (N, 1, 1, 1), uniformly within `bounds`."""
        low, high = bounds if isinstance(bounds, tuple) else (bounds, bounds)
        return low + (high - low) * self.uniform(self._count, 1, 1, 1)

    def number(self) -> float:
        """Draw a number from 0 to 1. It is drawn on the CPU: reading one from a GPU would wait for it."""
        return float(torch.rand((), generator=self._on_cpu))

    def order(self, count: int) -> list[int]:
        """Draw an order of `count` things, on the CPU."""
        return torch.randperm(count, generator=self._on_cpu).tolist()

    @property
    def _on_cpu(self) -> torch.Generator | None:
        return self._generator if self._source.type == "cpu" else None
