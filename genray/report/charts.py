"""Drawings of numbers: latent spaces, correlations, errors, rates and curves. All give (H, W, 3) uint8."""

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
    """Samples as points in two dimensions, such as a latent space after PCA, coloured by their labels.

    Of more than ten labels the ten most frequent have colours; the rest is gray.

    Args:
        points: (N, 2), or several such by the titles of their panels: {"PCA": ..., "t-SNE": ...}.
        labels: (N,) whole numbers, indices of `names`; None: all points are alike.
        names: of the labels.

    Raises:
        ValueError: points that are not (N, 2), or labels of another number.
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
            looks = [_dot(i) for i in range(len(groups))]
            figure.legend(looks, [name for _, name in groups], loc="outside right upper")
        return render(figure)


def draw_matrix(matrix: NDArray[Any], names: Sequence[str], title: str = "") -> Pixels:
    """Correlations between K things, from -1 (red) over 0 (white) to 1 (blue), with the numbers.

    Args:
        matrix: (K, K); what is not finite is shown as a dash.
        names: K of them.

    Raises:
        ValueError: another shape.
    """
    count = len(names)
    if matrix.shape != (count, count) or not count:
        raise ValueError(f"a matrix of {matrix.shape} with {count} names")
    words = [label(name, 16) for name in names]
    side = float(np.clip(0.55 * count, 2.6, 12.0))
    with styled():
        figure = _figure(side + 2.0, side + 1.2, title)
        axes = figure.add_subplot()
        image = axes.imshow(matrix, cmap="RdBu", vmin=-1.0, vmax=1.0)
        axes.set_xticks(range(count), words, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), words)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        for (row, column), value in np.ndenumerate(matrix) if count <= 20 else ():
            text = f"{value:.2f}" if np.isfinite(value) else "-"
            ink = "white" if abs(value) > 0.7 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
        bar = figure.colorbar(image, shrink=0.8, label="correlation")
        bar.outline.set_visible(False)
        return render(figure)


def draw_distributions(
    values: Mapping[str, Numbers], threshold: float | None = None, xlabel: str = "error"
) -> Pixels:
    """How often each error occurs in each group, as shares of the group, on the same bins.

    The last bin holds everything above it too where a few errors would else squeeze the rest.

    Args:
        values: the errors by group, such as {"normal": ..., "anomalies": ...}; of them the finite ones.
        threshold: shown as a line, with its value.
        xlabel: what is counted, with its unit.

    Raises:
        ValueError: no finite value.
    """
    finite = {name: np.asarray(v, np.float64)[np.isfinite(v)] for name, v in values.items()}
    whole = np.concatenate([*finite.values(), []])
    if not whole.size:
        raise ValueError("no finite values to draw")
    marks = [] if threshold is None else [threshold]
    low, high = float(min(whole.min(), *marks, np.inf)), float(whole.max())
    most = max([float(np.quantile(whole, 0.995)), *(1.15 * mark for mark in marks)])
    cut = high - low > 2.0 * (most - low)
    high = most if cut else max(high, *marks, -np.inf)
    edges = np.linspace(low, high if high > low else low + 1.0, 61)
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
        axes.set_xlabel(label(xlabel) + (" (last bar: and above)" if cut else ""))
        axes.set_ylabel("share of the group in %")
        axes.legend()
        return render(figure)


def draw_rates(labels: Numbers, scores: Numbers) -> Pixels:
    """The ROC and the precision-recall curve, with the areas under them (AUROC, AP) in the titles.

    Args:
        labels: (N,) 1 for what is to be found (anomalies), 0 for the rest.
        scores: (N,) larger where it is suspected.

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
    """One number against another or against names, such as quality against latent size or cost.

    An axis over more than a factor of eight of positive numbers is logarithmic.

    Args:
        curves: points (x, y) by the name of the curve; all x are numbers, or all are names. Points with a
            number that is not finite are left out.
        joined: join a curve's points in the order of their numbers.

    Raises:
        ValueError: no point of finite numbers.
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
            _scale(axes, "x", np.array(xs, np.float64))
        _scale(axes, "y", np.array([y for _, y in points]))
        if named or len(xs) <= 8:
            words = [label(x if isinstance(x, str) else f"{x:g}", 24) for x in xs]
            axes.set_xticks(list(places.values()), words)
        if len(curves) > 1:
            axes.legend()
        return render(figure)


def draw_curves(panels: Mapping[str, Mapping[str, tuple[Numbers, Numbers]]], xlabel: str = "epoch") -> Pixels:
    """Curves over one another, for each number a panel: {"val_l1": {"first run": (epochs, values)}}.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("no curves to draw")
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    with styled():
        figure = _figure(3.5 * columns, 2.7 * lines + 0.25 * len(names))
        looks: dict[str, Any] = {}
        for i, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(lines, columns, i + 1, title=label(title), xlabel=label(xlabel))
            # There is no epoch 1.925, not even where there is but one point.
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            for name, (x, y) in curves.items():
                number = names.index(name)
                how = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
                dots = MARKERS[number % len(MARKERS)] if len(x) < 30 else None
                colour = COLOURS[number % len(COLOURS)]
                (looks[name],) = axes.plot(x, y, color=colour, linestyle=how, marker=dots, markersize=4)
        figure.legend(
            [looks[name] for name in names], [label(name) for name in names], loc="outside lower left"
        )
        return render(figure)


def _figure(width: float, height: float, title: str = "") -> Figure:
    """A figure of `width` x `height` hundred pixels that finds room for its parts by itself."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(label(title, 80), fontsize=11.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _groups(labels: NDArray[Any] | None, names: Sequence[str]) -> list[tuple[int, str]]:
    """The labels that get a colour, in their order, with their names."""
    if labels is None:
        return []
    found, counts = np.unique(labels, return_counts=True)
    most = np.sort(found[np.argsort(-counts, kind="stable")][: len(COLOURS)])
    return [(int(value), label(names[value] if 0 <= value < len(names) else str(value))) for value in most]


def _draw_cloud(
    axes: Axes, cloud: NDArray[Any], labels: NDArray[Any] | None, coloured: Sequence[int]
) -> None:
    size = float(np.clip(12000.0 / max(1, len(cloud)), 5.0, 28.0))
    how: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.75}
    rest = np.ones(len(cloud), bool) if labels is None else ~np.isin(labels, coloured)
    colour = COLOURS[0] if labels is None else LINE
    axes.scatter(cloud[rest, 0], cloud[rest, 1], color=colour, **how)
    if labels is None:
        return
    for part in range(8):  # by turns, so that none covers another as a whole
        for i, value in enumerate(coloured):
            mine = cloud[labels == value][part::8]
            axes.scatter(mine[:, 0], mine[:, 1], color=COLOURS[i], marker=MARKERS[i], **how)


def _dot(number: int) -> Any:
    """What stands for a group in the legend, larger than its points."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", color=COLOURS[number], marker=MARKERS[number], markersize=7)


def _scale(axes: Axes, which: str, values: NDArray[Any]) -> None:
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
