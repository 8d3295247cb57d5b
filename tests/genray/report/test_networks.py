import xml.etree.ElementTree as ET

import torch
from torch import nn

from genray.models.summary import Layer, NetworkSummary
from genray.report.networks import draw_network

SVG = "{http://www.w3.org/2000/svg}"


def test_stages_are_bars_as_wide_as_their_features_are_large() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ConvTranspose2d(8, 1, 4, 4)
    )
    drawing = draw_network(NetworkSummary.of(network, [torch.zeros(2, 1, 32, 32)]))
    root = ET.fromstring(drawing.svg)
    widths = [int(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")]
    assert len(widths) == 3, "a convolution and its ReLU are one stage"
    assert widths[1] < widths[0] < widths[2]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "16 x 16 x 4" in texts
    assert "40: Conv2d, ReLU" in texts


def test_names_are_text_and_long_networks_are_cut() -> None:
    layers = [Layer(f"<b>&\x00.{i}", "Odd", (i + 1, 4, 4), 1) for i in range(200)]
    drawing = draw_network(NetworkSummary(layers, 200))
    root = ET.fromstring(drawing.svg)
    assert len(list(root.iter(f"{SVG}rect"))) == 60
    assert "140 stages in the middle are not drawn" in [text.text for text in root.iter(f"{SVG}text")]


def test_nothing_is_drawn_of_a_network_without_layers() -> None:
    assert "<rect" not in draw_network(NetworkSummary([], 0)).svg


def test_networks_of_unknown_shapes_are_drawn() -> None:
    drawing = draw_network(NetworkSummary.of(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))))
    assert len(list(ET.fromstring(drawing.svg).iter(f"{SVG}rect"))) == 1
