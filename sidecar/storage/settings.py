"""Settings of what is kept on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from sidecar.settings import Bytes, Seconds, Settings

_MIB = 2**20


def default_data_dir() -> Path:
    """``agent-sidecar`` under XDG_STATE_HOME (only an absolute one counts), else under ``~/.local/state``."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "agent-sidecar"


class StorageSettings(Settings):
    """Where state is kept, how much of it, and for how long."""

    data_dir: Path = Field(default_factory=default_data_dir)
    """Directory of control.db, telemetry.db and their keys: on a local disk, owned by the sidecar's user, mode 0700.
    Defaults to agent-sidecar under XDG_STATE_HOME, else under ~/.local/state."""

    telemetry_max_bytes: Annotated[Bytes, Field(ge=4 * _MIB)] = 2048 * _MIB
    """Largest size of telemetry.db, e.g. 2GiB. Above it the oldest rows go first, never those that are not yet in a
    checkpoint; when only such rows are left, senders are told to retry."""

    telemetry_max_age_s: Annotated[Seconds, Field(gt=0)] = 7 * 86400.0
    """Rows older than this are removed, e.g. 7d, with the same exception."""

    telemetry_zstd: bool = False
    """Compress rows that shrink (zstd, level 1): about 40 % of the disk for about three times the CPU per row."""

    low_water_bytes: Bytes = 256 * _MIB
    """Free space on the disk below which telemetry is refused, so that control writes do not fail, e.g. 256MiB."""

    ballast_bytes: Annotated[Bytes, Field(le=1024 * _MIB)] = 8 * _MIB
    """Space kept for pauses: a file that is given up when a pause meets a full disk, e.g. 8MiB. 0 keeps none."""

    checkpoint_interval_s: Annotated[Seconds, Field(ge=1, le=3600)] = 15.0
    """Time between checkpoints of the engine's state, e.g. 15s; a restart reads at most this much again."""

    control_max_age_s: Annotated[Seconds, Field(gt=0)] = 90 * 86400.0
    """Resolved alerts and decided approvals older than this are removed, e.g. 90d. The audit log is never pruned."""

    @model_validator(mode="after")
    def _low_water_covers_ballast(self) -> StorageSettings:
        if self.low_water_bytes < self.ballast_bytes:
            raise ValueError("low_water_bytes must not be below ballast_bytes: telemetry would eat the reserve")
        return self
