"""Which words of a span a forwarder's trust rests on, and that the shipped Collector takes just those off on entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from sidecar.core.semconv.names import IDENTITY
from sidecar.core.span import Span, Speaker
from sidecar.sources.identity import AGENT_KEYS, realm_of

SHIPPED = Path(__file__).parents[3] / "deploy/collector.yaml"
FORWARDERS = (
    Speaker("forwarder:gateway", "authenticated", None, ("clerk", "desk")),
    Speaker("forwarder:fleet", "attested", None, ("*",)),
)
SPAN = Span("span", "1" * 32, "2" * 16, "", "tool", 1, 2, {})
CLAIMED = {key: "clerk" for keys in IDENTITY.values() for key in keys} | {
    "service.name": "clerk", "service.instance.id": "clerk", "sidecar.agent": "clerk", "sidecar.realm": "agent:clerk",
    "baggage": "gen_ai.agent.name=clerk", "declared.service.name": "clerk", "declared.gen_ai.agent.name": "clerk",
}  # fmt: skip


class Watched(dict[str, Any]):
    """Attributes that remember which of them were asked for."""

    def __init__(self, asked: set[str]) -> None:
        super().__init__()
        self.asked = asked

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return default

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return False

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        raise KeyError(key)

    def __iter__(self) -> Any:
        raise AssertionError("it looks at all keys; the Collector cannot take all of them off")

    keys = items = values = __iter__  # type: ignore[assignment]


def trusted() -> set[str]:
    """Resource attributes that the sidecar asks for when it works out whom a forwarder speaks for."""
    asked: set[str] = set()
    elsewhere: set[str] = set()
    for forwarder in FORWARDERS:
        span = replace(SPAN, resource=Watched(asked), attributes=Watched(elsewhere), rest=Watched(elsewhere))
        assert realm_of(span, forwarder).grade == "declared"
    assert not elsewhere, "what a span itself says is the agent's word, which no Collector can vouch for"
    return asked


def stripped(key: str) -> bool:
    """Whether the shipped Collector takes a resource attribute off, of spans and of log records."""
    strip = yaml.safe_load(SHIPPED.read_text())["processors"]["transform/strip"]
    deleted = [
        re.fullmatch(r'delete_matching_keys\(resource\.attributes, "(.+)"\)', line)
        for line in strip["trace_statements"]
    ]
    patterns = [found[1].replace("\\\\", "\\") for found in deleted if found]
    assert strip["log_statements"] == strip["trace_statements"]
    assert patterns
    return any(re.search(pattern, key) for pattern in patterns)


def test_every_key_that_the_sidecar_trusts_is_taken_off_and_no_other() -> None:
    assert trusted() == set(AGENT_KEYS)
    assert {key for key in CLAIMED if stripped(key)} == set(AGENT_KEYS)


def test_every_pipeline_strips_before_anything_else() -> None:
    pipelines = yaml.safe_load(SHIPPED.read_text())["service"]["pipelines"]
    assert pipelines.keys() == {"traces", "logs"}
    assert all(pipeline["processors"][0] == "transform/strip" for pipeline in pipelines.values())


@pytest.mark.parametrize("forwarder", FORWARDERS)
def test_what_is_left_of_a_forged_resource_names_nobody(forwarder: Speaker) -> None:
    left = {key: value for key, value in CLAIMED.items() if not stripped(key)}
    span = replace(SPAN, resource=left, attributes=CLAIMED, rest={"scope_attributes": CLAIMED}, body=CLAIMED)
    said_by = realm_of(span, forwarder)
    assert (said_by.realm, said_by.grade, said_by.agent) == (forwarder.realm, "declared", None)


@pytest.mark.parametrize("key", AGENT_KEYS)
def test_what_a_forwarder_puts_there_is_believed(key: str) -> None:
    said_by = realm_of(replace(SPAN, resource={key: "clerk"}), FORWARDERS[0])
    assert (said_by.realm, said_by.grade, said_by.agent) == ("agent:clerk", "attested", "clerk")
    stranger = realm_of(replace(SPAN, resource={key: "stranger"}), FORWARDERS[0])
    assert (stranger.realm, stranger.grade, stranger.agent) == ("forwarder:gateway", "declared", None)
