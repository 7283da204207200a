"""A metric as a dictionary: from label values to a number, added to at the cost of one entry.

A client library's counter takes a lock and, by labels, a look-up that costs ten times as much. What is counted here is
only made into samples when it is scraped.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Literal

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

OTHER = "other"
PREFIX = "sidecar_"
MAX_AT_START = 256
"""Label sets that a family shows from the start at most; a rarer one is born when it is first counted."""


class Label(Struct, frozen=True):
    """A label and what bounds it.

    Attributes:
        values: All that it may be, where that is known here; anything else is shown as `other`.
        bound: Otherwise: in words, what it may be.
    """

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


class Family(dict[tuple[str, ...], float]):
    """A counter or gauge: label values, in the order of `labels`, to a number; what was never set is 0.

    Counters only grow. One that is new shows 0 for `first_zero_s` seconds from its first scrape on, unless it was
    expected from the start: Prometheus sees no rise in a series that is born with a count.

    Memory: one entry a label set; labels are from closed lists or cut to a bound before they come here.

    Args:
        name: Without `sidecar_` and `_total`.
    """

    def __init__(
        self, name: str, kind: Literal["counter", "gauge"], text: str, *labels: Label, first_zero_s: float = 0.0
    ) -> None:
        super().__init__()
        self.name, self.kind, self.text, self.labels = name, kind, text, labels
        self._first_zero_s = first_zero_s
        self._shown_from_s: dict[tuple[str, ...], float] = {}
        if kind == "counter" and all(label.values for label in labels):
            self.expect(product(*(label.values for label in labels)))

    def __missing__(self, labels: tuple[str, ...]) -> float:
        return 0

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return f"{PREFIX}{self.name}_total" if self.kind == "counter" else f"{PREFIX}{self.name}"

    def expect(self, sets: Iterable[tuple[str, ...]]) -> None:
        """Label sets that are to show 0 from now on, and their counts without delay."""
        for labels in sets:
            if len(self._shown_from_s) >= MAX_AT_START:
                break
            self.setdefault(labels, 0)
            self._shown_from_s[labels] = float("-inf")

    def replace(self, values: dict[tuple[str, ...], float]) -> None:
        """What a gauge says now."""
        self.clear()
        self.update(values)

    def metric(self, now_s: float) -> Metric:
        """Its samples; may be called by another thread than the one that counts."""
        shown: dict[tuple[str, ...], float] = {}
        for labels, value in self.copy().items():
            if self.kind == "counter" and now_s < self._shown_from_s.setdefault(labels, now_s + self._first_zero_s):
                value = 0
            closed = tuple(
                word if not label.values or word in label.values else OTHER
                for label, word in zip(self.labels, labels, strict=True)
            )
            shown[closed] = shown.get(closed, 0) + value
        made = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        metric = made(PREFIX + self.name, self.text, labels=[label.name for label in self.labels])
        for closed, value in shown.items():
            metric.add_metric(closed, value)
        return metric


class Names:
    """Lets a bounded number of names through as labels: those named beforehand, and the first `capacity` seen.

    A name that came with telemetry is a label only if it looks like a name: letters, digits and ``_.:/ -``, at most 64,
    and not like an id.
    """

    def __init__(self, always: Iterable[str] = (), capacity: int = 0) -> None:
        self.known = {name: None for name in always if name != OTHER}
        self._room = capacity

    def __call__(self, name: str, *, never: str = "") -> str:
        """The label for `name`, `other` where it gets none; `never` is a text that is no name, such as an id."""
        if name in self.known:
            return name
        if self._room <= 0 or name == never or not is_name(name):
            return OTHER
        self._room -= 1
        self.known[name] = None
        return name


_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/ -")
_ID_LETTERS = frozenset("ABCDEFabcdef0123456789-")


def is_name(text: str) -> bool:
    """Whether `text`, from telemetry, is fit to be a label's value."""
    if not 0 < len(text) <= 64 or text != text.strip() or text == OTHER or not _LETTERS.issuperset(text):
        return False
    return len(text) < 16 or not _ID_LETTERS.issuperset(text)
