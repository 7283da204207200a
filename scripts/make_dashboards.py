"""Makes dashboards/sidecar.json, the Grafana dashboard, from the list of panels below.

    python -m scripts.make_dashboards [--check]

Grafana's own builders give the JSON its form, so that this file says only what is shown: to add a panel, add it here
and run this. Every query is run on a real Prometheus by tests/real/test_dashboards.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

PLACE = Path(__file__).parents[1] / "dashboards/sidecar.json"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
ROLE, DETECTOR = 'role=~"$role"', 'detector=~"$detector"'
RATE, RANGE = "[$__rate_interval]", "[$__range]"
Queries = Sequence[tuple[str, str]]


def quantile(q: float, name: str, window: str = RATE, by: str = "") -> str:
    """The query of a histogram's quantile."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({name}_bucket{window})))"


def targets(panel: Any, queries: Queries, *, instant: bool = False, as_table: bool = False) -> Any:
    """`panel` with its queries, each an expression and a legend."""
    for letter, (expr, legend) in zip("ABCDEFGH", queries, strict=False):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter).datasource(SOURCE)
        query = query.instant() if instant else query.range()
        panel.with_target(query.format("table" if as_table else "time_series"))
    return panel.datasource(SOURCE)


def graph(
    title: str, text: str, *queries: tuple[str, str], unit: str = "short", width: int = 8, bars: bool = False
) -> Any:
    """Lines over time; `bars` for counts a bar."""
    panel = timeseries.Panel().title(title).description(text).unit(unit).min(0).height(8).span(width)
    panel.legend(common.VizLegendOptions().show_legend(True).placement("bottom").display_mode("list").calcs([]))
    panel.tooltip(common.VizTooltipOptions().mode("multi").sort("desc"))
    panel.fill_opacity(60 if bars else 8).line_width(1).span_nulls(False).show_points("never")
    if bars:
        panel.draw_style("bars").stacking(common.StackingConfig().mode("normal").group("A"))
    return targets(panel, queries)


def number(
    title: str, text: str, *queries: tuple[str, str], unit: str = "short", bad_from: float | None = 0.01,
    width: int = 3, words: dict[str, tuple[str, str]] | None = None,
) -> Any:  # fmt: skip
    """One figure; red from `bad_from` up, where that is not None."""
    steps = [models.Threshold(value=None, color="green")]
    if bad_from is not None:
        steps.append(models.Threshold(value=bad_from, color="red"))
    panel = stat.Panel().title(title).description(text).unit(unit).height(4).span(width)
    panel.thresholds(dashboard.ThresholdsConfig().mode("absolute").steps(steps))
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_mode("value").graph_mode("none").text_mode("auto").orientation("auto")
    if words:
        said = {value: models.ValueMappingResult(text=text, color=color) for value, (text, color) in words.items()}
        panel.mappings([models.ValueMap(options=said)])
    return targets(panel, queries, instant=True)


def rows(title: str, text: str, query: str, hidden: Sequence[str] = (), *, unit: str = "short", width: int = 8) -> Any:
    """A table of what stands now."""
    panel = table.Panel().title(title).description(text).unit(unit).height(8).span(width).no_value("none")
    panel.show_header(True).build().options.footer = None  # the builder's default, which Grafana 13 has no more
    hide = dict.fromkeys(("Time", *hidden), True)
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options={"excludeByName": hide}))
    return targets(panel, [(query, "")], instant=True, as_table=True)


def share(bad: str, all_of: str) -> str:
    """One count as a share of another; no value where there is nothing to share."""
    return f"{bad} / ({all_of} > 0)"


def acts(window: str, *more: str, by: str = "") -> str:
    """Acts within `window`."""
    return f"sum{f' by ({by})' if by else ''} (increase(sidecar_acts_total{{{', '.join((ROLE, *more))}}}{window}))"


def alerts(by: str) -> str:
    """Alerts opened a minute."""
    return f"60 * sum by ({by}) (rate(sidecar_alerts_opened_total{{{ROLE}, {DETECTOR}}}{RATE}))"


