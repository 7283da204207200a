"""Every metric there is, declared in one place; counts what the doors, the core and the gate tell.

Names begin with `sidecar_`; labels are from closed lists, or detectors' names, or a bounded number of agent roles. No
session, tool or text of an agent is ever a label. What stands at the moment, and what others count, is filled in by
`observe.scrape` when Prometheus asks. `docs/metrics.md` is made from here.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product

from msgspec import Struct
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.core.alerts import SYSTEM_REASONS, Alert, Answer, Decision, Ground
from sidecar.core.commands import Acknowledge, By, Cause, Observed, Pause, Resume, Terminate, Transition
from sidecar.core.events import UNSCORED, Agent, SessionKey
from sidecar.core.findings import Finding, Severity
from sidecar.core.gaps import REASONS as GAPS
from sidecar.core.pipeline import NOTICE_SEVERITY, Outcome
from sidecar.core.runstate import Run
from sidecar.core.span import Speaker
from sidecar.observe.families import OTHER, Family, Label, Names
from sidecar.observe.settings import ObserveSettings
from sidecar.sources.decode import NOTES
from sidecar.sources.intake import REASONS, Door
from sidecar.storage import Approval

disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` sample beside each number says little and doubles a scrape

SEVERITIES = tuple(severity.word for severity in Severity)
UNREADY = ("restoring", "degraded", "detector_off", "storage_failed", "disk_full", "stuck")
"""Why the sidecar is not ready to judge; see `observe.health`."""
KAFKA_STATES = ("connecting", "waiting", "reading", "full", "down", "closed")
VERDICTS = ("true_positive", "false_positive", "benign_expected")
DATABASES = ("control", "telemetry")
YES_NO = ("yes", "no")

DOOR = Label("door", Door.__args__)  # type: ignore[attr-defined]
KIND = Label("kind", ("traces", "logs"))
REFUSED = Label("reason", REASONS)
NOTE = Label("note", NOTES)
ROLE = Label("role", bound="agent roles: those in `roles`, the first `max_roles` others, `other`")
DETECTOR = Label("detector", bound="detectors of the configuration and kinds of notices about telemetry")
IDENTITY = Label("identity", bound="`local`, `agent:NAME` and `forwarder:NAME` of credentials; `unknown` before that")
SEVERITY = Label("severity", SEVERITIES)
DATABASE = Label("database", DATABASES)
METHOD = Label("method", bound="methods of the control API")
SOURCE = Label("source", bound="names of Kafka sources in the configuration")

QUICK_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Around the gate's deadline of 0.25 s."""
LAG_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Around an exporter's delay of 1-5 s and the lease of 3 s."""
REVIEW_S = (10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 86400.0)
"""Around the 15 minutes that a held act waits for a person."""


class Declared(Struct, frozen=True):
    """One metric, for its documentation."""

    name: str
    kind: str
    text: str
    labels: tuple[Label, ...]


