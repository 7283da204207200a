"""Who speaks: whatever an agent says of itself, what is known of others stays as it is, to the byte."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.core.events import Agent, SessionKey
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.semconv.names import IDENTITY
from sidecar.core.span import LOCAL, Record, Span, Speaker
from sidecar.core.weave import Asked
from sidecar.sources.identity import AGENT_KEYS, realm_of
from tests.core.kit import SECOND_NS, at, tool
from tests.core.stories import Step, fresh, story
from tests.core.test_snapshot import whole
from tests.shells import recordings

COLLECTOR = Speaker("forwarder:collector", "authenticated", None, ("thief", "clerk"))
KAFKA = Speaker("forwarder:fleet", "attested", None, ("thief", "clerk"))
OWN = {name: Speaker(f"agent:{name}", "authenticated", name) for name in ("thief", "clerk")}
DOORS = ("own", "collector", "kafka")
UNKNOWN = ("nobody", "unlisted")
"""Ways in for a thief whom no credential names: loopback, and a forwarder that may not speak for it."""
CLERK, THIEF = "agent:clerk", "agent:thief"
SOON_NS = SECOND_NS // 1000
BOTH = frozenset(("session", "agent"))


def speaker(door: str, name: str, span: Span) -> tuple[Span, Speaker]:
    """A span as it comes by one of the doors, and who is believed to have said it."""
    if door == "own":
        return span, OWN[name]
    if door == "nobody":
        return span, LOCAL
    if door == "unlisted":
        return replace(span, resource={}), realm_of(replace(span, resource={}), COLLECTOR)
    resource = {key: value for key, value in span.resource.items() if key not in AGENT_KEYS}
    span = replace(span, resource=resource | {"gen_ai.agent.name": name})
    return span, realm_of(span, COLLECTOR if door == "collector" else KAFKA)


def victims(seed: int) -> list[Step]:
    """A story of the clerk's, in sessions of ids that nobody comes upon by chance."""
    return [_named(step) for step in story(seed, examples=2)]


def _named(step: Step) -> Step:
    name = f"session-of-the-clerk-{step.session}" if step.session else ""
    if step.span is None:
        return replace(step, session=name)
    attributes = dict(step.span.attributes)
    if "gen_ai.conversation.id" in attributes:
        attributes["gen_ai.conversation.id"] = name
    return replace(step, session=name, span=replace(step.span, attributes=attributes | {"user.id": "amy"}))


def work(core: Pipeline, step: Step, door: str) -> list[Outcome]:
    """The clerk does one thing."""
    now_ns = at(step.seconds)
    key = core.sessions.resolve(SessionKey(CLERK, step.session))
    if step.do == "feed":
        assert step.span is not None
        span, said_by = speaker(door, "clerk", step.span)
        return [core.feed(Record(span, said_by, now_ns), now_ns)]
    if step.do == "ask":
        agent = Agent(CLERK, "", "clerk")
        return [core.authorize(Asked(key, step.tool, step.arguments, step.call_id, now_ns, agent), now_ns)]
    if step.do == "open":
        outcome = core.open_session(key, Agent(CLERK, "", "clerk"), now_ns)
        core.sessions.open(key, now_ns).grade = "authenticated"  # as the service does
        return [outcome]
    return [core.tick(now_ns)]


def known_of(core: Pipeline, realm: str) -> dict[str, bytes]:
    """All that the core keeps of a realm: sessions, agents, traces, held acts, run states, alerts."""
    encode = msgspec.msgpack.encode
    found = {
        name: blob
        for name, blob in whole(core).items()
        if name != "held" and name.partition("/")[2].partition("\0")[0] == realm
    }
    found["held"] = encode([one for one in core.held.items() if one[1].event.session.realm == realm])
    found["runs"] = encode(sorted((key, run) for key, run in core.runs if key.realm == realm))
    alerts = [alert for alert in core.alerts if alert.session.realm == realm]
    found["alerts"] = encode(sorted(alerts, key=lambda one: one.fingerprint))
    return found


def of_the_clerk(outcome: Outcome) -> bytes:
    """What came of a step of the clerk's, without what it says of others."""
    alerts = [alert for alert in outcome.alerts if alert.session.realm == CLERK]
    findings = [finding for finding in outcome.findings if finding.session.realm == CLERK]
    return msgspec.msgpack.encode(replace(outcome, alerts=alerts, findings=findings))


