"""The dense autoencoder in NumPy, from its equations: forward, backward and Adam.

It is an independent check of the network in torch: same weights, same gradients. The functions on arrays
contain all of its mathematics; the classes let torch's data, losses and loop use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from genray.models.autoencoder import Autoencoder, DenseAutoencoder, DenseSettings, Shape, Widths
from genray.settings.base import Settings

Array = NDArray[Any]  # float32 or float64: every function preserves the type


@dataclass
class Layer:
    """a = f(x W^T + b): weight W (out, in), bias b (out,), and the name of f."""

    weight: Array
    bias: Array
    activation: Literal["linear", "relu", "sigmoid"] = "linear"


def forward(layers: Sequence[Layer], x: Array) -> list[Array]:
    """Return the features of every layer for `x`, (N, in): [a_0, a_1, ..., a_L], the last one being the
    result.

        a_0 = x,   z_l = a_(l-1) W_l^T + b_l,   a_l = f_l(z_l)
    with relu(z) = max(0, z) and sigmoid(z) = 1 / (1 + e^-z).
    """
    features = [x]
    for layer in layers:
        z = features[-1] @ layer.weight.T + layer.bias
        if layer.activation == "relu":
            z = np.maximum(z, 0)
        elif layer.activation == "sigmoid":
            small = np.exp(-np.abs(z))  # at most 1: e^-z itself overflows for z < -88 in float32
            z = np.where(z >= 0, 1, small) / (1 + small)
        features.append(z)
    return features


def backward(
    layers: Sequence[Layer], features: Sequence[Array], gradient: Array, *, to_input: bool = True
) -> tuple[list[tuple[Array, Array]], Array | None]:
    """Return the gradients of a loss E, given `gradient` = dE/da_L (N, out) and the `features` of `forward`.

        delta_l    = dE/da_l * f_l'(z_l)      relu' = [a > 0],  sigmoid' = a (1 - a),  linear' = 1
        dE/dW_l    = delta_l^T a_(l-1)
        dE/db_l    = sum of delta_l over the batch
        dE/da_(l-1) = delta_l W_l

    Returns:
        (dE/dW, dE/db) of each layer, first to last, and dE/dx (None unless `to_input`).
    """
    gradients: list[tuple[Array, Array]] = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        a = features[index + 1]
        if layer.activation == "relu":
            delta = gradient * (a > 0)
        elif layer.activation == "sigmoid":
            delta = gradient * (a * (1 - a))
        else:
            delta = gradient
        gradients.append((delta.T @ features[index], delta.sum(axis=0)))
        if index or to_input:
            gradient = delta @ layer.weight
    return gradients[::-1], gradient if to_input else None


def adam(
    weights: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    step: int,
    *,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Take step number `step` (from 1) of Adam, in place on `weights`, `mean` and `square`, all of one shape.

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
        w = w - rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
    Source: Kingma & Ba 2015, algorithm 1. Weight decay is added to the gradient, g + decay * w, or
    `decoupled` from it, w - rate * decay * w (AdamW, Loshchilov & Hutter 2019, algorithm 2).
    """
    beta1, beta2 = betas
    if decoupled:
        weights *= 1 - rate * weight_decay
    elif weight_decay:
        gradient = gradient + weight_decay * weights
    mean *= beta1
    mean += (1 - beta1) * gradient
    square *= beta2
    square += (1 - beta2) * gradient * gradient
    spread = np.sqrt(square) / (1 - beta2**step) ** 0.5 + eps
    weights -= rate / (1 - beta1**step) * mean / spread


class NumpySettings(Settings):
    """Settings of the dense autoencoder in NumPy."""

    kind: Literal["numpy"] = Field("numpy", description="dense autoencoder computed by NumPy, on a CPU")
    latent: int = Field(64, ge=1, le=16384, description="length of a code")
    hidden: Widths = Field(
        (1024, 512),
        max_length=8,
        description=(
            "widths of the encoder's hidden layers, mirrored in the decoder ([]: no hidden "
            "layer, as in the tutorials)"
        ),
    )
    activation: Literal["relu"] = Field("relu", description="activation function of the hidden layers")


