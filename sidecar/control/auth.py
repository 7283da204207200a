"""Who may call what: credentials, the matrix of methods and roles, and a record of every denial."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import pwd
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

from msgspec import Struct
from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from sidecar import yaml
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import ConfigError, ControlError
from sidecar.settings import Seconds, Settings
from sidecar.storage import Entry, Instant
from sidecar.storage.sqlite import check_file

log = logging.getLogger("sidecar.control")

Role = Literal["agent", "forwarder", "detector", "viewer", "operator", "local"]
"""`local` is whoever comes to an agents' door on loopback without a credential; no credential has that role."""
DoorName = Literal["agents", "operators"]

PREFIX = "sct_"

_ASKS = frozenset({"agent", "local"})
_LOOKS = frozenset({"viewer", "operator"})
_RULES = frozenset({"operator"})

MATRIX: dict[str, frozenset[str]] = {
    "AgentService.OpenSession": _ASKS,
    "AgentService.Watch": _ASKS,
    "AgentService.Authorize": _ASKS,
    "AgentService.AuthorizeStream": _ASKS,
    "AgentService.AwaitDecision": _ASKS,
    "AgentService.RedeemGrant": _ASKS,
    "AgentService.ReportOutcome": _ASKS,
    "AgentService.Acknowledge": _ASKS,
    "AgentService.Escalate": _ASKS,
    "OperatorService.GetStatus": _LOOKS,
    "OperatorService.ListSessions": _LOOKS,
    "OperatorService.ListAlerts": _LOOKS,
    "OperatorService.GetEvidence": _LOOKS,
    "OperatorService.ListApprovals": _LOOKS,
    "OperatorService.ListAudit": _LOOKS,
    "OperatorService.Follow": _LOOKS,
    "OperatorService.Pause": _RULES | {"detector"},
    "OperatorService.Resume": _RULES,
    "OperatorService.Terminate": _RULES,
    "OperatorService.Decide": _RULES,
    "OperatorService.Review": _RULES,
}
"""Method → roles that may call it; nobody else may. A method of the API that is not here stops the start."""


def methods() -> Iterator[str]:
    """Every method of the API, as ``Service.Method``."""
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield f"{service.name}.{method.name}"


def roles_of(method: str) -> frozenset[str]:
    """Who may call `method`.

    Raises:
        ConfigError: `MATRIX` says nothing about it.
    """
    if method not in MATRIX:
        raise ConfigError(f"{method} is not in the matrix of methods and roles")
    return MATRIX[method]


class Caller(Struct, frozen=True):
    """Who calls.

    Attributes:
        name: For the audit log: the credential's name, ``unix:USER`` on the operators' socket, or ``local``.
        speaker: What its sessions belong to; `LOCAL` for those who have none.
        token: SHA-256 of its credential, b"" without one.
    """

    name: str
    role: Role
    speaker: Speaker = LOCAL
    token: bytes = b""


# ------------------------------------------------------------ credentials

_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]([ -~]*[!-~])?$")]


def _digest(text: str) -> str:
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise ValueError("expected the SHA-256 of a token, 64 lower-case hexadecimal digits")
    return text


class Token(Settings):
    """One credential. The file never holds the token itself."""

    name: _Name
    """Names the credential in the audit log."""
    role: Literal["agent", "forwarder", "detector", "viewer", "operator"]
    """What it may do."""
    sha256: Annotated[str, AfterValidator(_digest)]
    """SHA-256 of the token, in hexadecimal digits."""
    agent: _Name | None = None
    """Agents only: the agent it stands for; its own name where left out."""
    speaks_for: tuple[_Name, ...] = ()
    """Forwarders only: agents that it may name; ``*`` is all of them."""
    expires: AwareDatetime | None = None
    """After this moment it is refused; with a time zone, e.g. 2027-01-31T00:00:00Z."""

    @model_validator(mode="after")
    def _fits_role(self) -> Token:
        if self.agent is not None and self.role != "agent":
            raise ValueError("only a credential of role agent names an agent")
        if bool(self.speaks_for) != (self.role == "forwarder"):
            raise ValueError("speaks_for belongs to a forwarder, and a forwarder needs it")
        return self


class Tokens(Settings):
    """The file of credentials."""

    tokens: tuple[Token, ...] = ()
    """All credentials; names and digests are unique."""

    @model_validator(mode="after")
    def _are_unique(self) -> Tokens:
        for what in ("name", "sha256"):
            values = [getattr(token, what) for token in self.tokens]
            if len(set(values)) != len(values):
                raise ValueError(f"two tokens have the same {what}")
        return self


class CredentialSettings(Settings):
    """Where credentials are kept."""

    file: Path | None = None
    """YAML or JSON file of tokens, our own and of mode 0600 or stricter; it is read again when it changes. Without one
    nobody has a credential: then agents come by loopback or socket, and operators by their socket."""
    look: Annotated[Seconds, Field(gt=0, le=60)] = 1.0
    """How often to look whether the file has changed."""


class _Known(Struct, frozen=True):
    caller: Caller
    digest: bytes
    until_ns: int


