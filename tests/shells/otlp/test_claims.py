"""Row 15: what an agent's own credential may say whose session it is."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.events import NO_AGENT, SessionKey
from sidecar.core.pipeline import Outcome
from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import ControlError
from sidecar.sources.claims import Claims
from sidecar.sources.intake import Intake
from sidecar.sources.otlp import refusal
from tests.core.kit import START_NS, core
from tests.shells.otlp.kit import AT, FakeFeeder, FakeInbox, Tally, span, traces

ALICE, BOB = Speaker("agent:alice", "authenticated", "alice"), Speaker("agent:bob", "authenticated", "bob")
GATEWAY = Speaker("forwarder:gateway", "authenticated", None, ("alice", "bob"))
ID = "a-long-enough-session-id"


class World:
    """A core that knows a session of Alice's, and a door to it."""

    def __init__(self) -> None:
        self.pipeline, self.alerts, self.tally = core(), [], Tally()
        self.inbox = FakeInbox()
        self.pipeline.open_session(SessionKey("agent:alice", ID), NO_AGENT, START_NS)
        self.pipeline.sessions.open(SessionKey("agent:alice", ID), START_NS).grade = "authenticated"
        claims = Claims(self.pipeline, self.settle, lambda: START_NS)
        self.intake = Intake(self.inbox, FakeFeeder(), self.tally, is_false=claims.are_false)

    def settle(self, outcome: Outcome) -> None:
        self.alerts += outcome.alerts

    async def send(self, speaker: Speaker, session: str) -> Any:
        body = traces(span(1, [("gen_ai.conversation.id", session)])).SerializeToString()
        return await self.intake.take("traces", body, "proto", speaker, AT, door="otlp_grpc")


@pytest.fixture
def world() -> World:
    return World()


async def test_row_15_a_session_of_anothers_credential_is_refused_with_an_alert(world: World) -> None:
    with pytest.raises(ControlError) as refused:
        await world.send(BOB, ID)
    answer = refusal(refused.value)
    assert (answer.code.name, answer.http, ID in answer.message) == ("PERMISSION_DENIED", 403, False)
    assert [(alert.detector, alert.session.realm) for alert in world.alerts] == [("identity_mismatch", "agent:bob")]
    assert world.inbox.rows == []
    assert (world.tally.reasons["forbidden"], world.tally.spans["refused"]) == (1, 1)


async def test_row_15_the_same_claim_again_is_the_same_alert(world: World) -> None:
    for _ in range(3):
        with pytest.raises(ControlError):
            await world.send(BOB, ID)
    assert {(alert.fingerprint, alert.count) for alert in world.alerts} == {(world.alerts[0].fingerprint, 1)}


@pytest.mark.parametrize(
    ("speaker", "session"), [(ALICE, ID), (BOB, "s-1"), (BOB, "another-long-session-id"), (GATEWAY, ID), (LOCAL, ID)]
)
async def test_row_15_ones_own_sessions_and_those_a_forwarder_may_speak_for_are_taken(
    world: World, speaker: Speaker, session: str
) -> None:
    receipt = await world.send(speaker, session)
    assert receipt.accepted == 1
    assert world.alerts == []
