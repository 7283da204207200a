"""What comes in is durable before it is acknowledged, bounded, and every span of it is accounted for."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from sidecar.core.span import LOCAL, Span, Speaker
from sidecar.errors import OutsideError, SpanError, StorageError
from sidecar.sources import InboxFullError
from sidecar.sources.decode import Limits, decode
from sidecar.sources.identity import realm_of
from sidecar.sources.intake import BusyError, Intake, IntakeSettings, Receipt
from sidecar.sources.limits import OverLimitError, Rates, Room, Turns
from sidecar.sources.turns import SLICE_NS
from tests.shells.otlp.kit import AT, Broken, FakeFeeder, FakeInbox, Tally, as_json, field, logs, record, span, traces

ALICE = Speaker("agent:alice", "authenticated", "alice")
BOB = Speaker("agent:bob", "authenticated", "bob")
GATEWAY = Speaker("forwarder:gateway", "authenticated", None, ("mailer", "clerk"))


class World:
    """An intake and everything around it; time moves by assignment."""

    def __init__(self, **settings: Any) -> None:
        self.inbox, self.feeder, self.tally = FakeInbox(), FakeFeeder(), Tally()
        self.now_ns = 10**15
        self.tick_ns = 0
        self.intake = Intake(self.inbox, self.feeder, self.tally, IntakeSettings(**settings), clock_ns=self.clock)

    def clock(self) -> int:
        self.now_ns += self.tick_ns
        return self.now_ns

    async def take(self, request: Any, speaker: Speaker = LOCAL, form: str = "proto", kind: str = "traces") -> Receipt:
        body = (
            request
            if isinstance(request, bytes)
            else request.SerializeToString()
            if form == "proto"
            else as_json(request)
        )
        return await self.intake.take(kind, body, form, speaker, AT, door="otlp_http")  # type: ignore[arg-type]


async def test_a_request_becomes_one_row_with_its_bytes_and_is_then_offered() -> None:
    world = World()
    request = traces(span(1), span(2))
    receipt = await world.take(request, ALICE)
    (row,) = world.inbox.rows
    assert (row.kind, row.body, row.arrived_ns, row.encoding) == ("traces", request.SerializeToString(), AT, "proto")
    assert row.speaker == ALICE
    assert receipt == Receipt(2, {}, "")
    assert [(seq, [got.span_id for got in spans]) for seq, spans in world.feeder.offered] == [
        (1, [f"{1:016x}", f"{2:016x}"])
    ]
    assert world.tally.spans == {"stored": 2}


@pytest.mark.parametrize(("kind", "request_"), [("traces", traces()), ("logs", logs())])
@pytest.mark.parametrize("form", ["proto", "json"])
async def test_what_was_offered_is_what_the_row_gives_again(kind: str, request_: Any, form: str) -> None:
    world = World()
    await world.take(request_, form=form, kind=kind)
    (row,) = world.inbox.rows
    assert decode(row.kind, row.body, row.encoding, Limits()).spans == world.feeder.spans  # type: ignore[arg-type]


async def test_nothing_is_offered_or_acknowledged_before_the_commit() -> None:
    world = World()
    world.inbox.open.clear()
    taking = asyncio.create_task(world.take(traces()))
    await world.inbox.asked.wait()
    assert not taking.done()
    assert world.feeder.offered == []
    world.inbox.open.set()
    assert (await taking).accepted == 1
    assert len(world.feeder.offered) == 1


@pytest.mark.parametrize("failure", [InboxFullError(7.0), StorageError("disk"), Broken("?"), RuntimeError("bug")])
async def test_a_failed_commit_is_not_acknowledged_and_its_spans_are_refused(failure: Exception) -> None:
    world = World()
    world.inbox.fails_with = failure
    with pytest.raises(type(failure)):
        await world.take(traces(span(1), span(2)))
    assert world.feeder.offered == []
    assert world.tally.spans == {"refused": 2}
    reason = {InboxFullError: "inbox_full", RuntimeError: "internal"}.get(type(failure), "storage")
    assert world.tally.reasons == {reason: 1}


async def test_only_what_is_bad_in_a_request_is_rejected() -> None:
    world = World()
    receipt = await world.take(traces(span(1), span(2, trace_id=b"x"), span(3, [("n", float("nan"))])))
    assert receipt == Receipt(2, {"invalid_id": 1}, "rejected 1: invalid_id; changed 1: nonfinite")
    assert world.tally.spans == {"stored": 2, "refused": 1}
    assert world.tally.notes == {"nonfinite": 1}


async def test_a_request_of_which_nothing_is_taken_leaves_no_row() -> None:
    world = World()
    assert await world.take(traces(span(1, trace_id=b"x"))) == Receipt(0, {"invalid_id": 1}, "rejected 1: invalid_id")
    assert await world.take(b"") == Receipt(0, {}, "")
    assert (world.inbox.rows, world.feeder.offered) == ([], [])


async def test_a_malformed_request_leaves_no_row() -> None:
    world = World()
    for body, form in ((b"\xff", "proto"), (b"{", "json"), (field(1, field(2, field(2, b"\xff"))), "proto")):
        with pytest.raises(SpanError):
            await world.take(body, form=form)
    assert world.inbox.rows == []
    assert world.tally.reasons == {"malformed": 3}


@pytest.mark.parametrize("form", ["proto", "json"])
async def test_decoding_gives_the_loop_its_turn_after_each_slice(form: str) -> None:
    world = World()
    world.tick_ns = SLICE_NS  # each look at the clock finds a slice gone
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    await world.take(traces(*(span(n) for n in range(1, 41))), form=form)
    other.cancel()
    assert turns >= 40


async def test_a_large_json_is_read_beside_the_loop() -> None:
    world = World()
    beats = 0

    async def others() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    other = asyncio.create_task(others())
    receipt = await world.take(traces(*(span(n, [("t", "x" * 500)]) for n in range(1, 2000))), form="json")
    other.cancel()
    assert receipt.accepted == 1999
    assert beats > 3


async def test_a_sender_that_leaves_before_the_commit_is_counted_as_lost() -> None:
    world = World()
    world.tick_ns = SLICE_NS
    taking = asyncio.create_task(world.take(traces(*(span(n) for n in range(1, 41)))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert world.tally.spans == {"lost": 40}
    assert world.inbox.rows == []


async def test_a_row_whose_sender_left_during_the_commit_is_offered_all_the_same() -> None:
    world = World()
    world.inbox.open.clear()
    taking = asyncio.create_task(world.take(traces()))
    await world.inbox.asked.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    world.inbox.open.set()
    await world.intake.close()
    assert (len(world.inbox.rows), len(world.feeder.offered)) == (1, 1)
    assert world.tally.spans == {"stored": 1}


async def test_a_commit_that_fails_after_its_sender_left_is_counted_as_lost() -> None:
    world = World()
    world.inbox.open.clear()
    world.inbox.fails_with = StorageError("disk")
    taking = asyncio.create_task(world.take(traces()))
    await world.inbox.asked.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    world.inbox.open.set()
    await world.intake.close()
    assert world.tally.spans == {"lost": 1}


async def test_requests_beyond_what_may_be_under_way_come_again() -> None:
    body = traces().SerializeToString()
    world = World(in_flight=2 * len(body))
    world.inbox.open.clear()
    first = [asyncio.create_task(world.take(body)) for _ in range(2)]
    await world.inbox.asked.wait()
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await world.take(body)
    world.inbox.open.set()
    assert [receipt.accepted for receipt in await asyncio.gather(*first)] == [1, 1]
    assert (await world.take(body)).accepted == 1
    assert world.tally.reasons == {"busy": 1}


async def test_one_request_larger_than_what_may_be_under_way_is_taken_alone() -> None:
    world = World(in_flight=1)
    assert (await world.take(traces())).accepted == 1


RATES = Rates(bytes_per_s=1_000_000, spans_per_s=10, sessions_per_s=5, burst=2)


async def test_spans_beyond_an_identitys_rate_are_refused_whole_until_time_passes() -> None:
    world = World(rates=RATES)
    twenty = traces(*(span(n) for n in range(1, 21)))
    await world.take(twenty, ALICE)
    with pytest.raises(OverLimitError) as refused:
        await world.take(traces(span(1)), ALICE)
    assert (refused.value.reason, round(refused.value.retry_after_s, 3)) == ("rate_spans", 0.1)
    assert (await world.take(traces(span(1)), BOB)).accepted == 1
    world.now_ns += 10**8
    assert (await world.take(traces(span(1)), ALICE)).accepted == 1
    assert world.tally.spans == {"stored": 22, "refused": 1}


async def test_a_request_above_the_burst_is_taken_when_nothing_was_sent_before_and_paid_for_later() -> None:
    world = World(rates=RATES)
    assert (await world.take(traces(*(span(n) for n in range(1, 101))), ALICE)).accepted == 100
    world.now_ns += 5 * 10**9
    with pytest.raises(OverLimitError) as refused:
        await world.take(traces(span(1)), ALICE)
    assert round(refused.value.retry_after_s, 3) == 3.1


async def test_bytes_beyond_an_identitys_rate_are_refused_before_they_are_decoded() -> None:
    world = World(rates=Rates(bytes_per_s=1000, burst=1))
    with pytest.raises(SpanError):
        await world.take(b"\xff" * 1000, ALICE)
    with pytest.raises(OverLimitError) as refused:
        await world.take(b"\xff", ALICE)
    assert refused.value.reason == "rate_bytes"


def session(name: str, number: int = 1) -> Any:
    return span(number, [("gen_ai.conversation.id", name)])


async def test_row_24_new_sessions_beyond_an_identitys_rate_are_refused_and_known_ones_go_on() -> None:
    world = World(rates=Rates(sessions_per_s=50, burst=2))
    for second in range(2):
        for n in range(50):
            await world.take(traces(session(f"{second}-{n}")), ALICE)
    with pytest.raises(OverLimitError) as refused:
        await world.take(traces(session("one more")), ALICE)
    assert refused.value.reason == "rate_sessions"
    assert (await world.take(traces(session("0-0")), ALICE)).accepted == 1
    assert (await world.take(traces(session("one more")), BOB)).accepted == 1
    assert world.tally.reasons == {"rate_sessions": 1}
    world.now_ns += 10**8
    assert (await world.take(traces(session("one more")), ALICE)).accepted == 1


async def test_spans_without_a_session_count_by_their_trace() -> None:
    world = World(rates=Rates(sessions_per_s=1, burst=1))
    await world.take(traces(*(span(n) for n in range(1, 100))), ALICE)
    with pytest.raises(OverLimitError):
        await world.take(traces(span(1, trace_id=b"another trace!!!")), ALICE)


async def test_a_forwarder_has_limits_of_its_own() -> None:
    world = World(rates=Rates(spans_per_s=1, burst=1), forwarders=Rates(spans_per_s=1000, burst=1))
    many = traces(*(span(n) for n in range(1, 100)))
    for _ in range(5):
        await world.take(many, GATEWAY)
    await world.take(many, ALICE)
    with pytest.raises(OverLimitError):
        await world.take(many, ALICE)


async def test_sessions_and_identities_remembered_are_bounded() -> None:
    world = World(rates=Rates(sessions=10))
    for n in range(100):
        await world.take(traces(session(str(n))), ALICE)
    for n in range(1100):
        await world.take(traces(), Speaker(f"agent:{n}", "authenticated", str(n)))
    accounts = world.intake._limiter._accounts
    assert len(accounts) == 1024
    assert all(len(account.seen) <= 10 for account in accounts.values())


async def test_p7_every_span_sent_is_stored_refused_or_lost() -> None:
    chance = random.Random(7)
    world = World(rates=Rates(spans_per_s=200, sessions_per_s=20, burst=1), limits=Limits(attributes=2))
    sent, tasks = 0, []
    for n in range(400):
        spans = [
            span(m + 1, [("k", m)] * chance.choice([1, 3]), trace_id=chance.choice([b"x", b"%016d" % n]))
            for m in range(5)
        ]
        sent += len(spans)
        world.inbox.fails_with = chance.choice([None, None, InboxFullError(1.0)])
        world.now_ns += 10**7
        task = asyncio.create_task(
            world.take(traces(*spans), chance.choice([ALICE, BOB]), chance.choice(["proto", "json"]))
        )
        tasks.append(task)
        await asyncio.sleep(0)
        if chance.random() < 0.1:
            await asyncio.sleep(0)
            task.cancel()
        elif chance.random() < 0.5:
            await asyncio.wait([task])
    await asyncio.gather(*tasks, return_exceptions=True)
    await world.intake.close()
    assert sum(world.tally.spans.values()) == sent
    assert min(world.tally.spans[kind] for kind in ("stored", "refused", "lost")) > 0
    assert world.tally.spans["stored"] == len(world.feeder.spans)
    assert all(isinstance(task.exception(), OutsideError | None) for task in tasks if not task.cancelled())


def spoken(resource: dict[str, Any]) -> Span:
    return Span("span", "", "", "", "", 0, 0, {"gen_ai.agent.name": "clerk"}, resource=resource)


@pytest.mark.parametrize(
    ("resource", "realm", "grade"),
    [
        ({"service.name": "mailer"}, "agent:mailer", "attested"),
        ({"gen_ai.agent.name": "clerk", "service.name": "mailer"}, "agent:clerk", "attested"),
        ({"gen_ai.agent.name": "planner", "service.name": "mailer"}, "agent:mailer", "attested"),
        ({"service.name": "stranger"}, "forwarder:gateway", "declared"),
        ({"service.name": ["mailer"]}, "forwarder:gateway", "declared"),
        ({"service.name": "Mailer"}, "forwarder:gateway", "declared"),
        ({}, "forwarder:gateway", "declared"),
    ],
)
def test_a_forwarder_speaks_for_the_agents_it_lists_and_for_nobody_else(
    resource: dict[str, Any], realm: str, grade: str
) -> None:
    speaker = realm_of(spoken(resource), GATEWAY)
    assert (speaker.realm, speaker.grade, speaker.speaks_for) == (realm, grade, ())
    assert speaker.agent == (realm.removeprefix("agent:") if grade == "attested" else None)


def test_a_forwarder_for_all_may_use_any_name_of_good_form() -> None:
    everybody = Speaker("forwarder:g", "authenticated", None, ("*",))
    assert realm_of(spoken({"service.name": "anything"}), everybody).realm == "agent:anything"
    for odd in ("", "x" * 129, "a\nb", "\u202eagent"):
        assert realm_of(spoken({"service.name": odd}), everybody).grade == "declared"


@pytest.mark.parametrize("speaker", [LOCAL, ALICE])
def test_whoever_is_no_forwarder_is_who_the_credential_says(speaker: Speaker) -> None:
    assert realm_of(spoken({"service.name": "mailer"}), speaker) is speaker


async def test_log_records_of_a_forwarder_are_taken_like_spans() -> None:
    world = World()
    await world.take(logs(record(), record()), GATEWAY, kind="logs")
    assert world.tally.requests == {("logs", "stored"): 1}


async def test_a_flood_waits_behind_itself_and_not_before_others() -> None:
    turns = Turns(most=2, each=1)
    order: list[str] = []
    go_on = asyncio.Event()

    async def work(name: str, speaker: Speaker) -> None:
        async with turns.of(speaker):
            order.append(name)
            await go_on.wait()

    flood = [asyncio.create_task(work(f"alice {n}", ALICE)) for n in range(10)]
    await asyncio.sleep(0)
    one = asyncio.create_task(work("bob", BOB))
    await asyncio.sleep(0)
    assert order == ["alice 0", "bob"]
    go_on.set()
    await asyncio.gather(*flood, one)
    assert len(order) == 11
    assert len(turns._own) == 0


def test_room_is_shared_and_half_of_it_is_the_most_for_one() -> None:
    room = Room(100)
    assert room.take(ALICE, 150, 0)  # nobody else is there
    assert not room.take(BOB, 1, 0)
    room.give_back(ALICE, 150)
    assert room.take(ALICE, 30, 0)
    assert not room.take(ALICE, 30, 0)
    assert room.take(BOB, 40, 0)
    assert room.take(ALICE, 20, 30)
    assert not room.take(BOB, 11, 40)
    room.give_back(ALICE, 50)
    room.give_back(BOB, 40)
    assert (room._held, room._by_identity) == (0, {})
