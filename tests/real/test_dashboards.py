"""The dashboard that we ship: every panel's query, on a real Prometheus, gives the numbers that are known.

A scripted run on a clock that is set is scraped every 15 s of that clock, and the scrapes become the history of a
Prometheus; then each query is asked as Grafana would ask it, its variables filled in. Nothing waits for real time.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
import types
import urllib.parse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from scripts import real_parts
from sidecar.core.commands import Resume, Terminate
from sidecar.core.events import Agent, SessionKey
from sidecar.core.pipeline import NOTICE_SEVERITY
from sidecar.observe.http import Door, app
from sidecar.observe.metrics import LAG_S, QUICK_S, REVIEW_S, Metrics
from sidecar.observe.settings import ObserveSettings
from sidecar.storage import Approval
from tests.real.parts import Prometheus, part, program
from tests.shells.observe.scene import START_S, Scene

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "dashboards/sidecar.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
STEP_S, EARLY_S, LATE_S, END_S = 15, 60, 570, 630
ODD = "Support (EU)"
"""A role that the configuration names; Grafana must escape it."""

NAN = float("nan")
Series = dict[frozenset[tuple[str, str]], float]


def series(value: float, **labels: str) -> Series:
    return {frozenset(labels.items()): value}


def by(label: str, **values: float) -> Series:
    return {frozenset({(label, name)}): value for name, value in values.items()}


# --- the run ---------------------------------------------------------------------------------------------------------


def early(scene: Scene) -> None:
    """What happens a minute after the start: label sets that were not known then are born here."""
    metrics = scene.metrics
    metrics.stored("otlp_grpc", "traces", 100)
    metrics.refused("otlp_http", "inbox_full", requests=2, spans=5)
    metrics.lost("otlp_grpc", 3)
    metrics.fed(100, 0.2)
    scene.open("s1", "mailer")
    scene.ask("s1", "mailer", "read")
    scene.ask("s1", "mailer", "send", mark="critical")  # pauses s1
    scene.act("s3", "planner", "send", mark="medium", late_s=2.0)
    scene.act("s3", "planner", "send", **{"break": 1})
    scene.act("s4", ODD, "send", mark="medium")
    scene.act("s4", ODD, "read", dropped=1)
    scene.now_s += 0.4
    scene.acknowledge("s1")
    for number, verdict in enumerate(("true_positive", "false_positive", "benign_expected", "false_positive")):
        alert = next(iter(scene.pipeline.alerts))
        metrics.alert_changed(replace(alert, fingerprint=f"{number:032x}", verdict=verdict))
    metrics.commit["control"].observe(0.003)


def late(scene: Scene) -> None:
    """What happens in the last minute."""
    metrics, pipeline = scene.metrics, scene.pipeline
    metrics.stored("otlp_grpc", "traces", 240)
    metrics.stored("kafka", "logs", 60)
    metrics.refused("otlp_http", "inbox_full", requests=6, spans=0)
    metrics.refused("otlp_grpc", "invalid_id", requests=0, spans=12)
    metrics.lost("otlp_http", 6)
    metrics.noted("otlp_grpc", "cut", 9)
    metrics.fed(240, 0.2)
    metrics.fed(60, 4.0)
    pipeline.weaver.unmapped += 30
    scene.open("s1", "mailer")
    scene.open("s5", "mailer")
    scene.open("s7", "planner")
    for session in ("s8", "s8", "s8"):
        scene.ask(session, "planner", "read", seconds=0.0015, deciding_s=0.0009)
    scene.ask("s9", "planner", "send", mark="high", seconds=0.03, deciding_s=0.003)  # held
    scene.ask("s5", "mailer", "send", mark="critical", seconds=0.003, deciding_s=0.0009)  # never confirmed
    scene.act("s6", "planner", "send", mark="critical", late_s=2.5)  # nobody can hold it
    scene.act("s10", ODD, "send", **{"break": 1})
    scene.ran_unanswered("s7", "planner")
    scene.tell(again := scene.span("s11", "mailer", "read"))
    scene.tell(again)
    scene.pause("s7")
    scene.now_s += 0.4
    scene.acknowledge("s7", "quiesced")
    scene.pause("s12")
    scene.pause("s13")
    for session, command in (("s12", Resume), ("s13", Terminate)):
        key = SessionKey("local", session)
        run = pipeline.runs.get(key)
        if command is Resume:
            planned = pipeline.runs.plan_resume(Resume(key, run.pause_id, run.epoch, "amy", "fine", scene.clock_ns()))
        else:
            planned = pipeline.runs.plan_terminate(Terminate(key, "amy", "enough", scene.clock_ns()))
        metrics.outcome(pipeline.applied(planned, scene.clock_ns()))
    for name, state, waited_s in (("d1", "open", 0), ("d2", "approved", 120), ("d3", "denied", 40)):
        now_ns = scene.clock_ns()
        approval = Approval(
            name, SessionKey("local", "s9"), Agent(name="planner"), "send", b"", now_ns - waited_s * 10**9, 2**62,
            state=state, decided_ns=now_ns,
        )  # fmt: skip
        scene.service.approvals[name] = approval
        metrics.approval_changed(approval)
    scene.ask("s8", "planner", "read", seconds=0.0015)
    metrics.control.asked("wait", "behind", 0.09)
    metrics.decided(0.0009)
    metrics.control.dropped_spans(120)
    metrics.control.denied("agents", "AgentService.Watch", "unauthenticated")
    metrics.control.refused("AgentService.Authorize", "NOT_FOUND")
    scene.rows, scene.age_s = 7, 33.0
    scene.kafka.status.lag, scene.kafka.status.state = 480, "down"
    scene.kafka.counts.taken = 60
    scene.kafka.counts.gaps = 6
    scene.telemetry.writer.lost = 1
    pipeline.engine.off["broken"] = None
    metrics.commit["control"].observe(0.003)


def script(folder: Path) -> tuple[Metrics, list[str]]:
    """Plays the run; what each scrape said."""

    async def play() -> list[str]:
        scene = Scene(folder / "data", ObserveSettings(roles=(ODD,), held_stale=300))
        for name, writer in (("control", scene.control.writer), ("telemetry", scene.telemetry.writer)):
            writer.timed = lambda seconds, name=name: None  # real disks take what they take
        scene.kafka = types.SimpleNamespace(  # type: ignore[attr-defined]
            counts=types.SimpleNamespace(
                taken=0, put_aside={}, unkept=0, tombstones=0, gaps=0, waits=0, commit_failures=0, reconnects=0
            ),
            status=types.SimpleNamespace(state="reading", lag=None),
            position=lambda: {("otlp_spans", 0): 60},
        )
        scene.scrape.kafka["fleet"] = scene.kafka  # type: ignore[attr-defined]
        pages = []
        for now_s in range(0, END_S + 1, STEP_S):
            scene.now_s = float(now_s)
            scene.health.beat()
            scene.service.tick()
            pages.append(await scene.page("application/openmetrics-text"))
            if now_s == EARLY_S:
                early(scene)
            if now_s == LATE_S:
                late(scene)
        metrics.append(scene.metrics)
        await scene.close()
        return pages

    metrics: list[Metrics] = []
    pages = asyncio.run(play())
    return metrics[0], pages


def recorded(pages: list[str], **target: str) -> tuple[str, dict[tuple[str, frozenset[tuple[str, str]]], list[float]]]:
    """Scrapes as one OpenMetrics text with times, and each series' values."""
    kinds: dict[str, str] = {}
    names: dict[str, dict[str, dict[int, str]]] = {}
    values: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = {}
    for number, page in enumerate(pages):
        for family in text_string_to_metric_families(page):
            kinds[family.name] = family.type
            lines = names.setdefault(family.name, {})
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted((sample.labels | target).items()))
                lines.setdefault(f"{sample.name}{{{labels}}}", {})[START_S + number * STEP_S] = f"{sample.value}"
                values.setdefault((sample.name, frozenset(sample.labels.items())), []).append(sample.value)
    text = "".join(
        f"# TYPE {name} {kinds[name]}\n"
        + "".join(f"{line} {value} {at}\n" for line, points in lines.items() for at, value in points.items())
        for name, lines in names.items()
    )
    return text + "# EOF\n", values