def per_second(name: str, by: str, labels: str = "") -> str:
    """A counter's rate."""
    return f"sum by ({by}) (rate({name}{labels}{RATE}))"


def reviews(labels: str = "") -> str:
    """Reviewers' verdicts by detector, in the time shown."""
    return f"sum by (detector) (increase(sidecar_reviews_total{{{DETECTOR}{labels}}}{RANGE}))"


def of_sidecar(query: str) -> str:
    """A figure that every process has, for sidecars only."""
    return f"{query} * on (job, instance) group_left () sidecar_build_info"


PAUSES = "sidecar_pauses_total"
SECTIONS: dict[str, list[Any]] = {
    "Now": [
        number("Ready", "Whether every sidecar is ready to judge.", ("min(sidecar_ready)", ""), bad_from=None,
               words={"1": ("ready", "green"), "0": ("not ready", "red")}),
        number("Alerts firing", "", (f"sum(sidecar_alerts_firing{{{ROLE}, {DETECTOR}}}) or vector(0)", "")),
        number("Held now", "Stale ones have been held for longer than `observe.held_stale`: nobody reviews them.",
               ('sum(sidecar_sessions_held{age="fresh"})', "fresh"),
               ('sum(sidecar_sessions_held{age="stale"})', "stale")),
        number("Not known to hold", "Paused, but the agent has not confirmed it, or nobody is there who could.",
               ('sum(sidecar_sessions_held{observed="unconfirmed"})', "unconfirmed"),
               ('sum(sidecar_sessions_held{observed="unenforced"})', "unenforced")),
        number("Fail-open acts", "Reversible acts that ran because the gate did not answer, in the time shown.",
               (f"sum(increase(sidecar_acts_fail_open_total{RANGE}))", "")),
        number("Spans dropped", "Spans that were lost or refused in the time shown.",
               (f"sum(increase(sidecar_spans_lost_total{RANGE}))", "lost"),
               (f"sum(increase(sidecar_spans_refused_total{RANGE}))", "refused")),
        number("Acts unscored", "Share of acts that detectors could not see whole. Unscored is not clean.",
               (share(acts(RANGE, 'scored="no"'), acts(RANGE)), ""), unit="percentunit", bad_from=0.2),
        number("Oldest unread", "Age of the oldest telemetry that the core has not seen.",
               ("max(sidecar_inbox_age_seconds)", ""), unit="s", bad_from=60),
    ],
    "Alerts": [
        graph("Alerts by detector", "Alerts opened a minute.", (alerts("detector"), "{{detector}}")),
        graph("Alerts by severity", "Alerts opened a minute.", (alerts("severity"), "{{severity}}")),
        graph("Alerts by agent role", "Alerts opened a minute.", (alerts("role"), "{{role}}")),
        rows("Firing now", "Alerts that nobody has reviewed and that have not been quiet for an hour.",
             f"sum by (detector, severity, role) (sidecar_alerts_firing{{{ROLE}, {DETECTOR}}})"),
        graph("Findings by detector", "Findings a minute, those of detectors in shadow mode included.",
              (f"60 * sum by (detector) (rate(sidecar_findings_total{{{DETECTOR}}}{RATE}))", "{{detector}}")),
        rows("False alarms", "Share of reviewed alerts that were no true positives, by detector, in the time shown.",
             share(reviews(', verdict!="true_positive"'), reviews()), unit="percentunit"),
    ],
    "Pauses": [
        graph("Sessions held", "Paused sessions by how far their agents have followed, fresh and stale.",
              ("sum by (observed, age) (sidecar_sessions_held)", "{{observed}}, {{age}}")),
        graph("Pauses asked for and confirmed", "What was asked for should be confirmed within 3 s.",
              (f"sum(increase({PAUSES}{RATE}))", "asked for"),
              (f"sum(increase(sidecar_pause_confirm_seconds_count{RATE}))", "confirmed"),
              (f'sum(increase(sidecar_pause_reports_total{{observed="unconfirmed"}}{RATE}))', "unconfirmed"),
              (f"sum(increase(sidecar_pauses_unenforced_total{RATE}))", "unenforced"),
              (f"sum(increase(sidecar_resumes_total{RATE}))", "resumed"),
              (f"sum(increase(sidecar_terminations_total{RATE}))", "terminated"), bars=True),
        rows("Pauses by cause", "In the time shown.",
             f'sum by (by, detector, severity) (increase({PAUSES}{{detector=~"$detector|none"}}{RANGE})) > 0'),
        graph("Time to pause", "From asking for a pause until the agent's process confirmed it.",
              (quantile(0.5, "sidecar_pause_confirm_seconds"), "p50"),
              (quantile(0.95, "sidecar_pause_confirm_seconds"), "p95"), unit="s"),
        graph("Time to detect", "From an act to the pause because of it: 0 at the gate, an exporter's delay otherwise.",
              (quantile(0.5, "sidecar_detection_lag_seconds"), "p50"),
              (quantile(0.95, "sidecar_detection_lag_seconds"), "p95"), unit="s"),
        graph("Waiting for a person", "Held acts and escalations that nobody has decided.",
              ("sum(sidecar_approvals_open)", "open"), width=4),
        graph("Time to review", "From holding an act until it was decided, by outcome, median over the time shown.",
              (quantile(0.5, "sidecar_review_seconds", RANGE, "outcome"), "{{outcome}}"), unit="s", width=4),
    ],
    "Coverage": [
        graph("Acts unscored by role", "Share of acts that detectors could not see whole.",
              (share(acts(RATE, 'scored="no"', by="role"), acts(RATE, by="role")), "{{role}}"), unit="percentunit"),
        graph("Why acts are unscored", "A minute.",
              (f"60 * sum by (reason) (rate(sidecar_acts_unscored_total{RATE}))", "{{reason}}")),
        graph("Acts that nobody asked about", "Share of acts that ran without a question at the gate.",
              (share(acts(RATE, 'asked="no"', by="role"), acts(RATE, by="role")), "{{role}}"), unit="percentunit"),
        graph("Detectors that failed", "Times that a detector could not judge; three in a row switch it off.",
              (f"sum by (detector) (increase(sidecar_detector_failures_total{{{DETECTOR}}}{RATE}))", "{{detector}}"),
              (f"sum by (detector) (sidecar_detector_off{{{DETECTOR}}}) > 0", "{{detector}} is off")),
        graph("Models by maturity", "Agent roles whose model is learning, and thus silent, or active.",
              (f"sum by (detector, state) (sidecar_models{{{DETECTOR}}})", "{{detector}} {{state}}")),
        graph("Spans understood", "Spans a second that the core was given; of no convention; that had come before.",
              (f"sum(rate(sidecar_spans_fed_total{RATE}))", "given"),
              (f"sum(rate(sidecar_spans_unmapped_total{RATE}))", "of no convention"),
              (f"sum(rate(sidecar_spans_duplicate_total{RATE}))", "come again")),
    ],
    "Gate": [
        graph("Answers", "Answers a second.",
              (per_second("sidecar_gate_answers_total", "answer"), "{{answer}}"), width=8),
        graph("We could not judge", "System refusals a second: they say nothing of the agent.",
              (per_second("sidecar_gate_refusals_total", "reason"), "{{reason}}"), width=8),
        graph("Time to answer", "From a question to its answer, p50 of all and p99 by answer.",
              (quantile(0.5, "sidecar_gate_seconds"), "p50"),
              (quantile(0.99, "sidecar_gate_seconds", by="answer"), "p99 {{answer}}"), unit="s", width=8),
        graph("Time to decide", "What the core takes of that.",
              (quantile(0.5, "sidecar_gate_decision_seconds"), "p50"),
              (quantile(0.99, "sidecar_gate_decision_seconds"), "p99"), unit="s", width=12),
        graph("Not let in", "Callers of the control API a second, by door and reason.",
              (per_second("sidecar_control_denied_total", "door, reason"), "{{door}}, {{reason}}"), width=12),
    ],
    "Telemetry": [
        graph("Spans in, refused, lost", "A second, by door.",
              (per_second("sidecar_spans_stored_total", "door"), "in, {{door}}"),
              (per_second("sidecar_spans_refused_total", "door"), "refused, {{door}}"),
              (per_second("sidecar_spans_lost_total", "door"), "lost, {{door}}"),
              (f"sum(rate(sidecar_agents_dropped_spans_total{RATE}))", "dropped by agents")),
        graph("Why requests are refused", "A second.",
              (per_second("sidecar_requests_refused_total", "reason"), "{{reason}}")),
        graph("What decoding had to change", "Spans a second.",
              (per_second("sidecar_spans_noted_total", "note"), "{{note}}")),
        graph("Time to the core", "From a request's arrival until the core had it.",
              (quantile(0.5, "sidecar_feed_lag_seconds"), "p50"), (quantile(0.95, "sidecar_feed_lag_seconds"), "p95"),
              unit="s", width=6),
        graph("Backlog", "Durable requests that the core has not seen.",
              ("sum(sidecar_inbox_rows)", "requests"), width=6),
        graph("Kafka: behind", "Messages that wait on the brokers, by source.",
              ("sum by (source) (sidecar_kafka_lag_messages)", "{{source}}"),
              ('sum by (source) (sidecar_kafka_state{state="down"}) > 0', "{{source}} is down"), width=6),
        graph("Kafka: messages", "A second, by what became of them.",
              (per_second("sidecar_kafka_messages_total", "fate"), "{{fate}}"), width=6),
    ],
    "Process": [
        graph("Why not ready", "Reasons, 1 while they hold.",
              ("max by (reason) (sidecar_unready) > 0", "{{reason}}"), width=6),
        graph("Time to commit", "A durable commit, p99 by database.",
              (quantile(0.99, "sidecar_storage_commit_seconds", by="database"), "{{database}}"), unit="s", width=6),
        graph("Writes lost", "Writes that nobody waited for and that failed.",
              (f"sum by (database) (increase(sidecar_storage_lost_total{RATE}))", "{{database}}"), width=6),
        graph("Free disk", "Where the databases are.", ("min by (instance) (sidecar_disk_free_bytes)", "{{instance}}"),
              unit="bytes", width=6),
        graph("Memory", "Resident memory.",
              (of_sidecar("process_resident_memory_bytes"), "{{instance}}"), unit="bytes"),
        graph("CPU", "Cores in use.", (of_sidecar(f"rate(process_cpu_seconds_total{RATE})"), "{{instance}}")),
        graph("Busy loop", "How much later than planned the clock ticks, p99.",
              (quantile(0.99, "sidecar_loop_lag_seconds"), "p99"), unit="s"),
    ],
}  # fmt: skip


