from copy import deepcopy

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from genray.models.autoencoder import DenseAutoencoder, DenseSettings
from genray.models.numpy_dense import (
    Layer,
    NumpyAdam,
    NumpyAutoencoder,
    NumpySettings,
    adam,
    backward,
    forward,
)

SHAPE = (2, 5, 4)
SOME = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))
depths = pytest.mark.parametrize("hidden", [(), (16,), (24, 12), (24, 16, 12)], ids=len)


def train(network: NumpyAutoencoder, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Some steps towards SOME, in the type of the network; returns their losses."""
    images = SOME.to(next(network.parameters()).dtype)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = network(images).sub(images).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def pair(hidden: tuple[int, ...]) -> tuple[NumpyAutoencoder, DenseAutoencoder]:
    """The NumPy network and the torch one with the same weights."""
    torch.manual_seed(0)
    ours = NumpyAutoencoder(SHAPE, NumpySettings(hidden=hidden, latent=6))
    torchs = DenseAutoencoder(SHAPE, DenseSettings(hidden=hidden, latent=6, activation="relu"))
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


@depths
def test_every_gradient_is_autograds(hidden: tuple[int, ...]) -> None:
    gradients = []
    for network in pair(hidden):
        network.double()
        images = SOME.double().requires_grad_()
        network(images).sub(0.3).square().mean().backward()
        gradients.append({**{n: p.grad for n, p in network.named_parameters()}, "images": images.grad})
    ours, torchs = gradients
    assert ours.keys() == torchs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], torchs[name], rtol=1e-6, atol=1e-12)


@depths
def test_the_torch_network_takes_its_weights_and_gives_its_images(hidden: tuple[int, ...]) -> None:
    ours, torchs = (network.double() for network in pair(hidden))
    images = torch.rand(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(ours.encode(images), torchs.encode(images))
    torch.testing.assert_close(ours(images), torchs(images))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_arrays_keep_their_type(kind: str) -> None:
    rng = np.random.default_rng(0)
    layers = [
        Layer(rng.normal(size=(4, 3)).astype(kind), np.zeros(4, kind), "relu"),
        Layer(rng.normal(size=(2, 4)).astype(kind), np.zeros(2, kind), "sigmoid"),
    ]
    x = rng.normal(size=(5, 3)).astype(kind)
    features = forward(layers, x)
    gradients, to_input = backward(layers, features, np.ones((5, 2), kind))
    arrays = [*features, *(array for both in gradients for array in both), to_input]
    assert [array.shape for array in arrays if array is not None] == [
        (5, 3), (5, 4), (5, 2), (4, 3), (4,), (2, 4), (2,), (5, 3),
    ]  # fmt: skip
    assert all(array is not None and array.dtype == kind for array in arrays)
    assert backward(layers, features, np.ones((5, 2), kind), to_input=False)[1] is None


def test_a_sigmoid_of_anything_is_quiet_and_between_0_and_1() -> None:
    layer = Layer(np.ones((1, 1), np.float32), np.zeros(1, np.float32), "sigmoid")
    result = forward([layer], np.array([[-1e4], [0.0], [1e4]], np.float32))[-1]
    assert result.ravel().tolist() == [0.0, 0.5, 1.0]


def test_the_first_step_of_adam_is_the_rate_against_the_gradient() -> None:
    weights, mean, square = np.zeros(3), np.zeros(3), np.zeros(3)
    adam(weights, np.array([4.0, -0.1, 7.0]), mean, square, 1, rate=0.01)
    np.testing.assert_allclose(weights, [-0.01, 0.01, -0.01], rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("decoupled", [False, True])
def test_ten_steps_are_those_of_torchs_adam(decay: float, decoupled: bool) -> None:
    ours, theirs = pair((8,))[0].double(), pair((8,))[0].double()
    rate, betas, eps = 1e-2, (0.8, 0.99), 1e-7
    train(ours, NumpyAdam(ours.parameters(), rate, betas, eps, decay, decoupled), 10)
    reference = torch.optim.AdamW if decoupled else torch.optim.Adam
    train(theirs, reference(theirs.parameters(), rate, betas, eps, decay), 10)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-10, atol=1e-12)


def test_training_goes_on_from_a_saved_state() -> None:
    straight, _ = pair((8,))
    optimizer = NumpyAdam(straight.parameters())
    train(straight, optimizer, 3)
    weights, state = deepcopy((straight.state_dict(), optimizer.state_dict()))
    assert state["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    train(straight, optimizer, 3)

    resumed, _ = pair((8,))
    resumed.load_state_dict(weights)
    optimizer = NumpyAdam(resumed.parameters())
    optimizer.load_state_dict(state)
    train(resumed, optimizer, 3)
    assert all(torch.equal(t, resumed.state_dict()[name]) for name, t in straight.state_dict().items())


def test_four_images_are_learned_by_heart_in_numpy_alone() -> None:
    network, _ = pair((16,))
    losses = train(network, NumpyAdam(network.parameters(), lr=1e-2), 200)
    assert losses[-1] < losses[0] / 50


def test_weights_that_change_under_a_gradient_are_noticed() -> None:
    network, _ = pair((8,))
    optimizer = NumpyAdam(network.parameters())
    late = network(SOME).sum()
    train(network, optimizer, 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        late.backward()


def test_another_device_is_refused() -> None:
    with torch.device("meta"):
        network = NumpyAutoencoder(SHAPE, NumpySettings(hidden=(8,), latent=6))
        images = torch.rand(1, *SHAPE)
    with pytest.raises(ValueError, match="computes on the CPU, not on meta"):
        network(images)
    with pytest.raises(ValueError, match=r"set device\.gpu=false"):
        NumpyAdam(network.parameters())


def test_activations_that_it_has_no_equations_for_are_refused() -> None:
    with pytest.raises(ValidationError):
        NumpySettings.model_validate({"activation": "gelu"})