class History:
    """A Prometheus that has scraped the run."""

    def __init__(self, folder: Path) -> None:
        self.metrics, pages = script(folder)
        text, self.values = recorded(pages, job="sidecar", instance="a")
        (folder / "run.om").write_text(text)
        tool = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "run.om", "data2"]
        subprocess.run(tool, cwd=folder, check=True, capture_output=True)
        (folder / "data").rename(folder / "sidecar")
        (folder / "data2").rename(folder / "data")
        self.server = Prometheus(folder, "global: {scrape_interval: 15s}\n")

    def last(self, name: str, *, ago: int = 0, **labels: str) -> float:
        """What was scraped at the end, or `ago` scrapes before."""
        return self.values[name, frozenset(labels.items())][-1 - ago]

    def ask(self, panel: dict[str, Any], target: dict[str, Any], role: list[str], detector: list[str]) -> Series:
        """What a panel shows at the end of the run."""
        query = filled(target["expr"], role=role, detector=detector)
        if target.get("instant"):
            asked = {"query": query, "time": START_S + END_S}
            found = self._get("query", asked)
        else:
            asked = {"query": query, "start": START_S, "end": START_S + END_S, "step": STEP_S}
            found = self._get("query_range", asked)
        got: Series = {}
        for one in found:
            points = [one["value"]] if "value" in one else one["values"]
            at, value = points[-1]
            if at == START_S + END_S:
                labels = {k: v for k, v in one["metric"].items() if k not in ("__name__", "job")}
                got[frozenset(labels.items())] = float(value)
        return got

    def _get(self, path: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        answer = json.loads(self.server.get(f"/api/v1/{path}?{urllib.parse.urlencode(asked)}"))
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


def filled(expr: str, *, role: list[str], detector: list[str]) -> str:
    """A query as Grafana sends it: `All` has the value ``.*``, choices are escaped and joined."""
    ranges = {"__rate_interval": "60s", "__range": f"{END_S}s", "__interval": f"{STEP_S}s"}
    choices = {"role": chosen(role), "detector": chosen(detector)}
    query = re.sub(r"\$(\w+)", lambda match: (ranges | choices)[match.group(1)], expr)
    assert "$" not in query
    return query


def chosen(values: list[str]) -> str:
    """As Grafana's Prometheus data source writes the choices of a variable (`interpolateQueryExpr`)."""
    if not values:
        return ".*"
    escaped = [re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\")) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    made = History(tmp_path_factory.mktemp("history"))
    yield made
    made.server.stop()


# --- what is known ---------------------------------------------------------------------------------------------------


def quantile(q: float, bounds: tuple[float, ...], seen: list[float]) -> float:
    """As Prometheus works it out from buckets: the rank's place in its bucket, by straight line."""
    rank, below, low = q * len(seen), 0, 0.0
    for bound in bounds:
        count = sum(value <= bound for value in seen)
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
        below, low = count, bound
    return bounds[-1]


def closed(label: str, metrics: Metrics, name: str, **values: float) -> Series:
    """A closed label's values, 0 where not given."""
    (found,) = [
        one for declared in metrics.declared if declared.name == name for one in declared.labels if one.name == label
    ]
    return by(label, **(dict.fromkeys(found.values, 0.0) | values))


def expected(history: History) -> dict[str, list[Series]]:
    """What every panel shows when no choice is made, query by query."""
    last, metrics = history.last, history.metrics
    second, minute = 1 / 60, 1.0
    answered = {"allow": [0.0015] * 4, "hold": [0.03], "deny": [0.003], "wait": [0.09]}
    decided = [0.0009] * 6 + [0.003]
    spans = {"stored": {"otlp_grpc": 240, "kafka": 60}, "refused": {"otlp_grpc": 12}, "lost": {"otlp_http": 6}}
    cpu = last("process_cpu_seconds_total") - last("process_cpu_seconds_total", ago=4)
    held = {
        frozenset({("observed", observed), ("age", age)}): 0.0
        for observed in ("requested", "acknowledged", "quiesced", "unconfirmed", "unenforced")
        for age in ("fresh", "stale")
    }
    held |= series(1, observed="acknowledged", age="stale") | series(1, observed="quiesced", age="fresh")
    held |= series(1, observed="unconfirmed", age="fresh") | series(1, observed="unenforced", age="fresh")
    notices = [kind for kind in NOTICE_SEVERITY if kind != "ran_unanswered"]
    return {
        # Now
        "Ready": [series(0)],
        "Alerts firing": [series(6)],
        "Held now": [series(3), series(1)],
        "Not known to hold": [series(1), series(1)],
        "Fail-open acts": [series(1)],
        "Spans dropped": [series(9), series(17)],
        "Acts unscored": [series(3 / 16)],
        "Oldest unread": [series(33)],
        # Alerts
        "Alerts by detector": [by("detector", marked=3)],
        "Alerts by severity": [by("severity", critical=2, high=1, medium=0)],
        "Alerts by agent role": [by("role", mailer=1, planner=2) | series(0, role=ODD)],
        "Firing now": [
            series(2, detector="marked", severity="critical", role="mailer")
            | series(1, detector="marked", severity="critical", role="planner")
            | series(1, detector="marked", severity="high", role="planner")
            | series(1, detector="marked", severity="medium", role="planner")
            | series(1, detector="marked", severity="medium", role=ODD)
        ],
        "Findings by detector": [
            by("detector", marked=3, ran_unanswered=1, broken=0, habit=0, **dict.fromkeys(notices, 0.0))
        ],
        "False alarms": [by("detector", marked=3 / 4)],
        # Pauses
        "Sessions held": [held],
        "Pauses asked for and confirmed": [series(n) for n in (5, 1, 1, 3, 1, 1)],
        "Pauses by cause": [
            series(3, by="detector", detector="marked", severity="critical")
            | series(3, by="operator", detector="none", severity="none")
        ],
        "Time to pause": [series(quantile(q, LAG_S, [0.4])) for q in (0.5, 0.95)],
        "Time to detect": [series(quantile(q, LAG_S, [0.0, 2.5])) for q in (0.5, 0.95)],
        "Waiting for a person": [series(1)],
        "Time to review": [
            by("outcome", approved=quantile(0.5, REVIEW_S, [120]), denied=quantile(0.5, REVIEW_S, [40]), expired=NAN)
        ],
        # Coverage
        "Acts unscored by role": [by("role", mailer=0, planner=0) | series(1, role=ODD)],
        "Why acts are unscored": [closed("reason", metrics, "sidecar_acts_unscored_total", detector_failed=minute)],
        "Acts that nobody asked about": [by("role", mailer=1 / 2, planner=2 / 7) | series(1, role=ODD)],
        "Detectors that failed": [by("detector", broken=1, marked=0, habit=0), by("detector", broken=1)],
        "Models by maturity": [
            series(3, detector="habit", state="active") | series(1, detector="habit", state="learning")
        ],
        "Spans understood": [series(300 * second), series(30 * second), series(second)],
        # Gate
        "Answers": [by("answer", **{answer: len(seen) * second for answer, seen in answered.items()})],
        "We could not judge": [closed("reason", metrics, "sidecar_gate_refusals_total", behind=second)],
        "Time to answer": [
            series(quantile(0.5, QUICK_S, [*chain(*answered.values())])),
            by("answer", **{answer: quantile(0.99, QUICK_S, seen) for answer, seen in answered.items()}),
        ],
        "Not let in": [series(second, door="agents", reason="unauthenticated")],
        "Time to decide": [series(quantile(q, QUICK_S, decided)) for q in (0.5, 0.99)],
        # Telemetry
        "Spans in, refused, lost": [
            closed("door", metrics, f"sidecar_spans_{fate}_total", **{door: n * second for door, n in doors.items()})
            for fate, doors in spans.items()
        ]
        + [series(120 * second)],
        "Why requests are refused": [
            closed("reason", metrics, "sidecar_requests_refused_total", inbox_full=6 * second)
        ],
        "What decoding had to change": [closed("note", metrics, "sidecar_spans_noted_total", cut=9 * second)],
        "Time to the core": [series(quantile(q, LAG_S, [0.2, 4.0])) for q in (0.5, 0.95)],
        "Backlog": [series(7)],
        "Kafka: behind": [by("source", fleet=480), by("source", fleet=1)],
        "Kafka: messages": [closed("fate", metrics, "sidecar_kafka_messages_total", taken=60 * second, gap=6 * second)],
        # Process
        "Why not ready": [by("reason", detector_off=1)],
        "Time to commit": [by("database", control=quantile(0.99, QUICK_S, [0.003]), telemetry=NAN)],
        "Writes lost": [by("database", control=0, telemetry=1)],
        "Free disk": [by("instance", a=last("sidecar_disk_free_bytes"))],
        "Memory": [by("instance", a=last("process_resident_memory_bytes"))],
        "CPU": [by("instance", a=cpu * second)],
        "Busy loop": [series(QUICK_S[-1])],
    }


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_shows_what_happened(history, title):
    panel = PANELS[title]
    wanted = expected(history)[title]
    got = [history.ask(panel, target, [], []) for target in panel["targets"]]
    for found, known in zip(got, wanted, strict=True):
        assert found == {labels: pytest.approx(value, rel=1e-9, nan_ok=True) for labels, value in known.items()}


def test_titles_are_told_apart():
    assert len(PANELS) == sum(panel["type"] != "row" for panel in DASHBOARD["panels"])


@pytest.mark.parametrize("roles", [["mailer"], ["mailer", ODD], ["nobody"]])
def test_a_choice_of_roles_shows_those_and_no_others(history, roles):
    seen = 0
    for title, panel in PANELS.items():
        for target, everything in zip(panel["targets"], expected(history)[title], strict=True):
            if "$role" in target["expr"] and any("role" in dict(labels) for labels in everything):
                got = history.ask(panel, target, roles, [])
                assert got == {
                    labels: pytest.approx(value)
                    for labels, value in everything.items()
                    if dict(labels)["role"] in roles
                }
                seen += 1
    assert seen == 4
    firing = PANELS["Alerts firing"]
    known = {"mailer": 2.0, ODD: 1.0, "nobody": 0.0}
    assert history.ask(firing, firing["targets"][0], roles, []) == series(sum(known[role] for role in roles))


def test_a_choice_of_detectors_shows_those_and_no_others(history):
    for detectors, alerts in ((["marked"], by("detector", marked=3)), (["broken", "habit"], {})):
        panel = PANELS["Alerts by detector"]
        assert history.ask(panel, panel["targets"][0], [], detectors) == alerts
    panel = PANELS["Pauses by cause"]
    assert history.ask(panel, panel["targets"][0], [], ["broken"]) == series(
        3, by="operator", detector="none", severity="none"
    )


def test_the_variables_offer_what_there_is(history):
    offers = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            within = {"match[]": metric, "start": START_S, "end": START_S + END_S}
            found = json.loads(history.server.get(f"/api/v1/label/{label}/values?{urllib.parse.urlencode(within)}"))
            offers[variable["name"]] = found["data"]
    assert offers["role"] == sorted(["mailer", "planner", ODD])
    assert {"marked", "broken", "habit", "ran_unanswered"} <= set(offers["detector"])
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"


# --- the files -------------------------------------------------------------------------------------------------------


def rules() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "dashboards/alerts.rules.yaml").read_text())
    return found


