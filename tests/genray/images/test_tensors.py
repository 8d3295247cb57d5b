import numpy as np
import torch

from genray.images.tensors import to_network, to_pixels


def test_pixels_survive_the_way_to_the_network_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    tensor = to_network(images)
    assert tensor.shape == (1, 1, 16, 16)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    assert np.array_equal(to_pixels(tensor), images)


def test_values_out_of_range_are_clamped() -> None:
    assert to_pixels(torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]
