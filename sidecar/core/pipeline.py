"""All of the core as one object: spans, questions and the time go in, decisions come out.

    pipeline = Pipeline(...)
    outcome = pipeline.feed(record, now_ns)          # a span has come
    outcome = pipeline.authorize(question, now_ns)   # may this act run?
    outcome = pipeline.tick(now_ns)                  # time has passed

The shell stores, tells and counts what an `Outcome` holds; nothing here waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar.core import gate, risk, semconv
from sidecar.core.acts import Notice
from sidecar.core.alerts import Action, Alert, Decision
from sidecar.core.commands import Acknowledge, Cause, Move, Pause, Resume, Terminate, Transition
from sidecar.core.digests import event_id, remember
from sidecar.core.engine import MAX_TOOLS, Engine, all_patterns
from sidecar.core.events import NO_AGENT, Agent, Event, Message, Reasoning, SessionKey, ToolCall
from sidecar.core.evidence import unkeyed
from sidecar.core.findings import Evidence, Finding, Severity
from sidecar.core.journal import Journals, Question, arranged
from sidecar.core.organisation import Organisation
from sidecar.core.reader import Catalogue, Reader
from sidecar.core.runstate import RunStates
from sidecar.core.semconv.facts import Facts
from sidecar.core.sessions import MAX_FOUND, MAX_KINDS, TOLD, Session, SessionTable
from sidecar.core.span import LOCAL, Record, Span
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.alerts import AlertBook
from sidecar.core.triage.budget import BlastRadius
from sidecar.core.triage.policy import Policy
from sidecar.core.weave import Asked, Weaver
from sidecar.errors import ControlError

MAX_DECISIONS, MAX_CAUSES, MAX_TREE, MAX_PARENTS = 20_000, 16, 10_000, 20_000
MAX_ROUNDS = 8

NOTICE_SEVERITY = {
    "conflicting_duplicate": Severity.MEDIUM,
    "identity_mismatch": Severity.MEDIUM,
    "ran_refused": Severity.HIGH,
    "ungated_act": Severity.MEDIUM,
    "nonfinite": Severity.MEDIUM,
    "label_churn": Severity.MEDIUM,
    "ran_unanswered": Severity.LOW,
    "clock_skew": Severity.LOW,
    "telemetry_dropped": Severity.MEDIUM,
    "cold_start": Severity.MEDIUM,
}


class Outcome(Struct):
    """What came of one input, in the order it came about.

    Attributes:
        decision: The answer, where a question was asked.
        decisions: Of all acts that were judged.
        alerts: Alerts that opened, changed or resolved; the newest state of each is last.
        transitions: Changes of run states that hold already and want to be stored and told.
        retold: Sessions that were put in order, with all their events since they are journaled: they stand in the
            place of those told before. What `events` holds comes after.
        renamed: (old, new) session keys that turned out to be one session.
    """

    decision: Decision | None = None
    decisions: list[Decision] = []
    findings: list[Finding] = []
    alerts: list[Alert] = []
    transitions: list[Transition] = []
    events: list[Event] = []
    retold: list[tuple[SessionKey, list[Event]]] = []
    renamed: list[tuple[SessionKey, SessionKey]] = []


class Held(Struct, frozen=True):
    """An act that waits for a person."""

    event: ToolCall
    decision: Decision
    policy: str


class Answered(Struct, frozen=True):
    """What was decided about an act, and how many spans its session had told by then."""

    decision: Decision
    span_count: int


class Pipeline:
    """The core, assembled.

    Args:
        detectors: Classes of detectors, in order of running.
        options: Detector name → keyword arguments of its constructor.
        closed: Whether tools that the catalogue does not know are denied.
        capacity: Sessions remembered.
        session_attributes: Further attributes that hold a session id.
        journal_bytes: How much of what sessions were told lately is kept, to put late telemetry in order (0: nothing;
            a replay is in order by itself).
        sign: Text → keyed hash, for evidence; without a key of the installation's own equal texts can be guessed.
        present: Whether somebody is there who can hold a session's agent; in a replay everybody is.
    """

    def __init__(
        self,
        detectors: Sequence[type[Any]],
        policy: Policy,
        catalogue: Catalogue,
        *,
        patterns: PatternSet | None = None,
        organisation: Organisation | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        closed: bool = False,
        capacity: int = 50_000,
        present: Callable[[SessionKey], bool] = lambda key: True,
        sign: Callable[[str], str] = unkeyed,
        session_attributes: tuple[str, ...] = (),
        journal_bytes: int = 0,
    ) -> None:
        self.policy = policy
        self.patterns = patterns or PatternSet(all_patterns(detectors))
        self.runs = RunStates()
        self.sessions = SessionTable(capacity=capacity)
        self.sessions.held = self.runs.is_held
        self.reader = Reader(catalogue, self.patterns, organisation or Organisation())
        self.journals = Journals(journal_bytes, self._dump)
        self.weaver = Weaver(
            self.sessions, read_arguments=self.reader.arguments, read_text=self.reader.text, journals=self.journals
        )
        services = {"find": self.patterns.find, "sign": sign}
        self.engine = Engine(detectors, options=options, services=services, is_held=self.runs.is_held)
        self.sessions.joined = self.engine.absorb
        self.alerts = AlertBook()
        self.radius = BlastRadius()
        self.held: dict[str, Held] = {}
        self.known_pauses: frozenset[str] = frozenset()
        self._closed, self._present = closed, present
        self.failures = 0
        self._session_attributes = session_attributes
        self._answers: dict[str, Answered] = {}
        self._children: dict[SessionKey, dict[SessionKey, None]] = {}
        self._scopes: dict[str, dict[str, Cause]] = {}

    # ------------------------------------------------------------ what comes in

    def feed(self, record: Record, now_ns: int) -> Outcome:
        """Takes in a span that has begun and ended before it came."""
        facts = semconv.read(record.span)
        if self._session_attributes and (facts is None or not facts.session):
            facts = self._named(record.span, facts)
        return self.weave(record, facts, now_ns, begin=True, end=True, asked=False)

    def _named(self, span: Span, facts: Facts | None) -> Facts | None:
        """The same facts with the session that a configured attribute names."""
        told = (span.attributes.get(name) for name in self._session_attributes)
        session = next((value for value in told if isinstance(value, str) and value), "")
        if session:
            facts = Facts(kind="context") if facts is None else facts
            facts.session = session
        return facts

    def note(self, span: Span, facts: Facts | None, realm: str = LOCAL.realm) -> None:
        """Takes down what a span says of its session and its agent before it is its turn (replay)."""
        self.weaver.bindings.note(realm, span, facts)

    def weave(
        self, record: Record, facts: Facts | None, now_ns: int, *, begin: bool, end: bool, asked: bool
    ) -> Outcome:
        """Takes in a span's beginning or end; `asked` plays the gate before each act (replay)."""
        outcome = Outcome()
        self._all(self.weaver.weave(record, facts, now_ns, begin=begin, end=end), outcome, asked=asked, now_ns=now_ns)
        return outcome

    def authorize(self, asked: Asked, now_ns: int) -> Outcome:
        """Answers a question at the gate; what the agent carried with it has been fed before.

        The same question again has the same answer, unless the run state has changed since; an allow also only while
        the session has told nothing more: what came with the question may be the reason not to.
        """
        outcome = Outcome()
        if self.weaver.has_pieces:
            self._all(self.weaver.weave_pieces(asked.session.realm, now_ns), outcome, asked=False, now_ns=now_ns)
        if self.journals.is_dirty(key := self.sessions.resolve(asked.session)):
            self._put_in_order(outcome, now_ns, only=key)
        session, event, new = self.weaver.ask(asked, now_ns)
        self._inherit(outcome)
        known = None if new else self._answers.get(event.event_id)
        if known is not None and known.decision.answer != "wait":
            run, answer = self.runs.get(session.key), known.decision.answer
            same = run.desired == known.decision.state and (answer != "allow" or known.span_count == session.span_count)
            if same or (run.desired != "running" and answer == "deny"):
                outcome.decision = known.decision
                return outcome
        before = None if known is None else known.decision
        self.journals.tell(session.key, event)
        self._event(event, session, outcome, asked=True, now_ns=now_ns, before=before)
        outcome.decision = outcome.decisions[-1]
        return outcome

    def open_session(
        self, key: SessionKey, agent: Agent, now_ns: int, *, parent: SessionKey | None = None, task: str = ""
    ) -> Outcome:
        """A gated session announces itself; it inherits what holds its parent, its role or the fleet."""
        outcome = Outcome()
        session = self.sessions.open(key, now_ns)
        session.gated_ns = session.gated_ns if session.gated else now_ns
        session.gated = True
        if agent != NO_AGENT:
            session.agent, session.agent_rank = agent, 3
        session.task = session.task or task
        if parent is not None and session.parent is None:
            session.parent = self.sessions.resolve(parent)
            self.sessions.opened.append(session.key)
        self._inherit(outcome)
        return outcome

    def tick(self, now_ns: int, *, last: bool = False) -> Outcome:
        """Time has passed: acts nobody told of, learning, unconfirmed pauses, alerts that have been quiet.

        Args:
            last: The stream has ended; nothing more will come.
        """
        outcome = Outcome()
        if last:
            self._all(self.weaver.pieces_due(now_ns, all_of_them=True), outcome, asked=False, now_ns=now_ns)
        self._put_in_order(outcome, now_ns, last=last)
        self._all(self.weaver.due(now_ns, all_of_them=last), outcome, asked=False, now_ns=now_ns)
        self.journals.expire(now_ns)
        self.engine.learn(now_ns, self._about_to_change)
        for key in self.runs.overdue(now_ns):
            run = self.runs.get(key)
            note = Acknowledge(key, run.epoch, run.observed, now_ns, run.in_flight)
            outcome.transitions.append(
                Transition(key, note, run.desired, run.desired, run.epoch, run.observed, now_ns, run.pause_id)
            )
        outcome.alerts.extend(self.alerts.quiet(now_ns, self.runs.is_held))
        return outcome

    def announce(
        self, kind: str, key: SessionKey, agent: Agent, text: str, now_ns: int, *, about: str = "", score: float = 1.0
    ) -> Outcome:
        """An alert about telemetry as such, whether its session is known or not.

        Args:
            kind: One of `NOTICE_SEVERITY`.
            about: Names what it is about, so that the same thing is told once; the time where it is left out.
            score: How much of it there is, 0..1; an alert shows the text of the highest.
        """
        outcome = Outcome()
        name = event_id(key.realm, kind, about or str(now_ns))
        self._noticed(Notice(kind, key, agent, now_ns, "", name, text), outcome, now_ns, score=score)
        return outcome

    # ------------------------------------------------------------ what people and agents say

    def pause(self, key: SessionKey, cause: Cause, now_ns: int) -> Outcome:
        """Holds a session and all that it started.

        Raises:
            ControlError: The session is terminated.
        """
        outcome = Outcome()
        key = self.sessions.resolve(key)
        if self.runs.get(key).desired == "terminated":
            raise ControlError("FAILED_PRECONDITION", "a session that is terminated cannot take: pause")
        self._pause_tree((key,), cause, outcome)
        return outcome

    def pause_scope(self, scope: str, cause: Cause, now_ns: int) -> Outcome:
        """Holds every session of a role (``role:NAME``) or all (``fleet``), those that open later, too."""
        outcome = Outcome()
        self.restore_scope(scope, cause)
        self._pause_tree(self.in_scope(scope), cause, outcome)
        return outcome

    def resume_scope(self, scope: str) -> None:
        """Takes all pauses of a scope back for sessions that open later; those it holds are resumed one by one."""
        self._scopes.pop(scope, None)

    def scope_causes(self, scope: str) -> tuple[Cause, ...]:
        """What holds a scope, oldest first."""
        return tuple(self._scopes.get(scope, {}).values())

    def scopes(self) -> tuple[str, ...]:
        """Scopes that are held."""
        return tuple(self._scopes)

    def restore_scope(self, scope: str, cause: Cause) -> None:
        """Puts back a stored pause of a scope."""
        remember(self._scopes.setdefault(scope, {}), cause.pause_id, cause, MAX_CAUSES)

    def in_scope(self, scope: str) -> list[SessionKey]:
        """Sessions that are known and fall under a scope."""
        return [session.key for session in self.sessions if self._in_scope(session, scope)]

    def tree(self, *roots: SessionKey) -> list[SessionKey]:
        """Sessions and all that they started, themselves first; at most `MAX_TREE` others."""
        found = dict.fromkeys(roots)
        waiting = list(reversed(roots))
        while waiting and len(found) <= MAX_TREE + len(roots):
            for child in map(self.sessions.resolve, self._children.get(waiting.pop(), ())):
                if child not in found:
                    found[child] = None
                    waiting.append(child)
        return list(found)

    def applied(self, transition: Transition, now_ns: int) -> Outcome:
        """A resume or termination is stored: it takes effect now."""
        outcome = Outcome()
        command = transition.command
        # While it was being stored the session may have turned out to be another.
        transition = replace(transition, session=self.sessions.resolve(transition.session))
        outcome.transitions.append(self.runs.apply(transition))
        session = self.sessions.get(transition.session)
        if isinstance(command, Resume):
            cleared = frozenset(command.clears)
            if session is not None:
                self.sessions.touched(session)
                for finding_id in command.clears:
                    if (kind := session.kinds.get(finding_id)) and kind not in session.refused:
                        remember(session.cleared, kind, None, MAX_KINDS)
                session.flagged = False
                _forget(session, cleared, self.alerts.of(session.key))
            outcome.alerts.extend(self.alerts.clear(transition.session, cleared, now_ns))
        elif isinstance(command, Terminate):
            outcome.alerts.extend(
                self.alerts.close(alert, alert.verdict, now_ns) for alert in self.alerts.of(transition.session)
            )
        return outcome

    def confirm(self, alert: Alert) -> None:
        """A person has found an alert right: acts of its kind stay refused, also when the session goes on."""
        session = self._about_to_change(alert.session)
        if session is None:
            return
        for finding in alert.findings:
            if kind := session.kinds.get(finding.id):
                remember(session.refused, kind, None, MAX_KINDS)
                session.cleared.pop(kind, None)

    def release(self, event_id_: str, now_ns: int) -> Decision | None:
        """Judges a held act again that a person has approved; None when it is not held any more.

        It is allowed only under the policy it was held by, in a session that runs.
        """
        held = self.held.pop(event_id_, None)
        if held is None:
            return None
        run = self.runs.get(self.sessions.resolve(held.event.session))
        if run.desired != "running":
            answer = replace(held.decision, answer="deny", state=run.desired)
        elif held.policy != self.policy.digest:
            answer = replace(held.decision, answer="wait", ground="system", system="policy_changed")
        else:
            answer = replace(held.decision, answer="allow", ground="judged", state="running")
        session = self.sessions.get(held.event.session)
        self._answers[event_id_] = Answered(answer, 0 if session is None else session.span_count)
        return answer

    def adopt_policy(self, policy: Policy) -> None:
        """Puts a new policy in force from the next decision on; detectors that were switched off run again."""
        self.policy = policy
        self._answers.clear()
        self.engine.off.clear()

    # ------------------------------------------------------------ inside

    def _about_to_change(self, key: SessionKey) -> Session | None:
        session = self.sessions.get(key)
        if session is not None:
            self.sessions.touched(session)
        return session

    def _all(
        self, events: Iterable[Event], outcome: Outcome, *, asked: bool, now_ns: int, retold: bool = False
    ) -> None:
        if self.weaver.renamed:  # before the events: what held the one id holds the other
            for old, new in self.weaver.renamed:
                self._renamed(old, new, outcome, now_ns)
            self.weaver.renamed.clear()
        if self.sessions.opened:
            self._inherit(outcome)
        for event in events:
            session = self.sessions.get(event.session)
            if session is not None:
                if self.journals.is_kept and self.journals.tell(session.key, event):
                    self._event_again(event, session, outcome, now_ns)
                    if not retold:
                        outcome.events.append(event)
                else:
                    self._event(event, session, outcome, asked=asked, now_ns=now_ns)
        if self.weaver.acts.notices:
            for notice in self.weaver.acts.notices:
                self._noticed(notice, outcome, now_ns)
            self.weaver.acts.notices.clear()

    # ------------------------------------------------------------ late telemetry

    def _put_in_order(
        self, outcome: Outcome, now_ns: int, *, only: SessionKey | None = None, last: bool = False
    ) -> None:
        """Tells sessions anew that were told out of order; what that moves to another session, that one, too.

        As many as `Journals.may_retell` allows, all of them at the end of a stream; the others' turn comes later.
        """
        if not self.journals.is_kept:
            return
        self.weaver.stirred()
        for _ in range(MAX_ROUNDS):
            keys = [key for key in self.journals.dirty() if only is None or key == only]
            keys = [key for key in keys if last or self.journals.may_retell(key, now_ns)]
            if not keys:
                break
            for key in keys:
                try:
                    self._retell(key, outcome, now_ns)
                except Exception:  # ours; what it was told before must not be lost for everybody else's sake
                    self.journals.drop(key)
                    if (session := self.sessions.get(key)) is not None:
                        session.note_unscored(("dropped",))
                    self.failures += 1

    def _retell(self, key: SessionKey, outcome: Outcome, now_ns: int) -> None:
        journal, session = self.journals.take(key, now_ns), self._about_to_change(key)
        if journal is None or session is None:
            return
        self.weaver.forget(session)
        if journal.base is not None:
            before = msgspec.msgpack.decode(journal.base, type=Session)
            before.states = self.engine.revive(before.states, by_session=True)
            for name in TOLD:
                if session.agent_rank < 3 or not name.startswith("agent"):
                    setattr(session, name, getattr(before, name))
        events: list[Event] = []
        for telling in arranged(journal):
            told: list[Event]
            if isinstance(telling, Question):
                told = [self.weaver.ask(telling.asked, now_ns, telling.event_id)[1]]
            else:
                told = self.weaver.weave_all(telling, now_ns, again=True)
            events += told
            self._all(told, outcome, asked=False, now_ns=now_ns, retold=True)
        if self.sessions.get(key) is not session:  # it turned out to be another's, and is told anew with that
            self.journals.stir(self.sessions.resolve(key))
            outcome.events += events
            return
        self.weaver.name_by_first(session, now_ns)
        self._all((), outcome, asked=False, now_ns=now_ns)
        key = self.sessions.resolve(key)
        outcome.retold.append((key, events))
        outcome.events = [event for event in outcome.events if self.sessions.resolve(event.session) != key]

    def _event_again(self, event: Event, session: Session, outcome: Outcome, now_ns: int) -> None:
        """An event that detectors have seen is told again, perhaps after others: only what they find now counts."""
        judgement = self.engine.step(session, event, now_ns, again=True)
        findings = [finding for finding in judgement.findings if _gravity(finding) > session.found.get(finding.id, 0.0)]
        if judgement.failed:
            session.note_unscored(("detector_failed",))
        if event.unscored:
            session.note_unscored(tuple(reason for reason in event.unscored if reason != "withheld"))
        if event.reading.hits and not session.aware and _in_own_words(event):
            session.aware = bool(event.reading.hit("aware."))
        if findings:
            self._judged(event, session, findings, judgement.failed, outcome, asked=False, now_ns=now_ns, before=None)

    def _dump(self, session: Session) -> bytes:
        """A session as bytes, its detectors' states with it."""
        states = {name: state.dump() for name, state in session.states.items() if hasattr(state, "dump")}
        return msgspec.msgpack.encode(replace(session, states=states))

    def _event(
        self, event: Event, session: Session, outcome: Outcome, *, asked: bool, now_ns: int,
        before: Decision | None = None,
    ) -> None:  # fmt: skip
        """Judges one event; `before` is what was decided about the same act, which is one event still."""
        judgement = self.engine.step(session, event, now_ns, again=before is not None)
        findings = judgement.findings
        if before is None:
            outcome.events.append(event)
        if event.unscored:
            session.note_unscored(tuple(reason for reason in event.unscored if reason != "withheld"))  # may yet be told
        if judgement.churns:
            text = f"the agent has used more than {MAX_TOOLS} names of tools; names may be made up to hide acts"
            about = event_id(session.key.realm, "label_churn", event.agent.role)
            place = event.spans[0] if event.spans else ""
            self._noticed(
                Notice("label_churn", session.key, event.agent, event.at_ns, place, about, text), outcome, now_ns
            )
        if event.reading.hits and not session.aware and _in_own_words(event):
            session.aware = bool(event.reading.hit("aware."))
        if isinstance(event, ToolCall) and event.phase == "ended":
            self._ran(event, session, outcome, now_ns)
        if judgement.failed:  # also where it only read: what it did not take in it cannot find later
            session.note_unscored(("detector_failed",))
        self._judged(event, session, findings, judgement.failed, outcome, asked=asked, now_ns=now_ns, before=before)

    def _judged(
        self, event: Event, session: Session, findings: list[Finding], failed: tuple[str, ...], outcome: Outcome, *,
        asked: bool, now_ns: int, before: Decision | None,
    ) -> None:  # fmt: skip
        """What policy makes of what detectors found in an event."""
        if isinstance(event, ToolCall) and event.phase == "started":
            self._act(event, session, findings, failed, outcome, asked=asked, now_ns=now_ns, before=before)
            return
        if not findings:
            return
        posture = self.policy.posture(event.agent.role)
        acts = isinstance(event, Message) and event.direction == "outbound"
        pausing: list[Finding] = []
        for finding in findings:
            action = self.policy.action(finding, posture, reversible=False, acts=acts)
            self._count(session, finding, action, outcome, now_ns)
            if action == "pause" and posture != "observe":
                pausing.append(finding)
        if pausing:
            self._pause_for(session, event, pausing, outcome, now_ns)

    def _ran(self, event: ToolCall, session: Session, outcome: Outcome, now_ns: int) -> None:
        """An act has ended; one that the gate had refused should not have run."""
        known = self._answers.get(event.event_id)
        if known is None or event.failed or known.decision.answer == "allow" or known.decision.ground != "judged":
            return  # what ran because we could not judge is told of by the agent's library (`ran_unanswered`)
        place = event.spans[-1] if event.spans else ""
        text = "an act ran that the gate had not allowed"
        about = event_id(session.key.realm, "ran_refused", event.event_id)
        notice = Notice("ran_refused", session.key, event.agent, event.at_ns, place, about, text)
        self._noticed(notice, outcome, now_ns)

    def _act(
        self, event: ToolCall, session: Session, findings: list[Finding], failed: tuple[str, ...],
        outcome: Outcome, *, asked: bool, now_ns: int, before: Decision | None,
    ) -> None:  # fmt: skip
        run = self.runs.get(session.key)
        if session.cleared:
            findings = [f for f in findings if kind_of(f.detector, event) not in session.cleared]
        spared = frozenset(
            f.id for f in findings if f.family == "behaviour" and not self.radius.allows(now_ns, len(self.sessions))
        )
        refused = _refused(findings, event, session) if asked and session.refused else frozenset()
        decision, actions = gate.decide(
            event, findings, failed, run, self.policy, closed=self._closed, spared=spared, refused=refused
        )
        posture = self.policy.posture(event.agent.role)
        pausing = []
        told = () if before is None else tuple(reason.finding_id for reason in before.reasons)
        for finding in findings:
            action = actions[finding.id]
            if not asked and action == "hold":
                # It ran already. What would have waited for a person makes the session wait.
                action = "pause" if decision.irreversible else "alert"
            if finding.id not in told:
                self._count(session, finding, action, outcome, now_ns)
            if action in ("hold", "pause"):
                remember(session.kinds, finding.id, kind_of(finding.detector, event), MAX_KINDS)
            if action == "pause" and posture != "observe":
                pausing.append(finding)
        if pausing:
            self._pause_for(session, event, pausing, outcome, now_ns)
        if not asked:
            decision = replace(decision, answer="allow", ground="none", system="")
        decision = replace(decision, state=self.runs.get(session.key).desired)
        if asked:
            remember(self._answers, event.event_id, Answered(decision, session.span_count), MAX_DECISIONS)
            if decision.answer == "hold":
                remember(self.held, event.event_id, Held(event, decision, self.policy.digest), MAX_DECISIONS)
        outcome.decisions.append(decision)

    def _count(self, session: Session | None, finding: Finding, action: Action, outcome: Outcome, now_ns: int) -> None:
        if session is not None and self.journals.is_kept:
            if session.found.get(finding.id, 0.0) >= _gravity(finding):
                return
            remember(session.found, finding.id, _gravity(finding), MAX_FOUND)
        outcome.findings.append(finding)
        if session is not None:
            risk.add(session, finding)
            session.flagged |= action != "record"
        if action != "record":
            outcome.alerts.extend(self.alerts.add(finding, action, now_ns))

    def _pause_for(
        self, session: Session, event: Event, findings: Sequence[Finding], outcome: Outcome, now_ns: int
    ) -> None:
        pause_id = event_id(session.key.realm, "pause", event.event_id)
        if pause_id in self.known_pauses:
            return
        run = self.runs.get(session.key)
        actors = {cause.actor for cause in run.causes.values()}
        if run.desired == "terminated" or len(run.causes) >= MAX_CAUSES:
            return
        if run.desired == "paused" and all(finding.detector in actors for finding in findings):
            return
        if any(finding.family == "behaviour" for finding in findings):
            self.radius.take(now_ns)
        worst = max(findings, key=lambda finding: (finding.severity, finding.score))
        cause = Cause(
            pause_id=pause_id,
            by="detector",
            actor=worst.detector,
            reason=worst.text,
            at_ns=now_ns,
            findings=tuple(finding.id for finding in findings),
        )
        self._pause_tree((session.key,), cause, outcome)

    def _pause_tree(self, roots: Sequence[SessionKey], cause: Cause, outcome: Outcome) -> None:
        for key in self.tree(*roots):
            if self.runs.get(key).desired != "terminated":
                outcome.transitions.append(self.runs.pause(Pause(key, cause), enforced=self._enforced(key)))

    def _enforced(self, key: SessionKey) -> bool:
        session = self.sessions.get(key)
        return session is not None and session.gated and self._present(key)

    def _inherit(self, outcome: Outcome) -> None:
        """Sessions that are new are held by what holds their parent, their role or the fleet."""
        for key in self.sessions.opened:
            session = self.sessions.get(key)
            if session is None:
                continue
            causes = [
                cause
                for scope, held in self._scopes.items()
                if self._in_scope(session, scope)
                for cause in held.values()
            ]
            if session.parent is not None:
                self.adopt(session)
                causes.extend(self.runs.get(self.sessions.resolve(session.parent)).causes.values())
            run = self.runs.get(session.key)
            for cause in causes:
                if cause.pause_id not in run.causes and run.desired != "terminated":
                    pause = Pause(session.key, cause)
                    outcome.transitions.append(self.runs.pause(pause, enforced=self._enforced(session.key)))
        self.sessions.opened.clear()

    def adopt(self, session: Session) -> None:
        """Takes down whose child a session is."""
        if session.parent is None:
            return
        parent = self.sessions.resolve(session.parent)
        siblings = self._children.get(parent, {})
        if len(siblings) < MAX_TREE:
            siblings[session.key] = None
        remember(self._children, parent, siblings, MAX_PARENTS)

    @staticmethod
    def _in_scope(session: Session, scope: str) -> bool:
        return scope == "fleet" or scope == f"role:{session.agent.role}"

    def _renamed(self, old: SessionKey, new: SessionKey, outcome: Outcome, now_ns: int) -> None:
        outcome.renamed.append((old, new))
        outcome.alerts.extend(self.alerts.rename(old, new))
        if (moved := self.runs.rename(old, new, now_ns)) is not None:
            outcome.transitions.append(moved)
        if (children := self._children.pop(old, None)) is not None:
            self._children.setdefault(new, {}).update(children)
        self.sessions.opened.append(new)  # it may have got a parent or a role by this

    def _noticed(self, notice: Notice, outcome: Outcome, now_ns: int, *, score: float = 1.0) -> None:
        session = self.sessions.get(notice.session)
        finding = Finding(
            detector=notice.kind,
            family="telemetry",
            severity=NOTICE_SEVERITY[notice.kind],
            score=score,
            text=notice.text,
            event_id=notice.event_id,
            session=self.sessions.resolve(notice.session),
            agent=notice.agent,
            at_ns=notice.at_ns,
            evidence=(Evidence(notice.span, "span"),) if notice.span else (),
        )
        posture = self.policy.posture(notice.agent.role)
        action = self.policy.action(finding, posture, reversible=False, acts=False)
        self._count(session, finding, action, outcome, now_ns)


