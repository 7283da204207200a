"""Makes docs/metrics.md from the declarations in sidecar/observe/metrics.py.

python -m scripts.make_metrics_page [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from sidecar.observe.families import Label
from sidecar.observe.metrics import Declared, Metrics

PLACE = Path(__file__).parents[1] / "docs/metrics.md"

INTRODUCTION = """\
# Metrics

What `/metrics` shows on port 4322, in Prometheus' text format or as OpenMetrics. Made from
`sidecar/observe/metrics.py` by `python -m scripts.make_metrics_page`; the `process_*` metrics of the Python client
come with them. `dashboards/sidecar.json` is a Grafana dashboard of them, `dashboards/alerts.rules.yaml` has alerting
rules.

- **Labels are bounded.** No session, tool, address or text of an agent is ever one. `role` is an agent's name where it
  looks like a name: letters, digits, blanks and `_.:/-`, at most 64, and no id. The first 50 (`observe.max_roles`) seen
  since the start and those in `observe.roles` have a label of their own, all others are `other`. Whoever may declare
  its own name can use those places up, so name your roles in `observe.roles` where senders are not known.
- **A label set that was not known at the start shows 0 for 20 s** (`observe.first_zero`), then its count: Prometheus
  sees no rise in a series that is born with a count, and a first alert would be missing in `increase()`. That concerns
  counts by role; set `first_zero: 0` to see every count at once.
- Counts begin at 0 with the process. What is fed again after a restart, at most a checkpoint's interval, is counted
  again.
- Gauges are read when they are scraped.

| metric | type | labels | what it says |
| --- | --- | --- | --- |
"""


def row(declared: Declared) -> str:
    """A line of the table."""
    labels = "<br>".join(map(described, declared.labels)) or " "
    return f"| `{declared.name}` | {declared.kind} | {labels} | {declared.text} |\n"


def described(label: Label) -> str:
    """A label and what it may be."""
    return f"`{label.name}`: {', '.join(label.values) or label.bound}"


def build() -> str:
    """The page."""
    return INTRODUCTION + "".join(row(declared) for declared in Metrics(CollectorRegistry()).declared)


def main(argv: list[str]) -> int:
    """The command; with `--check` 1 when the file is not what would be written."""
    text = build()
    if "--check" in argv:
        return PLACE.read_text() != text
    PLACE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
