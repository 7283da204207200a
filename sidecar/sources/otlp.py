"""What the two OTLP doors have in common: their settings, who may come in, and how a refusal is said."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import math
import stat
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from msgspec import Struct
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from pydantic import AfterValidator, Field, model_validator

from sidecar.core.span import Speaker
from sidecar.errors import ConfigError, ControlError, SpanError, StorageError
from sidecar.settings import Bytes, Count, Seconds, Settings
from sidecar.sources import Doorman, InboxFullError
from sidecar.sources.decode import Signal
from sidecar.sources.intake import BusyError, Receipt
from sidecar.sources.limits import OverLimitError

if TYPE_CHECKING:
    from cryptography import x509  # loaded where there is TLS: the gate waits for all that is loaded here

METRICS_IGNORED = "metrics are not used here"

_LONGEST_TOKEN = 8 * 1024


def split_address(address: str) -> tuple[str, int]:
    """``host:port``, with an IPv6 host in brackets.

    Raises:
        ValueError: It is something else.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port, for instance 127.0.0.1:4317 or [::1]:4317")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        ipaddress.IPv6Address(host)
    elif ":" in host or not host:
        raise ValueError("expected host:port; an IPv6 host stands in brackets, all hosts are 0.0.0.0 or [::]")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or ``localhost``, is this machine as seen from itself."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _checked(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_checked)]


class TlsSettings(Settings):
    """A listener's certificate; TLS 1.2 at least."""

    certificate: Path
    """PEM file with the certificate and those that it was signed by."""
    key: Path
    """PEM file with its key; must not be readable by everybody."""
    client_ca: Path | None = None
    """PEM file; when set, clients must show a certificate that one of these signed."""


class OtlpSettings(Settings):
    """The doors for OTLP, gRPC and HTTP."""

    grpc: Address | None = "127.0.0.1:4317"
    """Where gRPC is listened for; null is nowhere."""
    http: Address | None = "127.0.0.1:4318"
    """Where HTTP is listened for; null is nowhere."""
    anonymous: bool = False
    """Take telemetry without a credential from other machines too. Whoever sends it is then declared, never known."""
    tls: TlsSettings | None = None
    """Needed on any address but loopback, unless `anonymous`."""
    max_request: Bytes = Field(default=16 * 2**20, ge=1024)
    """Largest request, decompressed."""
    connections: Count = 512
    """Connections that each of the doors keeps open at a time."""
    streams: Count = 128
    """Requests at a time on one gRPC connection."""
    header_timeout: Seconds = Field(default=10.0, gt=0)
    """How long a client may take to say what it wants."""
    body_timeout: Seconds = Field(default=20.0, gt=0)
    """How long a client may take to send a request's content."""
    idle_timeout: Seconds = Field(default=75.0, gt=0)
    """How long an HTTP connection is kept open without a request."""
    buffered: Bytes = Field(default=128 * 2**20, ge=1024)
    """Bytes of HTTP requests that are held at a time, as they come and decompressed; half of them may be of one
    identity. Beyond, clients are asked to come again."""

    @model_validator(mode="after")
    def _is_guarded(self) -> OtlpSettings:
        for name, address in (("grpc", self.grpc), ("http", self.http)):
            if address and not (self.tls or self.anonymous or is_loopback(split_address(address)[0])):
                raise ValueError(
                    f"{name} listens beyond this machine ({address}): set tls, so that credentials can be asked for, "
                    "or anonymous: true to take telemetry from anybody"
                )
        return self


class Pem(Struct, frozen=True):
    """A listener's certificate chain, key and clients' authorities, as PEM."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    names: frozenset[str]


def read_tls(settings: TlsSettings, now: datetime.datetime) -> Pem:
    """Reads and checks what a listener's TLS needs.

    Raises:
        ConfigError: A file cannot be read, its key is open to everybody, or the certificate is not valid at `now`.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate = _read(settings.certificate, "certificate")
    key = _read(settings.key, "key")
    if settings.key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError("everybody can read the key; run: chmod o= FILE", key="tls.key", file=str(settings.key))
    client_ca = _read(settings.client_ca, "client_ca") if settings.client_ca else None
    for name, path, pem in (
        ("certificate", settings.certificate, certificate),
        ("client_ca", settings.client_ca, client_ca),
    ):
        if pem is None:
            continue
        try:
            chain = x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise ConfigError("not a PEM certificate", key=f"tls.{name}", file=str(path)) from error
        for link in chain:
            if not link.not_valid_before_utc <= now <= link.not_valid_after_utc:
                raise ConfigError(
                    f"a certificate is valid from {link.not_valid_before_utc} to {link.not_valid_after_utc}, not now",
                    key=f"tls.{name}",
                    file=str(path),
                )
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    try:
        belongs = load_pem_private_key(key, None).public_key() == leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("not a PEM key without a password", key="tls.key", file=str(settings.key)) from error
    if not belongs:
        raise ConfigError("does not belong to the certificate", key="tls.key", file=str(settings.key))
    return Pem(certificate, key, client_ca, _names(leaf))


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", key=f"tls.{name}", file=str(path)) from error