class NumpyAutoencoder(Autoencoder):
    """`DenseAutoencoder` with its layers computed by `forward` and `backward`; on a CPU.

    Shapes: (N, C, H, W) in [0, 1] -> (N, latent) -> (N, C, H, W) in [0, 1]. Weights have the names and
    shapes of the dense one's, so that either can load the other's.

    Args:
        shape: channels, height and width of the images.
        settings: widths.

    Raises:
        ValueError: used on a device other than a CPU.
    """

    def __init__(self, shape: Shape, settings: NumpySettings) -> None:
        super().__init__(shape, settings.latent)
        dense = DenseAutoencoder(
            shape, DenseSettings(latent=settings.latent, hidden=settings.hidden, activation="relu")
        )
        self.encoder = NumpyLayers(dense.encoder.children())
        self.decoder = NumpyLayers(dense.decoder.children())


class NumpyLayers(nn.Sequential):
    """Container of torch's layers, computed by NumPy: Flatten, Linear, ReLU, Sigmoid, Unflatten."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__(*layers)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (N, ...) to (N, out), unflattened by the last layer if it does so."""
        _on_cpu(input)
        weights = [tensor for m in self if isinstance(m, nn.Linear) for tensor in (m.weight, m.bias)]
        flat = input.flatten(1).to(weights[0].dtype)
        result: torch.Tensor = _LayersFunction.apply(self, flat, *weights)
        last = self[-1]
        return last(result) if isinstance(last, nn.Unflatten) else result

    def layers(self) -> list[Layer]:
        """Return the layers on arrays that share the parameters' memory."""
        layers: list[Layer] = []
        for module in self:
            if isinstance(module, nn.Linear):
                layers.append(Layer(module.weight.detach().numpy(), module.bias.detach().numpy()))
            elif isinstance(module, nn.ReLU):
                layers[-1].activation = "relu"
            elif isinstance(module, nn.Sigmoid):
                layers[-1].activation = "sigmoid"
        return layers


class _LayersFunction(torch.autograd.Function):
    """`forward` and `backward` as one operation of torch's graph."""

    @staticmethod
    def forward(ctx: Any, module: NumpyLayers, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*weights)  # torch detects changes before the backward pass
        ctx.layers = module.layers()
        ctx.features = forward(ctx.layers, x.detach().numpy())
        return torch.from_numpy(ctx.features[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        _ = ctx.saved_tensors  # raises if a weight has changed meanwhile
        to_input = ctx.needs_input_grad[1]
        pairs, gradient = backward(ctx.layers, ctx.features, gradients[0].numpy(), to_input=to_input)
        of_weights = [torch.from_numpy(array) for pair in pairs for array in pair]
        return None, torch.from_numpy(gradient) if to_input else None, *of_weights


class NumpyAdam(torch.optim.Optimizer):
    """`adam` as an optimizer of torch, with the state names of torch's Adam.

    Args:
        params: parameters, or groups of them, on a CPU.
        lr: learning rate.
        betas: decay of the means of the gradient and of its square.
        eps: number added to the root of the latter.
        weight_decay: weight decay.
        decoupled: whether the decay is AdamW's, not added to the gradient.

    Raises:
        ValueError: a parameter on a device other than a CPU.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "decoupled": decoupled})
        for group in self.param_groups:
            for parameter in group["params"]:
                _on_cpu(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter with a gradient; `closure` computes the loss again, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        adam(
            parameter.numpy(),
            gradient.numpy(),
            state["exp_avg"].numpy(),
            state["exp_avg_sq"].numpy(),
            int(state["step"]),
            rate=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            decoupled=group["decoupled"],
        )
        torch.autograd.graph.increment_version(parameter)  # torch cannot detect NumPy's writes


def _on_cpu(tensor: torch.Tensor) -> None:
    if tensor.device.type != "cpu":
        raise ValueError(f"NumPy computes on the CPU, not on {tensor.device}: set device.gpu=false")
