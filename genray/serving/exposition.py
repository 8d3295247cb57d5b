"""Text of a registry for Prometheus, also of families with thousands of series.

prometheus_client escapes the name of the family and of its labels again for each series, letter by letter,
which takes most of a scrape. The names of a `SeriesFamily` are known to need no escaping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

_END = b"# EOF\n"  # of OpenMetrics

Row = tuple[Sequence[str], float]
"""Values of the labels, and value of a series."""


class SeriesFamily(Metric):
    """A family of gauges or counters, without time stamps, whose series `render` writes fast.

    Args:
        name: letters, digits and underscores; without `_total`.
        kind: "gauge" or "counter".
        labels: names of the labels, of letters, digits and underscores.
        rows: of its series; values of labels may be there once.
    """

    def __init__(
        self, name: str, documentation: str, kind: str, unit: str, labels: Sequence[str], rows: Sequence[Row]
    ) -> None:
        self._sample_name = f"{name}_total" if kind == "counter" else name
        self._labels = labels
        self._rows = rows
        super().__init__(name, documentation, kind, unit)

    @property
    def samples(self) -> list[Sample]:
        """Its series, for other users of the registry."""
        return [
            Sample(self._sample_name, dict(zip(self._labels, values, strict=True)), value)
            for values, value in self._rows
        ]

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        assert not samples, "its series are its rows"  # the base class begins with no samples

    def lines(self) -> str:
        """Return the lines of its series."""
        order = sorted(range(len(self._labels)), key=lambda place: self._labels[place])
        labels = ",".join(f'{self._labels[place]}="%s"' for place in order)
        template = self._sample_name + (f"{{{labels}}}" if labels else "") + " %s\n"
        as_text: Callable[[float], str] = floatToGoString
        return "".join(
            [
                template % (*(_escaped(values[place]) for place in order), as_text(value))
                for values, value in self._rows
            ]
        )


def render(registry: Collector, accept: str) -> tuple[bytes, str]:
    """Return the text of a registry, and its content type, in the best format of the header `accept`."""
    encode, content_type = choose_encoder(accept)
    parts: list[bytes] = []
    for metric in registry.collect():
        if isinstance(metric, SeriesFamily):
            bare = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            parts += [encode(_Families([bare])).removesuffix(_END), metric.lines().encode()]
        else:
            parts.append(encode(_Families([metric])).removesuffix(_END))
    if encode(_Families([])) == _END:
        parts.append(_END)
    return b"".join(parts), content_type


class _Families(Collector):
    """A collector of given families."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