def variable(name: str, label: str, query: str) -> Any:
    """A choice among a label's values; all of them by default."""
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    made = dashboard.QueryVariable(name).label(label).query({"query": query, "refId": name, "qryType": 1})
    made = made.datasource(SOURCE).multi(True).include_all(True).all_value(".*").current(everything)
    return made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)


def build() -> str:
    """The dashboard's JSON."""
    made = dashboard.Dashboard("Agent Sidecar").uid("agent-sidecar").tags(["agents", "security"])
    made.description("What agents do, what was found, who is held, and whether the monitor itself sees everything.")
    made.time("now-6h", "now").refresh("30s").timezone("browser").readonly().tooltip(
        models.DashboardCursorSync.CROSSHAIR
    )
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    made.with_variable(variable("role", "Agent role", "label_values(sidecar_acts_total, role)"))
    made.with_variable(variable("detector", "Detector", "label_values(sidecar_findings_total, detector)"))
    count = 0
    for title, panels in SECTIONS.items():
        count += 1
        made.with_row(dashboard.Row(title).id(count))
        for panel in panels:
            count += 1
            made.with_panel(panel.id(count))
    built = made.build()
    for chosen in built.templating.list_val or ():
        chosen.auto = chosen.auto_min = chosen.auto_count = None  # defaults that belong to another kind of variable
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main(argv: list[str]) -> int:
    """The command; with `--check` 1 when the file is not what would be written."""
    text = build()
    if "--check" in argv:
        return PLACE.read_text() != text
    PLACE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