def accused(core: Pipeline) -> list[str]:
    """Realms that an alert says name what is another's."""
    return sorted({alert.session.realm for alert in core.alerts if alert.detector == "identity_mismatch"})


# ---------------------------------------------------------------- forging


class Forgery(msgspec.Struct, frozen=True):
    """What one forged span takes over from one of the victim's, and what it makes up.

    Attributes:
        after: Position in the victim's story that it comes after; -1 is before all.
        of: Which of the victim's spans is forged, counted round.
        takes: Of ``session``, ``agent``, ``call``, ``user``, ``trace``, ``span``, ``parent``, ``content``.
        key: Which of the keys that name a session, an agent, a user it uses, counted round.
        where: Where it says so: ``attributes``, ``body`` (of a log record), ``resource``, ``scope``, ``event``.
    """

    after: int
    of: int
    takes: frozenset[str]
    key: int
    where: str
    signal: str


PARTS = ("session", "agent", "call", "user", "trace", "span", "parent", "content")
PLACES = ("attributes", "body", "resource", "scope", "event")

FORGERIES = st.builds(
    Forgery,
    after=st.integers(-1, 30),
    of=st.integers(0, 30),
    takes=st.frozensets(st.sampled_from(PARTS), min_size=1),
    key=st.integers(0, 30),
    where=st.sampled_from(PLACES),
    signal=st.sampled_from(("span", "log")),
)


def forged(forgery: Forgery, spans: list[Span], session: str, now_ns: int) -> Span:
    """The thief's span."""
    model, takes = spans[forgery.of % len(spans)], forgery.takes
    threat = recordings.THREAT
    mine = tool(threat.tool, threat.arguments, threat.result, word=f"{forgery}")
    told: dict[str, Any] = dict(model.attributes if "content" in takes else mine.attributes)
    for key in ("gen_ai.conversation.id", "gen_ai.agent.name", "user.id", "gen_ai.tool.call.id"):
        told.pop(key, None)
    said: dict[str, Any] = {"sidecar.gated": True, "sidecar.realm": CLERK, "mcp.session.id": session}
    for part, field, value in (
        ("session", "session", session),
        ("agent", "agent_name", "clerk"),
        ("user", "user", "amy"),
    ):
        if part in takes:
            said[IDENTITY[field][forgery.key % len(IDENTITY[field])]] = value
    if "call" in takes and (call_id := model.attributes.get("gen_ai.tool.call.id")):
        said |= {"gen_ai.tool.call.id": call_id, "sidecar.call.id": call_id}
    if "parent" in takes:
        said["sidecar.session.parent_id"] = session
    resource: dict[str, Any] = {"service.name": "clerk", "gen_ai.agent.name": "clerk"} if "agent" in takes else {}
    fields: dict[str, Any] = {"attributes": told}
    if forgery.where == "resource":
        resource |= said
    elif forgery.where == "scope":
        fields["rest"] = {"scope_attributes": said}
    elif forgery.where == "body":
        fields["body"] = said
    else:
        fields["attributes"] = told | said
    return replace(
        mine,
        **fields,
        signal=forgery.signal,
        resource=resource,
        trace_id=model.trace_id if "trace" in takes else mine.trace_id,
        span_id=model.span_id if "span" in takes else mine.span_id,
        parent_id=model.span_id if "parent" in takes else "",
        start_ns=0 if forgery.signal == "log" else now_ns - SOON_NS,
        end_ns=now_ns,
    )


def as_the_victim(forgery: Forgery, steps: list[Step]) -> Forgery:
    """Who names a session before its own agent does, by its own name, cannot be told from who was first (limits.md)."""
    session = next(step.session for step in steps if step.session)
    first = next(position for position, step in enumerate(steps) if step.session == session)
    if forgery.after > first or "session" not in forgery.takes:
        return forgery
    return replace(forgery, takes=forgery.takes | {"agent"}, where="attributes", key=0)


