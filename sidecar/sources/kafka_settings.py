"""Settings of the Kafka source; apart from it, so that they can be read where the Kafka library is not installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from sidecar.errors import ConfigError
from sidecar.settings import Bytes, Seconds, Settings

LegalName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Server = Annotated[str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]


class KafkaTopic(Settings):
    """What one topic holds. No header tells it, so it is said here."""

    signal: Literal["traces", "logs"]
    """Spans or log records."""
    encoding: Literal["otlp_proto", "otlp_json"] = "otlp_proto"
    """As in the Collector's `traces: {encoding: …}`."""


class KafkaTls(Settings):
    """TLS towards the brokers; files are read again at every connection."""

    ca_file: Path | None = None
    """Authorities to trust; unset: the system's."""
    cert_file: Path | None = None
    """Our certificate, where brokers ask for one."""
    key_file: Path | None = None
    """Its key."""

    @model_validator(mode="after")
    def _has_both_or_none(self) -> KafkaTls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class KafkaSasl(Settings):
    """How we say who we are. The password is in a file or in the environment, never here."""

    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = "SCRAM-SHA-512"
    """How the password is used; PLAIN sends it as it is, and needs TLS."""
    username: str = Field(min_length=1)
    """Name of this sidecar at the brokers."""
    password_file: Path | None = None
    """Its first line; read again at every connection, so that a new password needs no restart."""
    password_env: str | None = None
    """Name of an environment variable."""

    @model_validator(mode="after")
    def _has_one_password(self) -> KafkaSasl:
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("set one of password_file and password_env")
        return self

    def password(self) -> str:
        """The password as it is now.

        Raises:
            ConfigError: There is none.
        """
        if self.password_file is not None:
            try:
                found = self.password_file.read_text().split("\n", 1)[0].rstrip("\r")
            except (OSError, ValueError) as error:
                raise ConfigError(f"cannot be read: {type(error).__name__}", key="kafka.sasl.password_file") from error
        else:
            found = os.environ.get(self.password_env or "", "")
        if not found:
            raise ConfigError("is empty", key=f"kafka.sasl.password_{'file' if self.password_file else 'env'}")
        return found


class KafkaSettings(Settings):
    """Topics to read telemetry from, as an OpenTelemetry Collector's Kafka exporter writes them."""

    name: LegalName = "kafka"
    """Names this source; what arrives by it belongs to the realm ``forwarder:NAME``."""
    bootstrap_servers: tuple[Server, ...] = Field(min_length=1)
    """Brokers to ask first, each ``host:port``."""
    topics: dict[LegalName, KafkaTopic] = Field(
        default={"otlp_spans": KafkaTopic(signal="traces"), "otlp_logs": KafkaTopic(signal="logs")}, min_length=1
    )
    """Topics that do not exist yet are waited for."""
    group_id: LegalName = "agent-sidecar"
    """Sidecars of one group share the partitions."""
    group_instance_id: LegalName | None = None
    """A name that this member keeps over restarts: its partitions are then not moved while it restarts."""
    speaks_for: tuple[str, ...] = ()
    """Agents whose names this source is trusted to tell; ``*`` is all of them."""
    tls: KafkaTls | None = None
    """How brokers are spoken to; unset: in the clear."""
    sasl: KafkaSasl | None = None
    """How we say who we are; unset: not at all."""
    session_timeout: Seconds = Field(default=10.0, ge=2, le=300)
    """After so long without a sign of life our partitions go to others. Brokers allow 6s to 30m by default."""
    max_poll_interval: Seconds = Field(default=60.0, ge=10, le=3600)
    """After so long without asking for messages we leave the group ourselves. Waiting for the inbox does not count."""
    in_flight: int = Field(default=32, ge=1, le=1024)
    """Messages offered to the inbox at the same time."""
    max_message: Bytes = Field(default=16 * 2**20, ge=1024, le=2**30)
    """A larger message is put aside."""
    fetch: Bytes = Field(default=16 * 2**20, ge=64 * 2**10, le=2**30)
    """Most that one answer of a broker may hold, before decompression; a single larger batch comes all the same."""
    fetch_partition: Bytes = Field(default=4 * 2**20, ge=64 * 2**10, le=2**30)
    """The same for one partition."""

    @model_validator(mode="after")
    def _sends_no_password_in_clear(self) -> KafkaSettings:
        if self.sasl and self.sasl.mechanism == "PLAIN" and self.tls is None:
            hosts = {server.rsplit(":", 1)[0] for server in self.bootstrap_servers}
            if not hosts <= {"localhost", "127.0.0.1", "[::1]"}:
                raise ValueError("sasl mechanism PLAIN sends the password as it is: set tls, or use SCRAM")
        return self
