"""What generated images are compared with: a classifier of the data, and features of some of its images."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from genray.errors import DataError
from genray.io.files import atomic_write
from genray.measures.classifier import Classifier, as_unit, shrink, train_classifier
from genray.measures.distances import nearest_distances
from genray.settings.base import Settings

LEAST_IMAGES = 16
MOST_COMPARED = 4000
"""Images of the data, and samples, whose features and pixels are compared with each other."""
_MOST_MODES = 10_000
_DUPLICATE_SIDE = 16  # pixels: enough to tell images apart, and fast
_REAL_DUPLICATES = 0.01  # of the real images have a nearest other one within the radius of duplicates
_CLUSTER_CODES = 50  # principal components
_TO_CLUSTER = 10_000  # images
_FORMAT = 1
_NETWORK = "classifier/"


class MeasureSettings(Settings):
    """Settings of the measures of generated images."""

    images: int = Field(
        30_000,
        ge=LEAST_IMAGES,
        description="largest number of images that the classifier of the measures is trained on",
    )
    epochs: int = Field(
        3, ge=1, le=1000, description="epochs of the training of the classifier (at least 60 steps)"
    )
    clusters: int = Field(
        10, ge=2, le=1000, description="number of clusters that stand for the classes of data without labels"
    )
    neighbours: int = Field(
        5,
        ge=1,
        le=100,
        description="number of neighbours within the radius of density and coverage",
    )


@dataclass(frozen=True, eq=False)
class DataReference:
    """What of a data set generated images are compared with.

    Attributes:
        classifier: network that reads classes and features.
        shape: channels, height and width of the images.
        per_channel: whether each channel is classified by itself, as in Stacked MNIST: a mode is one class in
            each.
        shares: share of each mode in the data, (modes,).
        features: features of images of the data, (R, features).
        held_out: features of other images, (H, features).
        accuracy: share of the images of `features` whose class the classifier reads correctly; without
            labels, whose cluster.
        radius: distance within which two images are near-identical, of pixels averaged to 16 a side: 1 % of
            the images of `features` have another one within it.
    """

    classifier: Classifier
    shape: tuple[int, int, int]
    per_channel: bool
    shares: torch.Tensor
    features: torch.Tensor
    held_out: torch.Tensor
    accuracy: float
    radius: float

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features (N, features) and modes (N,) of images, uint8 or in [0, 1]; on the CPU."""
        return _read(self.classifier, images, self.per_channel)

    def near_share(self, images: torch.Tensor) -> float:
        """Return the share of images (N, C, H, W) in [0, 1] that have a near-identical other one."""
        return float((nearest_distances(_small(images)) <= self.radius).double().mean())

    def write(self, path: Path) -> None:
        """Write to `path` atomically: tensors as safetensors, the rest as JSON in the file's header.

        Raises:
            StorageFull: no space.
        """
        tensors = {f"{_NETWORK}{name}": value.cpu() for name, value in self.classifier.state_dict().items()}
        tensors |= {"shares": self.shares, "features": self.features, "held_out": self.held_out}
        header = {
            "format": _FORMAT,
            "shape": self.shape,
            "per_channel": self.per_channel,
            "classes": self.classifier.classes,
            "accuracy": self.accuracy,
            "radius": self.radius,
        }
        with atomic_write(path) as temporary:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()},
                temporary,
                metadata={"measures": json.dumps(header)},
            )


