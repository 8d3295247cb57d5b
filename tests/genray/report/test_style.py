import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from genray.report.style import COLOURS, DPI, MARKERS, label, render, styled


def test_a_style_ends_with_its_block_and_heeds_no_one_elses_settings() -> None:
    drawn = []
    for family in ("serif", "monospace"):
        with matplotlib.rc_context({"font.family": family, "axes.grid": False}):
            before = dict(matplotlib.rcParams)
            with styled():
                figure = Figure(figsize=(2, 1))
                figure.add_subplot(title="words")
                drawn.append(render(figure))
            assert dict(matplotlib.rcParams) == before
    assert drawn[0].shape == (DPI, 2 * DPI, 3)
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("name", ["$x^$", "_hidden", "a\nb\x00", "\ud83d", "日本", "x" * 500, "%s\\"])
def test_any_name_can_be_drawn(name: str) -> None:
    with styled():
        figure = Figure(figsize=(3, 2))
        axes = figure.add_subplot(title=label(name))
        axes.plot([1, 2], label=label(name))
        axes.legend()
        assert render(figure).std() > 5
    assert len(label(name)) <= 41
    assert not label(name).startswith("_")


def test_there_is_a_mark_for_each_colour() -> None:
    assert len(set(COLOURS)) == len(set(MARKERS)) == 10