def _gravity(found: Finding) -> float:
    """Severity and score as one number: 1 or more, growing with both."""
    return 1.0 + 2.0 * found.severity + found.score


def _in_own_words(event: Event) -> bool:
    return isinstance(event, Reasoning) or (isinstance(event, Message) and event.direction == "outbound")


def _refused(findings: Sequence[Finding], act: ToolCall, session: Session) -> frozenset[str]:
    return frozenset(f.id for f in findings if kind_of(f.detector, act) in session.refused)


def kind_of(detector: str, act: ToolCall) -> str:
    """What kind of act a detector spoke of: its tool and where it goes; a reviewer clears kinds, not words."""
    reading = act.reading
    places = ",".join(sorted(where.address for where in reading.destinations))
    return f"{detector}|{reading.effect.tool or act.tool}|{places}"


def _forget(session: Session, cleared: frozenset[str], alerts: Iterable[Alert]) -> None:
    """Takes what a person cleared out of the session's risk; families that it does not touch stay as they are."""
    detectors = {finding_id.partition("@")[0] for finding_id in cleared}
    alerts = tuple(alerts)
    touched = {alert.family for alert in alerts if alert.detector in detectors}
    left = {family: weight for family, weight in session.suspicion.items() if family not in touched}
    for alert in alerts:
        for finding in alert.findings:
            if finding.family in touched and finding.id not in cleared:
                left[finding.family] = max(left.get(finding.family, 0.0), risk.weigh(finding))
    session.suspicion = left


__all__ = ["Acknowledge", "Held", "Move", "Outcome", "Pipeline", "kind_of"]
