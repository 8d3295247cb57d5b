"""The small convolutional network that measures read images with: classes, and features."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

FEATURES = 64
_LARGEST_SIDE = 64  # pixels: larger images are averaged, or 128 px would cost 4 times as much
_CHANNELS = (32, 64, 128)
_GRID = 4  # cells a side that features are pooled to, whatever the size of the images
_BATCHES = (8, 128)  # smallest and largest batch
_LEAST_STEPS = 60  # steps of a training, however few images there are
_BATCH_IN_USE = 256
_RATE = 4e-3  # of AdamW, at the top of the cycle
_SMOOTHING = 0.05  # of the labels: keeps features of training images from growing without limit


class Classifier(nn.Module):
    """Classifies images, and describes each by the features before the last layer.

    Shapes: (N, C, H, W) in [0, 1] -> (N, 64) features -> (N, classes) logits. Images above 64 pixels are
    averaged to 64.

    Args:
        channels: channels of the images.
        classes: number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        layers: list[nn.Module] = []
        for number, width in enumerate(_CHANNELS):
            size = 3 if number else 5
            layers += [
                nn.Conv2d(channels, width, size, stride=2, padding=size // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        pooled = [nn.AdaptiveAvgPool2d(_GRID), nn.Flatten()]
        self.body = nn.Sequential(*layers, *pooled, nn.Linear(channels * _GRID**2, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (N, 64) of `images`."""
        features: torch.Tensor = self.body(shrink(images, _LARGEST_SIDE) - 0.5)
        return features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of `images`."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits

    @torch.inference_mode()
    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (N, 64) and classes (N,) of many images on the CPU: uint8, or floats in [0, 1].

        The network moves to the device of `images`.
        """
        self.to(images.device).eval()
        features, classes = [], []
        with _full_precision(images):
            for batch in torch.split(images, _BATCH_IN_USE):
                found = self.features(as_unit(batch))
                features.append(found.cpu())
                classes.append(self.head(found).argmax(dim=1).cpu())
        return torch.cat(features), torch.cat(classes)


def train_classifier(
    images: torch.Tensor, labels: torch.Tensor, classes: int, epochs: int, seed: int
) -> Classifier:
    """Train a classifier, with AdamW and one cycle of the learning rate (Smith & Topin 2017).

    Args:
        images: (N, C, H, W) uint8, N at least 2.
        labels: (N,) int64, below `classes`.
        classes: number of classes.
        epochs: passes over the images, more if these are fewer than 60 steps.
        seed: seed of the weights and of the order; torch's global generator is left as it is.
    """
    rng = np.random.default_rng(seed)
    batch = min(max(len(images) // 32, _BATCHES[0]), _BATCHES[1], len(images))
    batches = len(images) // batch
    epochs = max(epochs, -(-_LEAST_STEPS // batches))
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
        _full_precision(images),
    ):
        torch.manual_seed(seed)
        network = Classifier(images.shape[1], classes).to(images.device)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * batches)
        network.train()
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(len(images))[: batches * batch])
            for chosen in torch.split(order.to(images.device), batch):
                logits = network(as_unit(images[chosen]))
                loss = F.cross_entropy(logits, labels[chosen], label_smoothing=_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return network.requires_grad_(False).eval()


def _full_precision(images: torch.Tensor) -> torch.autocast:
    """Return a context without autocast: measures do not depend on the precision of what is measured."""
    return torch.autocast(images.device.type, enabled=False)


def as_unit(images: torch.Tensor) -> torch.Tensor:
    """Return images as float32 in [0, 1]; uint8 is divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def shrink(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return (N, C, H, W) averaged until the longer side is `side` pixels; smaller images stay."""
    height, width = images.shape[2:]
    scale = side / max(height, width)
    if scale >= 1:
        return images
    return F.adaptive_avg_pool2d(images, (max(1, round(height * scale)), max(1, round(width * scale))))
