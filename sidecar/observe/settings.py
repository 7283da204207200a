"""Settings of what is seen from outside."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sidecar.settings import Seconds, Settings
from sidecar.sources.otlp import Address, is_loopback, split_address

LevelName = Literal["debug", "info", "warning", "error", "critical"]


def _checked(role: str) -> str:
    if not role.isprintable():
        raise ValueError("a role must be printable")
    return role


Role = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_checked)]


class ObserveSettings(Settings):
    """Logs, metrics, and the HTTP port of `/metrics`, `/healthz` and `/readyz`."""

    http: Address | None = "127.0.0.1:4322"
    """Where HTTP is listened for; null is nowhere."""
    exposed: bool = False
    """Listen beyond this machine, in the clear and without a credential: whoever reaches the port can read all counts
    and the names of agent roles. For a Prometheus that cannot come by loopback, behind a network policy."""
    log_level: LevelName = "info"
    """What is logged at all."""
    log_levels: dict[Annotated[str, Field(min_length=1, max_length=128)], LevelName] = Field(default_factory=dict)
    """Logger → level, for instance `sidecar.sources: debug`; what it does not name has `log_level`. Libraries, that is
    all but `sidecar`, log warnings and worse unless named here."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """One JSON object a line, or a line for people; `auto` is for people on a terminal, else JSON."""
    roles: tuple[Role, ...] = ()
    """Agent roles that always have a label of their own in metrics, whatever characters they are made of."""
    max_roles: int = Field(default=50, ge=0, le=1000)
    """Further roles that get a label, the first ones seen since the start; all others are counted as `other`."""
    first_zero: Seconds = 20.0
    """How long a label set that was not known at the start shows 0 before its count: Prometheus sees no rise in a
    series that is born with a count. A little more than the scrape interval; 0 shows counts at once."""
    held_stale: Seconds = Field(default=3600.0, gt=0)
    """A session held longer than this is counted as `stale`: nobody reviews it."""

    @model_validator(mode="after")
    def _is_guarded(self) -> ObserveSettings:
        if self.http and not self.exposed and not is_loopback(split_address(self.http)[0]):
            raise ValueError(
                f"http listens beyond this machine ({self.http}), in the clear and open to all: set exposed: true if "
                "that is meant"
            )
        return self