def test_every_alerting_rule_fires_when_it_should_and_only_then(promtool):
    done = subprocess.run(
        [promtool, "test", "rules", "alerts.tests.yaml"], cwd=ROOT / "dashboards", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    tests = yaml.safe_load((ROOT / "dashboards/alerts.tests.yaml").read_text())
    told = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    for rule in rules()["groups"][0]["rules"]:
        cases = [case for case in told if case["alertname"] == rule["alert"]]
        assert any(case["exp_alerts"] for case in cases), f"nothing makes {rule['alert']} fire"
        assert any(not case["exp_alerts"] for case in cases), f"nothing shows that {rule['alert']} can be quiet"


def test_the_dashboard_is_of_grafanas_types(tmp_path):
    """Whole, against the types of @grafana/schema; and each panel's options against those of its own kind."""
    folder = Path(part(lambda: real_parts.folder("grafana-schema")))
    kinds = {"timeseries": "TimeSeries", "stat": "Stat", "table": "Table"}
    lines = ["import type { Dashboard } from '@grafana/schema';", PLAIN]
    for kind, name in kinds.items():
        lines.append(f"import type * as {kind} from '{RAW}/{kind}/panelcfg/x/{name}PanelCfg_types.gen';")
    lines.append(f"export const whole: Plain<Dashboard> = {json.dumps(DASHBOARD, indent=1)};")
    for number, panel in enumerate(PANELS.values()):
        options = json.dumps(panel["options"], indent=1)
        lines.append(f"export const options{number}: Plain<{panel['type']}.Options> = {options};")
        if custom := panel["fieldConfig"]["defaults"].get("custom"):
            lines.append(f"export const custom{number}: Plain<{panel['type']}.FieldConfig> = {json.dumps(custom)};")
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")

    def compiled(text: str) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "check.ts").write_text(text)
        tsc = ["node", str(folder / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict", "--skipLibCheck"]
        how = ["--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022", "check.ts"]
        return subprocess.run(tsc + how, cwd=tmp_path, capture_output=True, check=False)

    text = "\n".join(lines)
    done = compiled(text)
    assert done.returncode == 0, done.stdout.decode()
    for right, wrong in (
        ('"drawStyle": "bars"', '"drawStyle": "bar"'),
        ('"colorMode": "value"', '"colourMode": "value"'),
    ):
        assert right in text
        assert compiled(text.replace(right, wrong)).returncode != 0, "the check does not see mistakes"


RAW = "@grafana/schema/dist/esm/raw/composable"
PLAIN = """// JSON has texts and numbers where the types have enumerations of them
type Plain<T> = T extends string ? `${T}` : T extends (infer E)[] ? Plain<E>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;"""


# --- a scrape that is one --------------------------------------------------------------------------------------------


async def test_prometheus_scrapes_the_real_port(prometheus, tmp_path):
    """With the configuration and the rules that we ship, the target's address apart."""
    scene = Scene(tmp_path / "data", ObserveSettings(first_zero=0))
    scene.health.is_alive = lambda: True  # its clock stands still
    early(scene)
    door = Door(app(scene.scrape, scene.health), "127.0.0.1:0")
    door.start()
    config = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text())
    config["rule_files"] = [str(ROOT / "dashboards" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [door.address]
    config["global"] = dict.fromkeys(config["global"], "200ms")
    server = await asyncio.to_thread(prometheus, yaml.safe_dump(config))

    async def ask(path: str) -> Any:
        return json.loads(await asyncio.to_thread(server.get, path))["data"]

    deadline = time.monotonic() + 60
    while not (await ask("/api/v1/query?query=sidecar_build_info"))["result"]:
        assert time.monotonic() < deadline, await ask("/api/v1/targets")
        await asyncio.sleep(0.1)
    (target,) = (await ask("/api/v1/targets"))["activeTargets"]
    assert (target["health"], target["lastError"], target["labels"]["job"]) == ("up", "", "sidecar")
    for query, known in (
        ("sum(sidecar_spans_stored_total)", 100),
        ('sidecar_acts_total{role="planner", asked="no", scored="no"}', 1),
        ('sidecar_alerts_firing{detector="marked", severity="critical", role="mailer"}', 1),
        ("sidecar_pause_confirm_seconds_sum", 0.4),
    ):
        found = (await ask(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"))["result"]
        assert [float(one["value"][1]) for one in found] == [pytest.approx(known)], query
    groups = (await ask("/api/v1/rules"))["groups"]
    assert len(groups[0]["rules"]) == len(rules()["groups"][0]["rules"])
    assert not [rule["lastError"] for rule in groups[0]["rules"] if rule.get("lastError")]
    await asyncio.to_thread(server.stop)
    await door.close()
    await scene.close()
