"""Where the sidecar is, how this process proves who it is, and how long it waits: arguments first, then environment."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import grpc

from sidecar.agent.errors import SidecarMisconfigured

OnHold = Literal["block", "raise"]

CONTROL, OTLP = "127.0.0.1:4320", "127.0.0.1:4317"
ENVIRONMENT = {
    "control": "SIDECAR_CONTROL",
    "otlp": "SIDECAR_OTLP",
    "token": "SIDECAR_TOKEN",
    "token_file": "SIDECAR_TOKEN_FILE",
    "ca": "SIDECAR_CA",
    "cert": "SIDECAR_CERT",
    "key": "SIDECAR_KEY",
    "state_dir": "SIDECAR_STATE_DIR",
}
"""Environment variable of each option that may come from there."""

DEADLINE_BOUNDS_S = (0.02, 5.0)
LEASE_BOUNDS_S = (0.3, 10.0)

# The heartbeat of Watch tells whether the sidecar lives; HTTP/2 pings are the second line. They are sent only when
# heartbeats have stayed away for 2 s, so that a server of default settings does not take them for a flood.
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # the gate is not to be led elsewhere by http_proxy
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to reach the sidecar and how long to wait for it. Durations are seconds.

    Attributes:
        control, otlp: ``host:port`` or ``unix:/path``.
        token, token_file: The agent's credential; the file is read again whenever it has changed.
        ca, cert, key: PEM files; any of them switches TLS on, `cert` and `key` together make it mutual.
        state_dir: Where the highest epoch of each session survives this process; None: nowhere.
        on_hold, on_pause: What an act does while a person decides, or its session is paused: wait, or raise.
        block_s: The longest wait for a person; None waits for ever.
        patience_s: How long a system refusal is asked again before it is believed.
        deadline_s: No answer within it is a denial. The server may shorten it.
        lease_s: No heartbeat within it puts all sessions in HOLD. The server may change it within `LEASE_BOUNDS_S`.
        flush_s: How long `close` waits for spans and reports to get out.
    """

    control: str = CONTROL
    otlp: str = OTLP
    token: str = field(default="", repr=False)
    token_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    state_dir: str = ""
    on_hold: OnHold = "block"
    on_pause: OnHold = "block"
    block_s: float | None = None
    patience_s: float = 5.0
    deadline_s: float = 0.25
    lease_s: float = 3.0
    flush_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("patience_s", "flush_s"):
            _require(math.isfinite(getattr(self, name)) and getattr(self, name) >= 0, f"{name} must be >= 0")
        for name, (low, high) in {"deadline_s": DEADLINE_BOUNDS_S, "lease_s": LEASE_BOUNDS_S}.items():
            _require(low <= getattr(self, name) <= high, f"{name} must be {low} to {high}")
        _require(self.block_s is None or self.block_s >= 0, "block_s must be >= 0, or None to wait for ever")
        for name in ("on_hold", "on_pause"):
            _require(getattr(self, name) in ("block", "raise"), f"{name} must be 'block' or 'raise'")
        _require(bool(self.cert) == bool(self.key), "cert and key belong together")
        _require(not (self.token and self.token_file), "token and token_file exclude each other")
        for target in (self.control, self.otlp):
            _require(
                self.tls or not (self.token or self.token_file) or _stays_here(target),
                f"a token would go to {target} in the clear; give ca= to use TLS",
            )

    @classmethod
    def gather(cls, **given: object) -> Options:
        """Options from arguments; what is None there comes from the environment, else from the defaults.

        Raises:
            SidecarMisconfigured: A value makes no sense; it is named, secrets are not shown.
        """
        values = {name: os.environ[key] for name, key in ENVIRONMENT.items() if os.environ.get(key)}
        if given.get("token") or given.get("token_file"):
            values.pop("token", None)
            values.pop("token_file", None)
        values |= {name: value for name, value in given.items() if value is not None}  # type: ignore[misc]
        wants_tls = [name for name in ("control", "otlp") if str(values.get(name, "")).startswith("https://")]
        for name in ("control", "otlp"):
            if name in values:
                values[name] = re.sub(r"^https?://", "", values[name]).rstrip("/")
        for name in ("token_file", "ca", "cert", "key", "state_dir"):
            if name in values:
                values[name] = os.fspath(values[name])
        options = cls(**values)  # type: ignore[arg-type]
        _require(options.tls or not wants_tls, f"{' and '.join(wants_tls)} asks for TLS; give ca=")
        return options

    @property
    def tls(self) -> bool:
        """Whether channels are encrypted."""
        return bool(self.ca or self.cert)

    def check_files(self) -> None:
        """Reads what `channel` will read.

        Raises:
            SidecarMisconfigured: One of them cannot be read.
        """
        for path in (self.ca, self.cert, self.key):
            _pem(path)

    def channel(self, target: str) -> grpc.Channel:
        """A new channel to `target`."""
        if not self.tls or target.startswith("unix:"):
            return grpc.insecure_channel(target, CHANNEL_OPTIONS)
        return grpc.secure_channel(
            target, grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.cert)), CHANNEL_OPTIONS
        )


class Credential:
    """The agent's token as call metadata; a token file that has changed is read again."""

    def __init__(self, options: Options) -> None:
        self._file = options.token_file
        self._metadata = _bearer(options.token)
        self._seen: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Credential({self._file or 'from the environment or arguments'!r})"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to send with each call.

        Raises:
            SidecarMisconfigured: The token file cannot be read and never could be.
        """
        if self._file:
            try:
                stat = os.stat(self._file)  # noqa: PTH116  # on the way of every act: a Path costs more than the call
                if self._seen != (seen := (stat.st_mtime_ns, stat.st_ino)):
                    self._metadata, self._seen = _bearer(Path(self._file).read_text("utf-8").strip()), seen
            except (OSError, UnicodeDecodeError) as error:
                if self._seen is None:
                    raise SidecarMisconfigured(f"cannot read the token file {self._file}: {error}") from None
        return self._metadata


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    _require(token.isascii() and token.isprintable(), "the token is not one line of ASCII text")
    return (("authorization", f"Bearer {token}"),) if token else ()


def _require(fine: bool, otherwise: str) -> None:
    if not fine:
        raise SidecarMisconfigured(otherwise)


def _stays_here(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SidecarMisconfigured(f"cannot read {path}: {error.strerror}") from None