def _names(certificate: x509.Certificate) -> frozenset[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def identify(doorman: Doorman, authorization: Sequence[str], *, host: str, anonymous: bool) -> Speaker:
    """Who speaks, by the values of the `authorization` header and nothing else that a client says.

    Args:
        host: The peer's address.
    Raises:
        ControlError: ``UNAUTHENTICATED`` or another code of the doorman's.
    """
    token = None
    if authorization:
        scheme, _, token = authorization[0].partition(" ")
        token = token.strip()
        if len(authorization) > 1 or scheme.lower() != "bearer" or not 0 < len(token) <= _LONGEST_TOKEN:
            raise ControlError("UNAUTHENTICATED", "expected one header: authorization: Bearer TOKEN")
    return doorman.identify(token, loopback=is_loopback(host) or (anonymous and token is None))


class Refusal(Struct, frozen=True):
    """How a request is refused, on either door.

    Attributes:
        reason: One of `intake.REASONS`.
        retry_after_s: When trying again makes sense; None when it never does.
    """

    reason: str
    code: grpc.StatusCode
    http: int
    message: str
    retry_after_s: float | None = None

    def status(self) -> Status:
        """The refusal as `google.rpc.Status`."""
        status = Status(code=self.code.value[0], message=self.message)
        if self.retry_after_s is not None:
            whole, part = divmod(round(self.retry_after_s * 1e9), 10**9)
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=Duration(seconds=whole, nanos=part)))
            status.details.append(detail)
        return status

    def status_json(self) -> bytes:
        """The same in JSON."""
        told: dict[str, Any] = {"code": self.code.value[0], "message": self.message}
        if self.retry_after_s is not None:
            told["details"] = [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{self.retry_after_s:.3f}s"}
            ]
        return msgspec.json.encode(told)

    @property
    def retry_after(self) -> str:
        """For the header of that name: whole seconds, at least 1."""
        return str(max(1, math.ceil(self.retry_after_s or 0)))


_Code = grpc.StatusCode
_ANSWERS = {
    "malformed": (_Code.INVALID_ARGUMENT, 400),
    "too_deep": (_Code.INVALID_ARGUMENT, 400),
    "too_many_spans": (_Code.RESOURCE_EXHAUSTED, 413),
    "too_many_nodes": (_Code.RESOURCE_EXHAUSTED, 413),
    "too_large": (_Code.RESOURCE_EXHAUSTED, 413),
    "unsupported": (_Code.UNIMPLEMENTED, 415),
    "slow": (_Code.DEADLINE_EXCEEDED, 408),
}


def refusal(error: Exception) -> Refusal:
    """What is answered when taking a request raised `error`; nothing of what was sent is in it."""
    if isinstance(error, SpanError):
        code, http = _ANSWERS[error.reason]
        return Refusal(error.reason, code, http, str(error))
    if isinstance(error, OverLimitError):
        return Refusal(error.reason, _Code.RESOURCE_EXHAUSTED, 429, "more than one may send", error.retry_after_s)
    if isinstance(error, InboxFullError):
        return Refusal("inbox_full", _Code.UNAVAILABLE, 503, "full, come again", error.retry_after_s)
    if isinstance(error, BusyError):
        return Refusal("busy", _Code.UNAVAILABLE, 503, "busy, come again", error.retry_after_s)
    if isinstance(error, StorageError):
        return Refusal("storage", _Code.UNAVAILABLE, 503, "cannot be stored now, come again", 1.0)
    if isinstance(error, ControlError):
        if error.code == "UNAUTHENTICATED":
            return Refusal("unauthenticated", _Code.UNAUTHENTICATED, 401, "a valid credential is needed")
        return Refusal("forbidden", _Code.PERMISSION_DENIED, 403, "this credential may not do this")
    return Refusal("internal", _Code.INTERNAL, 500, "our mistake")


def response(signal: Signal, receipt: Receipt) -> ExportTraceServiceResponse | ExportLogsServiceResponse:
    """The answer to a request that was taken: with a partial success where something was not, or was changed."""
    rejected = sum(receipt.rejected.values())
    answer: ExportTraceServiceResponse | ExportLogsServiceResponse
    if signal == "traces":
        answer = ExportTraceServiceResponse()
        if rejected:
            answer.partial_success.rejected_spans = rejected
    else:
        answer = ExportLogsServiceResponse()
        if rejected:
            answer.partial_success.rejected_log_records = rejected
    if receipt.message:
        answer.partial_success.error_message = receipt.message
    return answer


def log_ours(log: logging.Logger, error: Exception) -> None:
    """Logs a mistake of ours, once for each place that it comes from: whoever found it can make it come again.

    The error's own words are left out, which may repeat what was sent.
    """
    frames = traceback.format_tb(error.__traceback__)
    place = type(error).__name__ + "".join(frames[-1:])
    if place not in _logged and len(_logged) < 100:
        _logged.add(place)
        log.error("a request failed for a reason of ours: %s\n%s", type(error).__name__, "".join(frames))


_logged: set[str] = set()
