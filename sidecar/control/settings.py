"""Settings of the control API's doors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sidecar.control import sockets
from sidecar.control.auth import CredentialSettings
from sidecar.settings import Bytes, Count, Seconds, Settings
from sidecar.sources.otlp import Address, TlsSettings, is_loopback, split_address


class ControlSettings(Settings):
    """The doors for agents and for operators."""

    agents: Address | None = "127.0.0.1:4320"
    """Where agents come; null is nowhere. On any address but loopback it needs `tls` and credentials."""
    agents_socket: Path | None = Path(sockets.AGENTS)
    """Unix socket for agents, in the data directory unless absolute; null is none."""
    agents_socket_mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "0666"
    """Who may come by it, as file mode: like loopback open to this machine's users, as far as its directory is."""
    operators_socket: Path | None = Path(sockets.OPERATORS)
    """Unix socket for operators, always of mode 0600, in the data directory unless absolute; null is none. Whoever can
    open it is an operator, which is the user the sidecar runs as, and root."""
    operators: Address | None = None
    """Where operators come over the network, e.g. 10.0.0.5:4321; null is nowhere. Needs `tls` and credentials."""
    tls: TlsSettings | None = None
    """Certificate for those doors that need one."""
    credentials: CredentialSettings = CredentialSettings()
    """Who has which credential."""

    deadline: Annotated[Seconds, Field(ge=0.02, le=5)] = 0.25
    """How long agents wait for an answer before they take it for a no."""
    lease: Annotated[Seconds, Field(ge=0.3, le=10)] = 3.0
    """Agents that hear nothing for so long put their sessions on hold; heartbeats come three times as often."""
    grants: Literal["none", "irreversible", "every"] = "irreversible"
    """Which allows come with a grant, for proxies that redeem one before they execute an act."""
    grant_life: Annotated[Seconds, Field(ge=1, le=60)] = 60.0
    """How long a grant is good for."""

    streams: Count = 1024
    """Watch streams of one credential; the newest stay."""
    followers: Count = 64
    """Follow streams of all operators together."""
    calls: Annotated[int, Field(ge=16, le=10**9)] = 8192
    """Calls under way at a time at the agents' door, those that wait for a person included."""
    connections: Count = 2048
    """Connections that each door keeps open at a time."""
    questions_per_s: Count = 2000
    """Questions a second of one credential, up to ten seconds' worth at once; beyond, agents are told to wait."""
    waits: Count = 2048
    """Calls of one credential that wait for a person, or are streams of questions; beyond, nobody waits."""
    sessions_per_s: Count = 200
    """New sessions a second of one credential, likewise."""
    max_message: Annotated[Bytes, Field(ge=64 * 1024, le=64 * 2**20)] = 8 * 2**20
    """Largest message."""

    @model_validator(mode="after")
    def _is_guarded(self) -> ControlSettings:
        if self.agents and not is_loopback(split_address(self.agents)[0]):
            self._require_guard("agents", self.agents)
        if self.operators:
            self._require_guard("operators", self.operators)
        return self

    def _require_guard(self, name: str, address: str) -> None:
        if self.tls is None or self.credentials.file is None:
            raise ValueError(f"{name} listens on {address}: set tls and credentials.file")
