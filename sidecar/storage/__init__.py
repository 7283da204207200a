"""What must survive a crash: telemetry.db (inbox, checkpoints) and control.db (run states, grants, audit log)."""

from sidecar.storage.audit import Entry, Head, Instant, Record, Verdict
from sidecar.storage.control import ControlReader, ControlStore
from sidecar.storage.records import (
    Approval,
    ControlBatch,
    ControlState,
    Grant,
    Request,
    RequestExistsError,
    SavedRun,
    SavedScope,
)
from sidecar.storage.settings import StorageSettings
from sidecar.storage.telemetry import Checkpoint, Purged, TelemetryStore
from sidecar.storage.writer import DiskFullError, QueueFullError, Writer

__all__ = [
    "Approval",
    "Checkpoint",
    "ControlBatch",
    "ControlReader",
    "ControlState",
    "ControlStore",
    "DiskFullError",
    "Entry",
    "Grant",
    "Head",
    "Instant",
    "Purged",
    "QueueFullError",
    "Record",
    "Request",
    "RequestExistsError",
    "SavedRun",
    "SavedScope",
    "StorageSettings",
    "TelemetryStore",
    "Verdict",
    "Writer",
]