def read_reference(path: Path) -> DataReference | None:
    """Read what `DataReference.write` wrote; None if it is missing or damaged, as it can be fitted again."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["measures"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != _FORMAT:
            return None
        shape, per_channel = tuple(header["shape"]), header["per_channel"]
        network = Classifier(1 if per_channel else shape[0], header["classes"])
        network.load_state_dict(
            {k.removeprefix(_NETWORK): v for k, v in tensors.items() if k.startswith(_NETWORK)}
        )
        return DataReference(
            network.requires_grad_(False).eval(),
            shape,
            per_channel,
            tensors["shares"],
            tensors["features"],
            tensors["held_out"],
            header["accuracy"],
            header["radius"],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return None


def fit_reference(
    images: torch.Tensor,
    labels: torch.Tensor | None,
    held_out: torch.Tensor | None,
    seed: int,
    settings: MeasureSettings,
) -> DataReference:
    """Train the classifier on a part of the data, and describe another; see `ImageMeasures.fit`."""
    compared = min(MOST_COMPARED, len(images) // 4)
    apart = compared if held_out is not None else 2 * compared
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(len(images)))[: apart + settings.images]
    chosen = images[order.to(images.device)]
    if held_out is None:
        held_out = chosen[compared:apart]
    else:
        held_out = held_out[torch.from_numpy(rng.permutation(len(held_out)))[:MOST_COMPARED]]
    if labels is None:
        labels = chosen_labels = _clusters(chosen, settings.clusters, seed)
    else:
        chosen_labels = labels[order]
    per_channel = labels.ndim == 2
    classes = int(labels.max()) + 1
    counts = torch.bincount(
        _modes(labels, classes), minlength=classes ** (labels.shape[1] if per_channel else 1)
    ).double()
    trained = chosen[apart:]
    network = train_classifier(
        trained.flatten(0, 1)[:, None] if per_channel else trained,
        chosen_labels[apart:].flatten().to(images.device),
        classes,
        settings.epochs,
        seed,
    )
    features, modes = _read(network, chosen[:compared], per_channel)
    near = nearest_distances(_small(chosen[:compared]))
    return DataReference(
        network,
        (int(images.shape[1]), int(images.shape[2]), int(images.shape[3])),
        per_channel,
        counts / counts.sum(),
        features,
        _read(network, held_out, per_channel)[0],
        accuracy=float((modes == _modes(chosen_labels[:compared], classes)).double().mean()),
        radius=float(near.quantile(_REAL_DUPLICATES)),
    )


def check_data(images: torch.Tensor, labels: torch.Tensor | None, held_out: torch.Tensor | None) -> None:
    """Refuse data that cannot be fitted.

    Raises:
        DataError: too few images, or too many classes.
        ValueError: tensors of other shapes or types than `ImageMeasures.fit` takes.
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not uint8 (N, C, H, W)")
    if len(images) < LEAST_IMAGES:
        raise DataError(
            f"{len(images)} images are too few to measure generated ones against, {LEAST_IMAGES} are needed",
            hint="train on more images",
        )
    if held_out is not None and (held_out.dtype != torch.uint8 or held_out.shape[1:] != images.shape[1:]):
        raise ValueError(f"held-out images are {held_out.dtype} {tuple(held_out.shape)}, unlike the images")
    if labels is None:
        return
    if labels.shape not in (images.shape[:1], images.shape[:2]) or int(labels.min()) < 0:
        raise ValueError(
            f"labels are {tuple(labels.shape)}, from {int(labels.min())} on, of images {tuple(images.shape)}"
        )
    classes, channels = int(labels.max()) + 1, labels.shape[1] if labels.ndim == 2 else 1
    if classes**channels > _MOST_MODES:
        raise DataError(f"{classes**channels} classes are too many to measure, at most {_MOST_MODES}")


def hash_of(settings: MeasureSettings, seed: int, *tensors: torch.Tensor | None) -> str:
    """Return a hash of all that a reference depends on."""
    digest = hashlib.sha256(f"{seed} {settings.model_dump_json()}".encode())
    for tensor in tensors:
        digest.update(f"{None if tensor is None else tuple(tensor.shape)}".encode())
        if tensor is not None:
            digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _clusters(images: torch.Tensor, clusters: int, seed: int) -> torch.Tensor:
    """Return the clusters (N,) of images, by k-means on their principal components."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning

    pixels = _small(images).numpy()
    fitted = pixels[:_TO_CLUSTER]
    distinct = len(np.unique(fitted, axis=0))
    if distinct < 2:
        return torch.zeros(len(images), dtype=torch.int64)
    pca = PCA(min(_CLUSTER_CODES, *fitted.shape), svd_solver="covariance_eigh").fit(fitted)
    codes = pca.transform(pixels)
    means = KMeans(min(clusters, distinct), n_init=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different codes than clusters
        means.fit(codes[:_TO_CLUSTER])
    return torch.from_numpy(means.predict(codes)).long()


def _read(
    classifier: Classifier, images: torch.Tensor, per_channel: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    features, classes = classifier.read(images.flatten(0, 1)[:, None] if per_channel else images)
    if not per_channel:
        return features, classes
    shape = (len(images), images.shape[1])
    return features.reshape(shape[0], -1), _modes(classes.reshape(shape), classifier.classes)


def _modes(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return labels (N,) as they are, and (N, C) as the number whose digits they are."""
    if labels.ndim == 1:
        return labels
    return (labels * classes ** torch.arange(labels.shape[1] - 1, -1, -1)).sum(dim=1)


def _small(images: torch.Tensor) -> torch.Tensor:
    """Return images (N, C, H, W), uint8 or in [0, 1], as vectors of pixels averaged to at most 16 a side, on
    the CPU."""
    return torch.cat(
        [shrink(as_unit(part), _DUPLICATE_SIDE).flatten(1).cpu() for part in torch.split(images, 1000)]
    )