class Metrics(Collector):
    """All counts of one process; fits the seams `service.Meter`, `service.Watcher` and `sources.intake.Counts`.

    `control` fits `control.auth.Counts`.

    It counts on the event loop and is scraped from another thread. Memory: the label sets, some 1,500 with 50 roles
    and 10 detectors; and the fingerprints of the last 40,000 alerts.

    Args:
        registry: Where it is registered.
        clock_s: Seconds that only go up.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        settings: ObserveSettings | None = None,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = settings or ObserveSettings()
        self._registry, self._clock_s, self._first_zero_s = registry, clock_s, settings.first_zero
        self._roles = Names(settings.roles, settings.max_roles)
        self._detectors = Names(NOTICE_SEVERITY, 200)
        self._seen: dict[str, None] = {}
        self.control = ControlCounts(self)
        self.declared: list[Declared] = []
        self.families: list[Family] = []
        count, show = self._counter, self._gauge

        # --- what comes in
        self.requests = count("requests_stored", "Requests whose content is durable.", DOOR, KIND)
        self.spans = count("spans_stored", "Spans and log records that are durable.", DOOR, KIND)
        self.requests_refused = count("requests_refused", "Requests refused as a whole.", DOOR, REFUSED)
        self.spans_refused = count(
            "spans_refused", "Spans refused, as far as somebody could count them.", DOOR, REFUSED
        )
        self.spans_lost = count("spans_lost", "Spans dropped because their sender left before they were durable.", DOOR)
        self.identity_requests = count(
            "identity_requests_refused", "Requests refused as a whole, by who sent them.", IDENTITY, REFUSED
        )
        self.identity_spans = count(
            "identity_spans_refused", "Spans refused or lost, by who sent them.", IDENTITY, REFUSED
        )
        self.spans_noted = count("spans_noted", "Spans of which decoding had to change something.", DOOR, NOTE)
        self.requests_ignored = count(
            "requests_ignored", "Requests that are taken and not looked at.", DOOR, Label("kind", ("metrics",))
        )
        self.spans_fed = count("spans_fed", "Spans given to the core.")
        self.spans_unbound = count("spans_unbound", "Traces that name no session; each is a session of its own.")
        self.spans_cyclic = count("spans_cyclic", "Spans whose ancestors are their descendants.")
        self.spans_unmapped = count("spans_unmapped", "Spans of no convention that we know; they are no events.")
        self.spans_duplicate = count("spans_duplicate", "Spans that had come before; they are counted once.")
        self.feed_lag = self._histogram(
            "feed_lag_seconds", "From a request's arrival until the core had its last span.", LAG_S
        )
        self.inbox_rows = show("inbox_rows", "Durable requests that the core has not seen yet.")
        self.inbox_age = show("inbox_age_seconds", "Age of the oldest request that the core has not seen yet.")
        self.kafka_lag = show("kafka_lag_messages", "Messages that wait on the brokers.", SOURCE)
        self.kafka_state = show(
            "kafka_state", "1 for the state that the source is in.", SOURCE, Label("state", KAFKA_STATES)
        )
        self.kafka_position = show(
            "kafka_position",
            "Offset before which all of a partition is durable here.",
            *(SOURCE, Label("topic", bound="topics of the configuration")),
            Label("partition", bound="partitions that this process reads"),
        )
        self.kafka_messages = count(
            "kafka_messages",
            "Messages read: taken; put aside as not understood, and those that could not even be put aside; without a "
            "value; lost unread.",
            *(SOURCE, Label("fate", ("taken", "put_aside", "unkept", "tombstone", "gap"))),
        )
        self.kafka_troubles = count(
            "kafka_troubles",
            "Waits for the inbox, commits refused, and times that the brokers had to be found anew.",
            *(SOURCE, Label("trouble", ("wait", "commit_failed", "reconnect"))),
        )

        # --- what is judged
        self.acts = count(
            "acts",
            "Acts judged, by whether the gate was asked and whether detectors could see all of them.",
            *(ROLE, Label("asked", YES_NO), Label("scored", YES_NO)),
        )
        self.acts_unscored = count(
            "acts_unscored",
            "Acts that detectors could not see whole, by reason; an act may have several.",
            Label("reason", UNSCORED),
        )
        self.acts_fail_open = count("acts_fail_open", "Reversible acts that ran because the gate did not answer.")
        self.findings = count("findings", "Findings, those of detectors in shadow mode included.", DETECTOR, SEVERITY)
        self.alerts_opened = count("alerts_opened", "Alerts opened.", DETECTOR, SEVERITY, ROLE)
        self.alerts_firing = show("alerts_firing", "Alerts that fire now.", DETECTOR, SEVERITY, ROLE)
        self.reviews = count("reviews", "Reviewers' verdicts on alerts.", DETECTOR, Label("verdict", VERDICTS))
        self.detection_lag = self._histogram(
            "detection_lag_seconds",
            "From an act, by its sender's clock, to the pause that a detector asked for because of it.",
            LAG_S,
        )
        self.detector_failures = count("detector_failures", "Times that a detector could not judge.", DETECTOR)
        self.detector_off = show("detector_off", "1 when a detector is switched off.", DETECTOR)
        self.models = show(
            "models",
            "Agent roles whose model is learning, and thus silent, or active.",
            *(DETECTOR, Label("state", ("learning", "active"))),
        )
        self.sessions_forgotten = count("sessions_forgotten", "Sessions forgotten for want of room.")

        # --- what is held
        by = Label("by", By.__args__)  # type: ignore[attr-defined]
        self.pauses = count(
            "pauses",
            "Sessions paused, by who asked: a detector, with the gravest severity it saw, or another.",
            *(by, Label("detector", bound=f"{DETECTOR.bound}; `none`"), Label("severity", (*SEVERITIES, "none"))),
        )
        self.pauses.expect((who, "none", "none") for who in by.values)
        self.pauses_unenforced = count("pauses_unenforced", "Of these, pauses of sessions that nobody can hold.")
        self.pause_reports = count(
            "pause_reports",
            "How far agents have followed pauses; `unconfirmed` when none reported in time.",
            Label("observed", ("acknowledged", "quiesced", "unconfirmed")),
        )
        self.resumes = count("resumes", "Sessions that a person let go on.")
        self.terminations = count("terminations", "Sessions ended for good.")
        self.pause_confirm = self._histogram(
            "pause_confirm_seconds", "From asking for a pause until the agent's process confirmed it.", LAG_S
        )
        self.sessions = show(
            "sessions", "Sessions: known, and seen in the last 5 minutes.", Label("state", ("known", "live"))
        )
        self.sessions_held = show(
            "sessions_held",
            "Paused sessions, by how far the agent has followed and by age; `stale` ones are held for long.",
            Label("observed", tuple(o for o in Observed.__args__ if o != "running")),  # type: ignore[attr-defined]
            Label("age", ("fresh", "stale")),
        )
        self.sessions_degraded = show(
            "sessions_degraded", "Sessions whose irreversible acts wait because telemetry is missing.",
            Label("reason", GAPS),
        )  # fmt: skip
        self.approvals_open = show("approvals_open", "Held acts and escalations that wait for a person.")
        self.review = self._histograms(
            "review_seconds",
            "From holding an act until it was decided.",
            REVIEW_S,
            Label("outcome", ("approved", "denied", "expired")),
        )

        # --- the gate
        answer = Label("answer", Answer.__args__)  # type: ignore[attr-defined]
        self.gate_answers = count(
            "gate_answers", "Answers given at the gate.", answer, Label("ground", Ground.__args__)  # type: ignore[attr-defined]
        )  # fmt: skip
        self.gate_refusals = count(
            "gate_refusals",
            "Answers that say nothing of the agent: we could not judge.",
            Label("reason", SYSTEM_REASONS),
        )
        self.gate = self._histograms(
            "gate_seconds", "From a question's arrival at the gate to its answer.", QUICK_S, answer
        )
        self.gate_decision = self._histogram("gate_decision_seconds", "Of that, what the core took to decide.", QUICK_S)

        self.control_denied = count(
            "control_denied",
            "Callers of the control API that were not let in.",
            *(Label("door", ("agents", "operators")), METHOD, Label("reason", ("unauthenticated", "forbidden"))),
        )
        self.control_refused = count(
            "control_refused",
            "Calls of the control API, let in, that were answered with an error.",
            *(METHOD, Label("code", bound="names of gRPC status codes")),
        )
        self.agents_dropped = count("agents_dropped_spans", "Spans that agents' own SDKs say they have dropped.")

        # --- the process
        self.ready = show("ready", "1 when the sidecar is ready to judge.")
        self.unready = show("unready", "1 for each reason why it is not.", Label("reason", UNREADY))
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How much later than planned the clock ticked: the event loop was busy.", QUICK_S
        )
        self.commit = self._histograms("storage_commit_seconds", "What a durable commit takes.", QUICK_S, DATABASE)
        self.storage_lost = count("storage_lost", "Writes that nobody waited for and that failed.", DATABASE)
        self.storage_failed = show("storage_failed", "1 when a database is out of service.", DATABASE)
        self.storage_low = show("storage_low", "1 when the disk is full and only pauses are stored.", DATABASE)
        self.storage_used = show("storage_used_bytes", "Pages in use in telemetry.db.")
        self.storage_wal = show("storage_wal_pages", "Length of the write-ahead log.", DATABASE)
        self.storage_purged = count("storage_purged_rows", "Requests that retention has removed from telemetry.db.")
        self.disk_free = show("disk_free_bytes", "Free space where the databases are.")
        build = show(
            "build_info",
            "1; says what is running.",
            *(Label("version", bound="one"), Label("python", bound="one")),
        )
        build[__version__, platform.python_version()] = 1

        registry.register(self)

    # ------------------------------------------------------------ sources.intake.Counts

    def stored(self, door: str, kind: str, spans: int) -> None:
        self.requests[door, kind] += 1
        self.spans[door, kind] += spans

    def refused(self, door: str, reason: str, *, requests: int, spans: int, speaker: Speaker | None = None) -> None:
        identity = "unknown" if speaker is None else speaker.realm
        if requests:
            self.requests_refused[door, reason] += requests
            self.identity_requests[identity, reason] += requests
        if spans:
            self.spans_refused[door, reason] += spans
            self.identity_spans[identity, reason] += spans

    def lost(self, door: str, spans: int, *, speaker: Speaker | None = None) -> None:
        self.spans_lost[(door,)] += spans
        self.identity_spans["unknown" if speaker is None else speaker.realm, "aborted"] += spans

    def noted(self, door: str, note: str, spans: int) -> None:
        self.spans_noted[door, note] += spans

    def ignored(self, door: str, kind: str) -> None:
        self.requests_ignored[door, kind] += 1

    # ------------------------------------------------------------ service.Meter

    def outcome(self, outcome: Outcome) -> None:
        """Counts what came of one input; most spans bring nothing, and then it looks four times."""
        if outcome.decisions:
            self._judged(outcome.decisions, asked=outcome.decision is not None)
        if outcome.findings:
            self._found(outcome.findings)
        if outcome.alerts:
            self._alerted(outcome.alerts)
        if outcome.transitions:
            self._changed(outcome.transitions, outcome.findings)

    def confirmed(self, seconds: float) -> None:
        """An agent's process has confirmed a pause."""
        self.pause_confirm.observe(max(seconds, 0.0))

    def fed(self, spans: int, lag_s: float) -> None:
        """A request's spans have been given to the core, the last of them `lag_s` after it arrived."""
        self.spans_fed[()] += spans
        self.feed_lag.observe(max(lag_s, 0.0))

    def decided(self, seconds: float) -> None:
        """The core has decided about a question, in so long."""
        self.gate_decision.observe(seconds)

    # ------------------------------------------------------------ service.Watcher

    def run_changed(self, key: SessionKey, run: Run) -> None:
        """Nothing: `outcome` has counted it."""

    def alert_changed(self, alert: Alert) -> None:
        """Counts a reviewer's verdict."""
        if alert.verdict:
            self.reviews[self._detectors(alert.detector), alert.verdict] += 1

    def approval_changed(self, approval: Approval) -> None:
        """Counts a person's decision, or that there was none in time."""
        if approval.state != "open":
            self.review[approval.state].observe(max(approval.decided_ns - approval.asked_ns, 0) / 1e9)

    # ------------------------------------------------------------ inside

    def _judged(self, decisions: Iterable[Decision], *, asked: bool) -> None:
        for decision in decisions:
            role = self.role(decision.agent, decision.session)
            labels = (role, "yes" if asked else "no", "no" if decision.unscored else "yes")
            if labels not in self.acts:  # a role's first: the others show 0, so that shares of them are 0 and not gaps
                for other in product((role,), YES_NO, YES_NO):
                    self.acts.setdefault(other, 0)
            self.acts[labels] += 1
            for reason in decision.unscored:
                self.acts_unscored[(reason,)] += 1

    def _found(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.findings[self._detectors(finding.detector), finding.severity.word] += 1
            if finding.detector == "ran_unanswered":
                self.acts_fail_open[()] += 1

    def _alerted(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            if alert.fingerprint not in self._seen:
                self._remember(alert.fingerprint)
                if alert.state == "firing":
                    self.alerts_opened[self.alert_labels(alert)] += 1

    def _remember(self, fingerprint: str) -> None:
        self._seen[fingerprint] = None
        if len(self._seen) > 40_000:
            del self._seen[next(iter(self._seen))]

    def _changed(self, transitions: Iterable[Transition], findings: Iterable[Finding]) -> None:
        severities = {finding.id: finding for finding in findings}
        timed: Cause | None = None
        for transition in transitions:
            command = transition.command
            if isinstance(command, Pause):
                if transition.before == "paused":
                    continue
                cause = command.cause
                led = [severities[id_] for id_ in cause.findings if id_ in severities]
                worst = max((finding.severity for finding in led), default=None)
                detector = self._detectors(cause.actor) if cause.by == "detector" else "none"
                self.pauses[cause.by, detector, "none" if worst is None else worst.word] += 1
                if transition.observed == "unenforced":
                    self.pauses_unenforced[()] += 1
                if led and cause is not timed:  # a tree of sessions is paused by one cause
                    timed = cause
                    at_ns = min(finding.at_ns for finding in led)
                    self.detection_lag.observe(max(cause.at_ns - at_ns, 0) / 1e9)
            elif isinstance(command, Acknowledge):
                self.pause_reports[(transition.observed,)] += 1
            elif isinstance(command, Resume):
                self.resumes[()] += transition.after == "running"
            elif isinstance(command, Terminate):
                self.terminations[()] += 1

    def role(self, agent: Agent, session: SessionKey) -> str:
        """The label of an agent's role."""
        return self._roles(agent.role, never=session.id)

    def alert_labels(self, alert: Alert) -> tuple[str, str, str]:
        """The labels of an alert: detector, severity, role."""
        return self._detectors(alert.detector), alert.severity.word, self.role(alert.agent, alert.session)

    def expect(self, detectors: Iterable[str], alerts: Iterable[Alert] = ()) -> None:
        """At the start: which detectors there are, and which alerts were open before it."""
        detectors = sorted(detectors)
        for name in detectors:
            self._detectors.known[name] = None
        names = tuple(self._detectors.known)
        self.detector_failures.expect((name,) for name in detectors)
        self.findings.expect((name, severity) for name in names for severity in SEVERITIES[Severity.LOW :])
        self.reviews.expect((name, verdict) for name in names for verdict in VERDICTS)
        self.pauses.expect(
            ("detector", name, severity) for name in detectors for severity in SEVERITIES[Severity.MEDIUM :]
        )
        for alert in alerts:
            self._remember(alert.fingerprint)

    def detector_label(self, name: str) -> str:
        """The label of a detector."""
        return self._detectors(name)

    # ------------------------------------------------------------ declaring and collecting

    def _family(self, family: Family) -> Family:
        self.families.append(family)
        self.declared.append(Declared(family.full_name, family.kind, family.text, family.labels))
        return family

    def _counter(self, name: str, text: str, *labels: Label) -> Family:
        return self._family(Family(name, "counter", text, *labels, first_zero_s=self._first_zero_s))

    def _gauge(self, name: str, text: str, *labels: Label) -> Family:
        return self._family(Family(name, "gauge", text, *labels))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: Label) -> Histogram:
        self.declared.append(Declared(f"sidecar_{name}", "histogram", text, labels))
        names = [label.name for label in labels]
        return Histogram(f"sidecar_{name}", text, names, buckets=buckets, registry=self._registry)

    def _histograms(self, name: str, text: str, buckets: tuple[float, ...], label: Label) -> dict[str, Histogram]:
        """One histogram for each value of `label`: looking one up by label each time would double its cost."""
        made = self._histogram(name, text, buckets, label)
        return {value: made.labels(value) for value in label.values}

    def describe(self) -> Iterator[Metric]:
        for family in self.families:
            yield Metric(f"sidecar_{family.name}", family.text, family.kind)

    def collect(self) -> Iterator[Metric]:
        now_s = self._clock_s()
        for family in self.families:
            yield family.metric(now_s)


class ControlCounts:
    """What the control API tells."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def denied(self, door: str, method: str, reason: str) -> None:
        self._metrics.control_denied[door, method, reason] += 1

    def refused(self, method: str, code: str) -> None:
        self._metrics.control_refused[method, code] += 1

    def asked(self, answer: str, ground: str, seconds: float) -> None:
        """A question was answered, `seconds` after it came; for a system refusal `ground` is its reason."""
        metrics = self._metrics
        is_system = ground in SYSTEM_REASONS
        metrics.gate_answers[answer, "system" if is_system else ground] += 1
        if is_system:
            metrics.gate_refusals[(ground,)] += 1
        metrics.gate[answer].observe(max(seconds, 0.0))

    def dropped_spans(self, spans: int) -> None:
        self._metrics.agents_dropped[()] += spans


__all__ = ["OTHER", "ControlCounts", "Declared", "Metrics"]
