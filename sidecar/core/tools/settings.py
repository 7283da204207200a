"""The operator's word on tools. Apart from the rest because pydantic is slow to import and the catalogue needs none."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from sidecar.core.tools.act import Override
from sidecar.core.tools.catalogue import ToolCatalogue
from sidecar.settings import Settings


def _plain_name(name: str) -> str:
    if not name.isascii() or not name.isprintable() or " " in name:
        raise ValueError("a name is printable ASCII without blanks; a look-alike letter or a trailing blank hides here")
    return name


def _argument(path: str) -> str:
    return path if path.startswith("arguments.") else f"arguments.{path}"


PlainName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_plain_name)]
ArgumentPath = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_argument)]


class ToolOverride(Settings):
    """What one tool does; what is left out stays as the catalogue sees it."""

    reads: bool | None = None
    """It brings content in."""
    sends: bool | None = None
    """It takes content out to somebody."""
    changes: bool | None = None
    """It alters something."""
    runs: bool | None = None
    """It executes code or commands."""
    reversible: bool | None = None
    """It can be undone. Left out, a tool that something is added to here is irreversible."""
    standing: bool | None = None
    """Its effect outlives the act: a schedule, a rule, a key, a share."""
    outward: bool | None = None
    """What its arguments hold reaches a server outside, also where it only reads."""
    recipient_fields: tuple[ArgumentPath, ...] | None = None
    """Arguments that name whom or where it goes, for instance `[to, cc]`."""
    content_fields: tuple[ArgumentPath, ...] | None = None
    """Arguments that hold what goes there."""

    @model_validator(mode="after")
    def _says_something_sound(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("says nothing; write for instance `reversible: false`")
        if self.standing and self.reversible:
            raise ValueError("what is standing outlives the act and is irreversible: leave out one of the two")
        return self

    def override(self) -> Override:
        return Override(**self.model_dump())


class ToolSettings(Settings):
    """Which tools do what, and whose word counts (`tools:`)."""

    overrides: dict[PlainName, ToolOverride] = Field(default_factory=dict)
    """By a tool's name without decoration, its whole name, or a pattern of either (`*`, `?`). An exact name goes before
    patterns, an earlier pattern before a later one."""
    trusted_servers: tuple[PlainName, ...] = ()
    """MCP servers whose hints and descriptions may also lower a tool's class."""
    closed: bool = False
    """Deny tools that the catalogue does not know."""

    @model_validator(mode="after")
    def _leaves_the_unknown_irreversible(self) -> Self:
        for pattern, override in self.overrides.items():
            if override.reversible and not pattern.strip("*?"):
                raise ValueError(f"overrides.{pattern}: fits every tool; name the tools that are reversible")
        return self

    def catalogue(self, *, capacity: int = 1024) -> ToolCatalogue:
        """A catalogue that goes by these settings."""
        return ToolCatalogue(
            {name: override.override() for name, override in self.overrides.items()},
            trusted_servers=self.trusted_servers,
            capacity=capacity,
        )
