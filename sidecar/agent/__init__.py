"""What runs in an agent's process: it asks the sidecar before each act, and tells what happened as OpenTelemetry.

    import sidecar.agent as sidecar

    agent = sidecar.connect("mail-helper")

    @agent.tool
    def send_mail(to: str, subject: str, body: str) -> str: ...

    with agent.session() as session:
        session.message("user", "Please answer the mails")
        send_mail("amy@corp.example", "Re: lunch", "Gladly.")

For asyncio, `sidecar.agent.aio` has the same names. It needs only gRPC, protobuf and OpenTelemetry. It holds an agent
that has only tools: an agent with a shell can walk round it, and wants the tool proxy as well.
"""

from __future__ import annotations

from sidecar.agent.acts import Act
from sidecar.agent.agent import Agent, connect
from sidecar.agent.errors import (
    ActHeld,
    ActRefused,
    SessionPaused,
    SessionTerminated,
    SidecarMisconfigured,
    SidecarRefusal,
    SidecarUnavailable,
)
from sidecar.agent.session import Escalation, ModelCall, Run, Session

__all__ = [
    "Act",
    "ActHeld",
    "ActRefused",
    "Agent",
    "Escalation",
    "ModelCall",
    "Run",
    "Session",
    "SessionPaused",
    "SessionTerminated",
    "SidecarMisconfigured",
    "SidecarRefusal",
    "SidecarUnavailable",
    "connect",
]