class Credentials:
    """Knows tokens by their digest. Implements `sources.Doorman`.

    A file that has changed and cannot be read leaves the last good one in force, and `problem` says why.

    Args:
        clock_ns: Wall clock, Unix nanoseconds, for expiry.
    Raises:
        ConfigError: The file is open to others, not ours, or not what it should be.
    """

    def __init__(
        self,
        settings: CredentialSettings | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or CredentialSettings()
        self._clock_ns, self._monotonic_s = clock_ns, monotonic_s
        self._known: dict[bytes, _Known] = {}
        self._seen: tuple[int, int, int] | None = None
        self._look_at_s = 0.0
        self._user = f"unix:{_user()}"
        self.problem = ""
        if self._settings.file is not None:
            self._read(self._settings.file)

    def identify(self, token: str | None, *, loopback: bool) -> Speaker:
        """Whose telemetry it is; see `sources.Doorman`.

        Raises:
            ControlError: ``UNAUTHENTICATED``, or ``PERMISSION_DENIED`` for a credential that sends no telemetry.
        """
        if token is None:
            if loopback:
                return LOCAL
            raise ControlError("UNAUTHENTICATED", "a credential is needed")
        caller = self._caller(token)
        if caller.role not in ("agent", "forwarder"):
            raise ControlError("PERMISSION_DENIED", "this credential sends no telemetry")
        return caller.speaker

    def caller(self, token: str | None, door: DoorName, *, local: bool) -> Caller:
        """Who calls at a door of the control API.

        Args:
            local: The door is on loopback or a Unix socket. An operators' socket is closed to all but its owner by its
                file mode: gRPC does not tell who is at its other end.
        Raises:
            ControlError: ``UNAUTHENTICATED``.
        """
        if token is not None:
            return self._caller(token)
        if not local:
            raise ControlError("UNAUTHENTICATED", "a credential is needed")
        return _ANYBODY if door == "agents" else Caller(self._user, "operator")

    def is_valid(self, caller: Caller) -> bool:
        """Whether the credential that somebody came with is still good; for streams, which last."""
        if not caller.token:
            return True
        self._look()
        known = self._known.get(caller.token)
        return known is not None and known.caller == caller and self._clock_ns() < known.until_ns

    def _caller(self, token: str) -> Caller:
        self._look()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)  # finding it tells nothing of a token: who chooses a digest cannot invert it
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise ControlError("UNAUTHENTICATED", "this credential is not known")
        if self._clock_ns() >= known.until_ns:
            raise ControlError("UNAUTHENTICATED", "this credential is not known")
        return known.caller

    def _look(self) -> None:
        now_s = self._monotonic_s()
        if self._settings.file is None or now_s < self._look_at_s:
            return
        self._look_at_s = now_s + self._settings.look
        try:
            if _version(self._settings.file) != self._seen:
                self._read(self._settings.file)
                self.problem = ""
        except (ConfigError, OSError) as error:
            if not self.problem:
                log.error("the credentials read last stay in force: %s", error)
            self.problem = str(error)

    def _read(self, file: Path) -> None:
        try:
            path = file.resolve(strict=True)
            check_file(path)
            seen = _version(file)
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=str(file)) from error
        found: Tokens = yaml.validated(Tokens, yaml.load(path), str(file))
        self._known = {known.digest: known for known in map(_known, found.tokens)}
        self._seen = seen


_ANYBODY = Caller("local", "local")


def new_token() -> tuple[str, str]:
    """A new token and what stands for it in the file of credentials."""
    token = PREFIX + secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def _known(token: Token) -> _Known:
    digest = bytes.fromhex(token.sha256)
    speaker = LOCAL
    if token.role == "agent":
        agent = token.agent or token.name
        speaker = Speaker(f"agent:{agent}", "authenticated", agent)
    elif token.role == "forwarder":
        speaker = Speaker(f"forwarder:{token.name}", "authenticated", None, token.speaks_for)
    until_ns = 2**63 - 1 if token.expires is None else int(token.expires.timestamp()) * 10**9
    return _Known(Caller(token.name, token.role, speaker, digest), digest, until_ns)


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


# ------------------------------------------------------------ denials


class Counts(Protocol):
    """What the control API counts."""

    def denied(self, door: str, method: str, reason: str) -> None:
        """Somebody was not let in; `reason` is ``unauthenticated`` or ``forbidden``."""
        ...

    def refused(self, method: str, code: str) -> None:
        """A call that was let in was answered with an error; `code` is a gRPC status name."""
        ...

    def asked(self, answer: str, ground: str, seconds: float) -> None:
        """A question at the gate was answered, that long after it came."""
        ...

    def dropped_spans(self, spans: int) -> None:
        """An agent's SDK says that it has lost spans."""
        ...


class Denials:
    """Puts every denial on record. A flood of them shares records: one for each kind and second, with their number.

    Memory: one number for each kind of denial: door, method, role, reason.

    Args:
        record: Takes an entry for the audit log; must not block.
    """

    BURST, PER_S = 100, 10

    def __init__(
        self, record: Callable[[Entry], None], counts: Counts, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._record, self._counts, self._monotonic_s = record, counts, monotonic_s
        self._left, self._at_s = float(self.BURST), monotonic_s()
        self._many: dict[tuple[str, str, str, str], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, door: str, method: str, who: str, role: str, reason: str) -> None:
        """Somebody was denied something.

        Args:
            who: The credential's name, or the peer's address where there is none.
        """
        self._counts.denied(door, method, reason)
        now_s = self._monotonic_s()
        self._left = min(self.BURST, self._left + (now_s - self._at_s) * self.PER_S)
        self._at_s = now_s
        if self._left >= 1 and not self._many:
            self._left -= 1
            self._put(who, {"door": door, "method": method, "role": role, "reason": reason})
            return
        kind = (door, method, role, reason)
        self._many[kind] = self._many.get(kind, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self.flush)

    def flush(self) -> None:
        """Puts on record what has been summed up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        many, self._many = self._many, {}
        for (door, method, role, reason), count in many.items():
            detail: dict[str, str | int | bool] = {"door": door, "method": method, "role": role, "reason": reason}
            self._put("many", detail | {"count": count})

    def _put(self, who: str, detail: dict[str, str | int | bool]) -> None:
        self._record(Entry(at=Instant.now(), actor=who[:256], action="denied", detail=detail))
