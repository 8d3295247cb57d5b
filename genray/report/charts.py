"""Charts of numbers: latent spaces, correlations, errors, rates and curves, each as (H, W, 3) uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genray.images.pixels import Pixels
from genray.report.style import COLOURS, FAINT, INK, LINE, MARKERS, label, render, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[Any] | Sequence[float]


def draw_scatter(
    points: NDArray[Any] | Mapping[str, NDArray[Any]],
    labels: NDArray[Any] | None = None,
    names: Sequence[str] = (),
    title: str = "",
) -> Pixels:
    """Draw samples as points in two dimensions, such as a latent space after PCA, coloured by label.

    Of more than ten labels the ten most frequent have colours; the others are gray.

    Args:
        points: (N, 2), or such arrays by the titles of their panels: {"PCA": ..., "t-SNE": ...}.
        labels: (N,) indices of `names` (None: one colour for all points).
        names: names of the labels.

    Raises:
        ValueError: points that are not (N, 2), or another number of labels.
    """
    panels = points if isinstance(points, Mapping) else {"": points}
    groups = _groups(labels, names)
    with styled():
        figure = _figure(4.6 * len(panels) + (1.7 if groups else 0.0), 4.6, title)
        for i, (name, cloud) in enumerate(panels.items()):
            if cloud.ndim != 2 or cloud.shape[1] != 2 or (labels is not None and len(labels) != len(cloud)):
                raise ValueError(f"points must be (N, 2) with a label for each, not {cloud.shape}")
            axes = figure.add_subplot(1, len(panels), i + 1, title=label(name))
            _draw_cloud(axes, cloud, labels, [value for value, _ in groups])
            axes.set_xlabel("first dimension")
            axes.set_ylabel("second dimension")
        if groups:
            handles = [_legend_marker(i) for i in range(len(groups))]
            figure.legend(handles, [name for _, name in groups], loc="outside right upper")
        return render(figure)


def draw_matrix(matrix: NDArray[Any], names: Sequence[str], title: str = "") -> Pixels:
    """Draw correlations between K things, from -1 (red) over 0 (white) to 1 (blue), with the numbers.

    Args:
        matrix: (K, K); values that are not finite are shown as a dash.
        names: K names.

    Raises:
        ValueError: another shape.
    """
    count = len(names)
    if matrix.shape != (count, count) or not count:
        raise ValueError(f"a matrix of {matrix.shape} with {count} names")
    ticks = [label(name, 16) for name in names]
    side = float(np.clip(0.55 * count, 2.6, 12.0))
    with styled():
        figure = _figure(side + 2.0, side + 1.2, title)
        axes = figure.add_subplot()
        image = axes.imshow(matrix, cmap="RdBu", vmin=-1.0, vmax=1.0)
        axes.set_xticks(range(count), ticks, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), ticks)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        if count <= 20:
            _write_values(axes, matrix)
        bar = figure.colorbar(image, shrink=0.8, label="correlation")
        bar.outline.set_visible(False)
        return render(figure)


def draw_distributions(
    values: Mapping[str, Numbers], threshold: float | None = None, xlabel: str = "error"
) -> Pixels:
    """Draw histograms of each group's errors, as shares of the group, with common bins.

    The last bin includes everything above it where a few large errors would compress the others.

    Args:
        values: errors by group, such as {"normal": ..., "anomalies": ...}; values that are not finite are
            left out.
        threshold: value of the line that marks the threshold.
        xlabel: quantity on the axis, with its unit.

    Raises:
        ValueError: no finite value.
    """
    finite = {name: np.asarray(v, np.float64)[np.isfinite(v)] for name, v in values.items()}
    together = np.concatenate([*finite.values(), []])
    if not together.size:
        raise ValueError("no finite values to draw")
    edges, is_cut = _bin_edges(together, threshold)
    with styled():
        figure = _figure(7.2, 3.8)
        axes = figure.add_subplot()
        for i, (name, group) in enumerate(finite.items()):
            shares = 100.0 * np.histogram(group.clip(max=edges[-1]), edges)[0] / max(1, group.size)
            colour = COLOURS[i % len(COLOURS)]
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(
                shares, edges, color=colour, linewidth=1.6, label=f"{label(name).strip()} ({group.size:,})"
            )
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", label=f"threshold {threshold:.4g}")
        axes.set_xlabel(label(xlabel) + (" (last bar: and above)" if is_cut else ""))
        axes.set_ylabel("share of the group in %")
        axes.legend()
        return render(figure)


def draw_rates(labels: Numbers, scores: Numbers) -> Pixels:
    """Draw the ROC and the precision-recall curve, with the areas under them (AUROC, AP) in the titles.

    Args:
        labels: (N,) 1 for samples to find (anomalies), 0 for others.
        scores: (N,) larger for suspected anomalies.

    Raises:
        ValueError: only one of the two labels occurs, or a score is not finite.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if len(np.unique(labels)) != 2:
        raise ValueError("rates need both labels, 0 and 1")
    false, true, _ = roc_curve(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    auroc, ap = roc_auc_score(labels, scores), average_precision_score(labels, scores)
    with styled():
        figure = _figure(8.4, 4.2)
        left = figure.add_subplot(1, 2, 1, title=f"ROC: AUROC {auroc:.3f}")
        left.plot([0, 1], [0, 1], color=FAINT, linestyle=":", label="chance")
        left.plot(false, true, color=COLOURS[0])
        left.fill_between(false, true, color=COLOURS[0], alpha=0.12, linewidth=0)
        left.set_xlabel("false positive rate")
        left.set_ylabel("true positive rate")
        right = figure.add_subplot(1, 2, 2, title=f"Precision and recall: AP {ap:.3f}")
        right.axhline(float(np.mean(labels)), color=FAINT, linestyle=":", label="chance")
        right.step(recall, precision, where="post", color=COLOURS[0])
        right.fill_between(recall, precision, step="post", color=COLOURS[0], alpha=0.12, linewidth=0)
        right.set_xlabel("recall")
        right.set_ylabel("precision")
        for axes in (left, right):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
            axes.legend(loc="lower right" if axes is left else "lower left")
        return render(figure)


def draw_tradeoff(
    curves: Mapping[str, Sequence[tuple[float | str, float]]], xlabel: str, ylabel: str, *, joined: bool
) -> Pixels:
    """Draw a number against another or against names, such as quality against latent size or cost.

    An axis of positive numbers that span more than a factor of eight is logarithmic.

    Args:
        curves: points (x, y) by the name of the curve; all x are numbers, or all are names. Points that are
            not finite are left out.
        joined: join a curve's points in the order of x.

    Raises:
        ValueError: no finite point.
    """
    points = [p for curve in curves.values() for p in curve if _is_finite(p)]
    xs = list(dict.fromkeys(x for x, _ in points))
    if not xs:
        raise ValueError("no finite values to draw")
    named = any(isinstance(x, str) for x in xs)
    places: dict[Any, Any] = {x: i if named else x for i, x in enumerate(xs)}
    with styled():
        figure = _figure(7.2, 4.2)
        axes = figure.add_subplot(xlabel=label(xlabel, 60), ylabel=label(ylabel, 60))
        for i, (name, curve) in enumerate(curves.items()):
            placed = sorted((float(places[p[0]]), p[1]) for p in curve if _is_finite(p))
            axes.plot(
                [x for x, _ in placed],
                [y for _, y in placed],
                linestyle="-" if joined and not named else "",
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                label=label(name),
            )
        if not named:
            _make_logarithmic(axes, "x", np.array(xs, np.float64))
        _make_logarithmic(axes, "y", np.array([y for _, y in points]))
        if named or len(xs) <= 8:
            ticks = [label(x if isinstance(x, str) else f"{x:g}", 24) for x in xs]
            axes.set_xticks(list(places.values()), ticks)
        if len(curves) > 1:
            axes.legend()
        return render(figure)


def draw_curves(panels: Mapping[str, Mapping[str, tuple[Numbers, Numbers]]], xlabel: str = "epoch") -> Pixels:
    """Draw curves in a panel for each quantity: {"val_l1": {"first run": (epochs, values)}}.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("no curves to draw")
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    with styled():
        figure = _figure(3.5 * columns, 2.7 * rows + 0.25 * len(names))
        handles: dict[str, Any] = {}
        for i, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, columns, i + 1, title=label(title), xlabel=label(xlabel))
            # Whole epochs only, even with a single point.
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            for name, (x, y) in curves.items():
                number = names.index(name)
                style = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
                marker = MARKERS[number % len(MARKERS)] if len(x) < 30 else None
                colour = COLOURS[number % len(COLOURS)]
                (handles[name],) = axes.plot(x, y, color=colour, linestyle=style, marker=marker, markersize=4)
        figure.legend(
            [handles[name] for name in names], [label(name) for name in names], loc="outside lower left"
        )
        return render(figure)


def _figure(width: float, height: float, title: str = "") -> Figure:
    """Return a figure of `width` x `height` hundred pixels with automatic layout."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(label(title, 80), fontsize=11.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _bin_edges(values: NDArray[np.float64], threshold: float | None) -> tuple[NDArray[np.float64], bool]:
    """Return the edges of 60 bins over the values and the threshold, and whether they end below the
    largest values, because a few values lie far above the others."""
    marks = [] if threshold is None else [threshold]
    low = float(min(values.min(), *marks, np.inf))
    high = float(values.max())
    usual = max([float(np.quantile(values, 0.995)), *(1.15 * mark for mark in marks)])
    is_cut = high - low > 2.0 * (usual - low)
    high = usual if is_cut else max(high, *marks, -np.inf)
    return np.linspace(low, high if high > low else low + 1.0, 61), is_cut


def _groups(labels: NDArray[Any] | None, names: Sequence[str]) -> list[tuple[int, str]]:
    """Return the labels that get a colour, in order, with their names."""
    if labels is None:
        return []
    values, counts = np.unique(labels, return_counts=True)
    commonest = np.sort(values[np.argsort(-counts, kind="stable")][: len(COLOURS)])
    return [
        (int(value), label(names[value] if 0 <= value < len(names) else str(value))) for value in commonest
    ]


def _draw_cloud(
    axes: Axes, cloud: NDArray[Any], labels: NDArray[Any] | None, coloured: Sequence[int]
) -> None:
    size = float(np.clip(12000.0 / max(1, len(cloud)), 5.0, 28.0))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.75}
    rest = np.ones(len(cloud), bool) if labels is None else ~np.isin(labels, coloured)
    colour = COLOURS[0] if labels is None else LINE
    axes.scatter(cloud[rest, 0], cloud[rest, 1], color=colour, **style)
    if labels is None:
        return
    for part in range(8):  # in random order, so that no group covers another
        for i, value in enumerate(coloured):
            points = cloud[labels == value][part::8]
            axes.scatter(points[:, 0], points[:, 1], color=COLOURS[i], marker=MARKERS[i], **style)


def _write_values(axes: Axes, matrix: NDArray[Any]) -> None:
    """Write the numbers into the cells of a drawn matrix."""
    for (row, column), value in np.ndenumerate(matrix):
        text = f"{value:.2f}" if np.isfinite(value) else "-"
        ink = "white" if abs(value) > 0.7 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)


def _legend_marker(number: int) -> Any:
    """Return the legend's marker of a group, larger than its points."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", color=COLOURS[number], marker=MARKERS[number], markersize=7)


def _make_logarithmic(axes: Axes, which: str, values: NDArray[Any]) -> None:
    """Make the axis `which`, x or y, logarithmic if its values are positive and span more than a factor of
    eight."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if values.min() <= 0 or values.max() < 8 * values.min():
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


def _is_finite(point: tuple[float | str, float]) -> bool:
    return all(isinstance(value, str) or np.isfinite(value) for value in point)
