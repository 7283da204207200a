"""Metrics, their page, the dashboard and the alerting rules agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from scripts import make_dashboards, make_metrics_page
from sidecar.observe.metrics import Metrics

ROOT = Path(__file__).parents[2]
DECLARED = {declared.name: declared for declared in Metrics(CollectorRegistry()).declared}
NOT_OURS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "up"}
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def queries() -> dict[str, str]:
    """Every query that we ship, by where it stands."""
    dashboard: dict[str, Any] = json.loads((ROOT / "dashboards/sidecar.json").read_text())
    found = {
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found[f"variable {variable['name']}"] = variable["query"]["query"]
    rules = yaml.safe_load((ROOT / "dashboards/alerts.rules.yaml").read_text())
    return found | {f"rule {rule['alert']}": rule["expr"] for group in rules["groups"] for rule in group["rules"]}


def metric_of(word: str) -> str | None:
    """The declared metric that a word of a query names."""
    if word in DECLARED and DECLARED[word].kind != "histogram":
        return word
    base = HISTOGRAM.sub("", word)
    return base if base != word and base in DECLARED and DECLARED[base].kind == "histogram" else None


@pytest.mark.parametrize(("where", "query"), queries().items())
def test_a_query_names_only_metrics_and_labels_that_exist(where, query):
    words = re.findall(r"\b(?:sidecar_\w+|process_\w+|up)\b", query)
    assert words
    for word in words:
        assert word in NOT_OURS or metric_of(word), word
    for word, matchers in re.findall(r"(sidecar_\w+)\{([^}]*)\}", query):
        labels = {label.name: label for label in DECLARED[metric_of(word) or ""].labels}
        for name, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
            assert name in labels, f"{word} has no label {name}"
            if labels[name].values and "$" not in value:
                wanted = value.split("|") if "~" in operator else [value]
                for one in wanted:
                    assert any(re.fullmatch(one, known) for known in labels[name].values), f"{name}={one}"


def test_there_are_queries_to_check():
    assert len(queries()) > 60


def test_the_page_says_what_is_declared():
    assert make_metrics_page.PLACE.read_text() == make_metrics_page.build(), "run python -m scripts.make_metrics_page"


def test_the_dashboard_is_what_its_script_makes():
    assert make_dashboards.PLACE.read_text() == make_dashboards.build(), "run python -m scripts.make_dashboards"


@pytest.mark.parametrize("declared", DECLARED.values(), ids=lambda declared: declared.name)
def test_a_metric_is_named_and_told_as_prometheus_wants_it(declared):
    assert re.fullmatch(r"sidecar_[a-z][a-z0-9_]*", declared.name)
    assert declared.name.endswith("_total") == (declared.kind == "counter")
    if declared.kind == "histogram":
        assert declared.name.endswith("_seconds")
    assert declared.text[0].isupper() or declared.text[0].isdigit()
    assert declared.text.endswith(".")
    for label in declared.labels:
        assert bool(label.values) != bool(label.bound), f"{label.name} has no bound, or two"
        assert label.name not in {"session", "session_id", "tool", "agent", "user", "le", "instance", "job"}


def test_nothing_names_another_job_than_the_shipped_configuration():
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text())["scrape_configs"]
    jobs = {name for query in queries().values() for name in re.findall(r'job="([^"]*)"', query)}
    assert jobs == {job["job_name"]}