def played(
    steps: list[Step], forgeries: list[Forgery], door: str, by: str = "", name: str = "thief"
) -> tuple[Pipeline, list[bytes]]:
    """The core after all of it, and what came of each of the victim's steps; forgeries come in `by` another door."""
    core = fresh()
    spans = [step.span for step in steps if step.span is not None]
    session = next(step.session for step in steps if step.session)
    came: list[bytes] = []

    def forge(position: int, now_ns: int) -> None:
        for forgery in forgeries:
            if min(forgery.after, len(steps) - 1) == position and spans:
                span, said_by = speaker(by or door, name, forged(forgery, spans, session, now_ns))
                core.feed(Record(span, said_by, now_ns), now_ns)

    forge(-1, at(0))
    for position, step in enumerate(steps):
        outcomes = work(core, step, door)
        if step.do != "tick":  # a tick is everybody's
            came += map(of_the_clerk, outcomes)
        forge(position, at(step.seconds) + SOON_NS)
    core.tick(at(steps[-1].seconds + 60), last=True)
    return core, came


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(FORGERIES, min_size=1, max_size=6), st.sampled_from(DOORS))
def test_what_one_agent_says_changes_nothing_of_another(seed: int, forgeries: list[Forgery], door: str) -> None:
    steps = victims(seed)
    forgeries = [as_the_victim(forgery, steps) for forgery in forgeries]
    alone, came_alone = played(steps, [], door)
    beset, came = played(steps, forgeries, door)
    assert came == came_alone
    assert known_of(beset, CLERK) == known_of(alone, CLERK)
    assert known_of(beset, THIEF)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(FORGERIES, min_size=1, max_size=6),
    st.sampled_from(DOORS),
    st.sampled_from(UNKNOWN),
)
def test_who_is_only_declared_joins_no_baseline_and_pauses_no_session_of_who_is_known(
    seed: int, forgeries: list[Forgery], door: str, by: str
) -> None:
    steps = victims(seed)
    alone, came_alone = played(steps, [], door)
    beset, came = played(steps, forgeries, door, by)
    assert came == came_alone
    assert known_of(beset, CLERK) == known_of(alone, CLERK)
    assert not accused(beset), "whoever is not known is not accused, and accuses nobody"


@pytest.mark.parametrize("by", UNKNOWN)
def test_what_is_only_declared_is_judged_for_itself(by: str) -> None:
    core = fresh()
    realm = "local" if by == "nobody" else COLLECTOR.realm
    spans = [
        tool(act.tool, act.arguments, act.result, session="session-of-the-clerk", agent="clerk", start=float(second))
        for second, act in enumerate((recordings.AFFAIR, recordings.THREAT))
    ]
    for span in spans:
        one, said_by = speaker(by, "clerk", span)
        assert said_by.grade == "declared"
        core.feed(Record(one, said_by, one.end_ns), one.end_ns)
    assert {key.realm for key, run in core.runs if run.desired == "paused"} == {realm}
    assert {name[0] for name in core.engine.agents} == {realm}


def test_a_forgery_that_passed_for_the_victims_own_would_be_noticed() -> None:
    """The control: the comparison of these tests is not blind."""
    forgery = Forgery(30, 0, frozenset(("session",)), 0, "attributes", "span")
    steps = victims(3)
    alone, _ = played(steps, [], "collector")
    beset, _ = played(steps, [forgery], "collector", name="clerk")
    assert known_of(beset, CLERK) != known_of(alone, CLERK)


# ---------------------------------------------------------------- who is accused


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("key", range(len(IDENTITY["session"])))
def test_naming_a_session_before_its_own_agent_does_accuses_not_that_agent(key: int, door: str) -> None:
    forgery = Forgery(-1, 0, BOTH, key, "attributes", "span")
    steps = victims(7)  # that does not ask at the gate first
    alone, came_alone = played(steps, [], door)
    beset, came = played(steps, [forgery], door)
    assert came == came_alone
    assert known_of(beset, CLERK) == known_of(alone, CLERK)
    assert accused(beset) == [THIEF]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("key", range(len(IDENTITY["session"])))
def test_naming_the_session_of_another_is_an_alert_on_who_names_it(key: int, door: str) -> None:
    forgery = Forgery(30, 0, frozenset(("session",)), key, "attributes", "span")
    steps = victims(3)
    beset, _ = played(steps, [forgery], door)
    assert accused(beset) == [THIEF]
