"""control.db: what belongs together is stored together, and what was in force is in force after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.core.alerts import Alert, Reason
from sidecar.core.commands import Cause, Pause, Transition
from sidecar.core.events import Agent, SessionKey
from sidecar.core.findings import Evidence, Finding, Severity
from sidecar.errors import ConfigError, StorageError
from sidecar.storage import (
    Approval,
    ControlBatch,
    ControlReader,
    ControlStore,
    Entry,
    Grant,
    Instant,
    Request,
    RequestExistsError,
    SavedRun,
    SavedScope,
    StorageSettings,
)

NOW = Instant(1_800_000_000 * 10**9, 5_000 * 10**9, "boot")
KEY = SessionKey("local", "s1")
AGENT = Agent("local", "a1", "mailer", "1")
CAUSE = Cause("p1", "detector", "leverage", "a threat", NOW.at_ns, ("leverage@e1",))


def entry(action: str = "pause", **more: Any) -> Entry:
    return Entry(NOW, "policy", action, **more)


def run(desired: Any = "paused", epoch: int = 1, key: SessionKey = KEY, **more: Any) -> SavedRun:
    return SavedRun(key, desired, epoch, NOW.at_ns, pause_id="p1", causes=(CAUSE,), agent=AGENT, **more)


def alert(fingerprint: str = "f1", **more: Any) -> Alert:
    finding = Finding(
        "leverage", "leverage", Severity.CRITICAL, 0.9, "a threat", "e1", KEY, AGENT, 7, (Evidence("t:s", "arguments"),)
    )
    return Alert(fingerprint, "leverage", "leverage", Severity.CRITICAL, KEY, AGENT, 7, 8, findings=(finding,), **more)


def approval(decision_id: str = "d1", **more: Any) -> Approval:
    reasons = (Reason("policy", Severity.HIGH, 0.5, "irreversible"),)
    return Approval(decision_id, KEY, AGENT, "send", b"\0" * 32, 5, 6, reasons=reasons, **more)


def grant(grant_id: str = "g1", key: SessionKey = KEY, life_s: int = 60, **more: Any) -> Grant:
    life_ns = life_s * 10**9
    return Grant(grant_id, b"\xff" * 32, key, Instant(NOW.at_ns + life_ns, NOW.boot_ns + life_ns, "boot"), **more)


def later(seconds: float) -> Instant:
    return Instant(NOW.at_ns + int(seconds * 1e9), NOW.boot_ns + int(seconds * 1e9), "boot")


@pytest.fixture
async def store(settings: StorageSettings) -> AsyncIterator[ControlStore]:
    store = ControlStore.open(settings)
    yield store
    await store.close()


def execute(data: Path, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    connection = apsw.Connection(str(data / "control.db"))
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


async def test_all_that_was_in_force_is_in_force_after_a_restart(settings: StorageSettings) -> None:
    running = SessionKey("local", "s2")
    batch = ControlBatch(
        runs=[run(in_flight=("c1",), aliases=("trace:1",), parent="s0", work=("w",)), run("running", 9, running)],
        scopes=[SavedScope("role", "mailer", "paused", 3, 5, "p2", (CAUSE,)), SavedScope("fleet", "", "running", 4, 5)],
        alerts=[alert(), alert("f2", state="resolved")],
        approvals=[approval(), approval("d2", state="denied")],
        grants=[grant(key=running), grant("short", key=running, life_s=1)],
        requests=[Request("ann", "r1", b"\1" * 32, b"answer", 5)],
        audit=[entry()],
    )
    store = ControlStore.open(settings)
    await store.commit(batch, durable=True)
    await store.close()

    store = ControlStore.open(settings)
    state = store.load(later(2))
    assert state.runs == batch.runs[:1]
    assert state.epochs == {KEY: 1, running: 9}
    assert state.scopes == batch.scopes[:1]
    assert state.alerts == batch.alerts[:1]
    assert state.approvals == batch.approvals[:1]
    assert state.grants == batch.grants[:1]  # the paused role is not its role, and the other has expired
    assert state.unreadable == []
    assert store.request("ann", "r1") == batch.requests[0]
    assert store.request("bob", "r1") is None
    await store.close()


async def test_grants_in_force_are_those_of_this_boot_that_nothing_ended(store: ControlStore) -> None:
    grants = [grant(name) for name in ("good", "used", "short")]
    grants[2] = grant("short", life_s=1)
    await store.commit(ControlBatch(grants=grants, audit=[entry("grant")]), durable=True)
    assert await store.consume_grant("used", NOW)
    assert store.load(later(2)).grants == [grants[0]]
    assert store.load(replace(NOW, boot_id="another boot")).grants == []
    assert store.load(later(61)).grants == []


async def test_a_grant_is_redeemed_once_by_whoever_comes_first(store: ControlStore) -> None:
    await store.commit(ControlBatch(grants=[grant()], audit=[entry("grant")]), durable=True)
    results = await asyncio.gather(*(store.consume_grant("g1", NOW, entry("redeem")) for _ in range(50)))
    assert sorted(results) == [False] * 49 + [True]
    assert [record.entry.action for record in store.audit_after(0)] == ["grant", "redeem"]
    assert not await store.consume_grant("unknown", NOW)


async def test_a_grant_lives_by_the_clock_that_cannot_jump(store: ControlStore) -> None:
    await store.commit(ControlBatch(grants=[grant()], audit=[entry("grant")]), durable=True)
    assert not await store.consume_grant("g1", later(60))
    assert not await store.consume_grant("g1", replace(NOW, boot_id="another boot"))
    assert await store.consume_grant("g1", replace(NOW, at_ns=NOW.at_ns + 10**18))


@pytest.mark.parametrize(
    ("held", "void"),
    [
        (ControlBatch(runs=[run()]), {"own", "own role"}),
        (ControlBatch(runs=[run(aliases=("s2",))]), {"own", "own role", "other"}),
        (ControlBatch(runs=[run("terminated")]), {"own", "own role"}),
        (ControlBatch(runs=[run("running")]), set()),
        (ControlBatch(scopes=[SavedScope("role", "mailer", "paused", 1, 5)]), {"own role"}),
        (ControlBatch(scopes=[SavedScope("fleet", "", "paused", 1, 5)]), {"own", "own role", "other"}),
        (ControlBatch(moves=[(SessionKey("local", "s2"), KEY)], runs=[run()]), {"own", "own role", "other"}),
    ],
)
async def test_a_pause_voids_the_grants_it_meets(store: ControlStore, held: ControlBatch, void: set[str]) -> None:
    grants = [grant("own"), grant("own role", role="mailer"), grant("other", SessionKey("local", "s2"))]
    await store.commit(ControlBatch(grants=grants, audit=[entry("grant")]), durable=True)
    held.audit.append(entry())
    await store.commit(held, durable=True)
    assert {one.grant_id for one in grants if not await store.consume_grant(one.grant_id, NOW)} == void


async def test_a_batch_is_stored_whole_or_not_at_all(store: ControlStore) -> None:
    await store.commit(ControlBatch(runs=[run(epoch=5)], audit=[entry()]), durable=True)
    batch = ControlBatch(
        alerts=[alert()], runs=[run("running", 4)], grants=[grant()], requests=[Request("a", "r", b"", b"", 1)]
    )
    batch.audit.append(entry("resume"))
    with pytest.raises(StorageError, match="an epoch never goes back"):
        await store.commit(batch, durable=True)
    assert store.run(KEY) == run(epoch=5)
    assert (store.alerts(), store.load(NOW).grants, store.request("a", "r")) == ([], [], None)
    assert store.head().seq == 1
    assert store.verify_audit().state == "ok"


async def test_a_terminated_session_stays_so(store: ControlStore) -> None:
    await store.commit(ControlBatch(runs=[run("terminated", 2)], audit=[entry()]), durable=True)
    with pytest.raises(StorageError, match="stays so"):
        await store.commit(ControlBatch(runs=[run("running", 3)], audit=[entry()]), durable=True)
    assert [one.desired for one in store.load(NOW).runs] == ["terminated"]


@pytest.mark.parametrize(
    "batch",
    [
        ControlBatch(runs=[run()]),
        ControlBatch(scopes=[SavedScope("fleet", "", "paused", 1, 1)]),
        ControlBatch(grants=[grant()]),
        ControlBatch(approvals=[approval(state="approved")]),
        ControlBatch(moves=[(KEY, SessionKey("local", "s2"))]),
    ],
)
async def test_what_is_not_on_record_does_not_happen(store: ControlStore, batch: ControlBatch) -> None:
    with pytest.raises(ValueError, match="needs an audit entry"):
        await store.commit(batch, durable=True)


async def test_a_request_is_answered_once(store: ControlStore) -> None:
    first = Request("ann", "r1", b"\1" * 32, b"done", 5)
    await store.commit(ControlBatch(requests=[first], runs=[run()], audit=[entry()]), durable=True)
    again = ControlBatch(requests=[replace(first, digest=b"\2" * 32)], runs=[run("running", 2)], audit=[entry()])
    with pytest.raises(RequestExistsError) as caught:
        await store.commit(again, durable=True)
    assert caught.value.request == first
    assert store.run(KEY) == run()
    other = ControlBatch(requests=[replace(first, actor="bob")])
    await store.commit(other, durable=True)  # another person's ids are their own


async def test_later_values_replace_earlier_ones(store: ControlStore) -> None:
    await store.commit(ControlBatch(alerts=[alert()], approvals=[approval()]), durable=True)
    moved = SessionKey("agent:a", "s9")
    closed = replace(alert(), state="resolved", verdict="benign_expected", session=moved)
    decided = replace(approval(), state="approved", decided_by="ann", decided_ns=9)
    await store.commit(ControlBatch(alerts=[closed], approvals=[decided], audit=[entry("review")]), durable=True)
    assert store.alerts() == []
    assert store.alerts(resolved=True) == store.alerts(session=moved, resolved=True) == [closed]
    assert store.alerts(session=KEY, resolved=True) == []
    assert store.approvals() == []
    assert store.approvals(decided=True) == [decided]
    assert (store.alert("f1"), store.approval("d1")) == (closed, decided)
    assert (store.alert("f9"), store.approval("d9"), store.run(KEY)) == (None, None, None)


async def test_lists_are_ordered_and_cut(store: ControlStore) -> None:
    alerts = [replace(alert(f"f{number}"), opened_ns=number) for number in range(5)]
    approvals = [replace(approval(f"d{number}"), asked_ns=number) for number in range(5)]
    await store.commit(ControlBatch(alerts=alerts, approvals=approvals), durable=True)
    assert store.alerts(limit=2) == [alerts[4], alerts[3]]
    assert store.approvals(limit=2) == approvals[:2]
    assert store.approvals(decided=True, limit=2) == [approvals[4], approvals[3]]


async def test_batches_are_committed_in_the_order_of_the_calls(store: ControlStore) -> None:
    for epoch in range(1, 200):
        desired = "paused" if epoch % 2 else "running"
        await store.commit(
            ControlBatch(runs=[run(desired, epoch)], audit=[entry(epoch=epoch)]), durable=epoch % 50 == 0
        )
    await store.commit(ControlBatch(), durable=True)
    assert store.run(KEY) == run("paused", 199)
    assert [record.entry.epoch for record in store.audit_after(0, 1000)] == list(range(1, 200))
    assert store.writer.lost == 0


async def test_a_moved_session_leaves_nothing_under_its_old_name(store: ControlStore) -> None:
    old, new = SessionKey("local", "trace:1"), SessionKey("agent:a", "s1")
    await store.commit(ControlBatch(runs=[run(key=old)], audit=[entry()]), durable=True)
    batch = ControlBatch(moves=[(old, new)], runs=[run(epoch=2, key=new, aliases=("trace:1",))], audit=[entry("move")])
    await store.commit(batch, durable=True)
    assert store.load(NOW).epochs == {new: 2}
    assert store.load(NOW).runs == batch.runs


async def test_damage_never_ends_a_pause(store: ControlStore, data: Path) -> None:
    scope = SavedScope("role", "mailer", "paused", 2, 5, "p2", (CAUSE,))
    batch = ControlBatch(runs=[run(epoch=7)], scopes=[scope], alerts=[alert()], approvals=[approval()], audit=[entry()])
    await store.commit(batch, durable=True)
    for table in ("runs", "scopes", "alerts", "approvals"):
        execute(data, f"UPDATE {table} SET document = substr(document, 9)")
    state = store.load(NOW)
    held = state.runs[0]
    assert (held.session, held.desired, held.epoch, held.pause_id) == (KEY, "paused", 7, "p1")
    assert held.causes[0].reason == "the causes on record cannot be read"
    assert (state.scopes[0].kind, state.scopes[0].name, state.scopes[0].desired) == ("role", "mailer", "paused")
    assert state.unreadable == ["runs/local/s1", "scopes/role/mailer", "alerts/f1", "approvals/d1"]
    with pytest.raises(StorageError, match="cannot be read"):
        store.alerts()


async def test_pruning_removes_what_nobody_needs_and_nothing_else(store: ControlStore) -> None:
    held, ended, running = (SessionKey("local", name) for name in ("held", "ended", "running"))
    batch = ControlBatch(
        runs=[run(key=held), run("terminated", key=ended), run("running", key=running)],
        alerts=[alert(), replace(alert("f2"), state="resolved")],
        approvals=[approval(), approval("d2", state="denied")],
        grants=[grant()],
        requests=[Request("ann", "r1", b"", b"", NOW.at_ns)],
        audit=[entry()],
    )
    await store.commit(batch, durable=True)
    assert await store.prune(later(600)) == 2  # what has a time of 1970 and is closed
    assert await store.prune(later(661)) == 1
    assert await store.prune(later(86_401)) == 1
    assert await store.prune(later(91 * 86_400)) == 1
    state = store.load(NOW)
    assert set(state.epochs) == {held, ended}
    assert (state.alerts, state.approvals) == (batch.alerts[:1], batch.approvals[:1])
    assert store.head().seq == 1


async def test_another_process_may_read_while_the_sidecar_runs(settings: StorageSettings, store: ControlStore) -> None:
    await store.commit(ControlBatch(runs=[run()], audit=[entry()]), durable=True)
    reader = ControlReader(settings.data_dir / "control.db")
    assert reader.load(NOW).runs == [run()]
    assert reader.verify_audit().state == "ok"
    reader.close_reader()
    with pytest.raises(ConfigError, match="no such database"):
        ControlReader(settings.data_dir / "other.db")


def test_a_saved_run_is_what_the_transition_led_to() -> None:
    transition = Transition(KEY, Pause(KEY, CAUSE), "running", "paused", 3, "requested", 5, "p1", (CAUSE,))
    assert SavedRun.after(transition, agent=AGENT) == SavedRun(
        KEY, "paused", 3, 5, "requested", "p1", (CAUSE,), agent=AGENT
    )


# ---- any batch, whatever is in it

TEXT = st.text(max_size=20)  # lone surrogates, NUL and all
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
INTS = st.integers(0, 2**63 - 1)
KEYS = st.builds(SessionKey, IDS, IDS)
AGENTS = st.builds(Agent, TEXT, TEXT, TEXT, TEXT)
CAUSES = st.builds(
    Cause,
    TEXT,
    st.sampled_from(["detector", "operator"]),
    TEXT,
    TEXT,
    INTS,
    st.lists(TEXT, max_size=2).map(tuple),
    not_before_ns=INTS,
)
SCORES = st.floats()
REASONS = st.builds(Reason, TEXT, st.sampled_from(Severity), SCORES, TEXT, TEXT)
FINDINGS = st.builds(
    Finding,
    TEXT,
    st.just("leverage"),
    st.sampled_from(Severity),
    SCORES,
    TEXT,
    TEXT,
    KEYS,
    AGENTS,
    INTS,
    st.lists(st.builds(Evidence, TEXT, TEXT, INTS, INTS, TEXT, TEXT), max_size=2).map(tuple),
)
ALERTS = st.builds(
    Alert,
    IDS,
    TEXT,
    st.just("exfiltration"),
    st.sampled_from(Severity),
    KEYS,
    AGENTS,
    INTS,
    INTS,
    state=st.sampled_from(["firing", "resolved"]),
    score=SCORES,
    text=TEXT,
    findings=st.lists(FINDINGS, max_size=2).map(tuple),
)
APPROVALS = st.builds(
    Approval,
    IDS,
    KEYS,
    AGENTS,
    TEXT,
    st.binary(max_size=32),
    INTS,
    INTS,
    arguments=TEXT,
    reasons=st.lists(REASONS, max_size=2).map(tuple),
)
RUNS = st.builds(
    SavedRun,
    KEYS,
    st.sampled_from(["running", "paused", "terminated"]),
    INTS,
    INTS,
    pause_id=TEXT,
    causes=st.lists(CAUSES, max_size=2).map(tuple),
    in_flight=st.lists(TEXT, max_size=2).map(tuple),
    agent=AGENTS,
)
DETAILS = st.dictionaries(TEXT, TEXT | INTS, max_size=3)
BATCHES = st.builds(
    ControlBatch,
    runs=st.lists(RUNS, max_size=3, unique_by=lambda run: run.session),
    alerts=st.lists(ALERTS, max_size=3, unique_by=lambda alert: alert.fingerprint),
    approvals=st.lists(APPROVALS, max_size=2, unique_by=lambda approval: approval.decision_id),
    requests=st.lists(
        st.builds(Request, IDS, IDS, st.binary(max_size=40), st.binary(max_size=40), INTS),
        max_size=2,
        unique_by=lambda request: (request.actor, request.request_id),
    ),
    audit=st.lists(
        st.builds(Entry, st.builds(Instant, INTS, INTS, TEXT), TEXT, TEXT, TEXT, TEXT, INTS, detail=DETAILS),
        min_size=1,
        max_size=3,
    ),
)


def plain(value: Any) -> Any:
    """What a value reads back as: text that is no Unicode escaped, scores that are no number the highest."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return value if abs(value) < float("inf") else 1.0
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if hasattr(value, "__struct_fields__"):
        return type(value)(**{name: plain(getattr(value, name)) for name in value.__struct_fields__})
    return value


@given(BATCHES)
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_batch_reads_back_as_it_was_given(tmp_path_factory: pytest.TempPathFactory, batch: ControlBatch) -> None:
    settings = StorageSettings(data_dir=tmp_path_factory.mktemp("data") / "d", ballast_bytes=0)

    async def round_trip() -> None:
        store = ControlStore.open(settings, create=True)
        try:
            await store.commit(batch, durable=True)
            state = store.load(NOW)
            assert state.unreadable == []
            assert sorted(state.runs, key=lambda one: one.session) == sorted(
                (plain(one) for one in batch.runs if one.desired != "running"), key=lambda one: one.session
            )
            assert state.epochs == {one.session: one.epoch for one in batch.runs}
            for one in batch.alerts:
                assert store.alert(one.fingerprint) == plain(one)
            for held in batch.approvals:
                assert store.approval(held.decision_id) == plain(held)
            for request in batch.requests:
                assert store.request(request.actor, request.request_id) == request
            assert [record.entry for record in store.audit_after(0)] == [plain(one) for one in batch.audit]
            assert store.verify_audit().state == "ok"
        finally:
            await store.close()

    asyncio.run(round_trip())
