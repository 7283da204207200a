"""What can go wrong, sorted by whose mistake it is.

SidecarError
├── ConfigError      the operator's: start is refused, key and file named
├── SpanError        the sender's: counted with its reason, the rest goes on
├── DetectorError    ours: counted, the detector is switched off after repeats, never read as "nothing found"
└── OutsideError     the world's; `retriable` says whether trying again can help
    ├── SourceError
    ├── StorageError
    ├── ControlError
    └── NotifyError
"""

from __future__ import annotations


class SidecarError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigError(SidecarError):
    """The operator's mistake, found before the first span.

    Args:
        message: What is wrong, in words an operator understands.
        key: Dotted path of the setting, "" when it is the file as a whole.
        file: Where it was read, "" when it came from elsewhere.
    """

    def __init__(self, message: str, *, key: str = "", file: str = "") -> None:
        self.key, self.file, self.message = key, file, message
        where = ": ".join(part for part in (file, key) if part)
        super().__init__(f"{where}: {message}" if where else message)


class SpanError(SidecarError):
    """The sender's mistake in one span or request; `reason` is a metric label from a closed list."""

    def __init__(self, reason: str, message: str = "") -> None:
        self.reason = reason
        super().__init__(message or reason)


class DetectorError(SidecarError):
    """Our mistake inside one detector; the act it judged is `unscored: detector_failed`."""


class OutsideError(SidecarError):
    """Something outside this process failed."""

    retriable = True


class SourceError(OutsideError):
    """A source of spans cannot be read."""


class StorageError(OutsideError):
    """The disk refused; nothing that promises durability may be answered."""


class ControlError(OutsideError):
    """A control call was refused. `code` is the gRPC status name, for instance ``FAILED_PRECONDITION``."""

    retriable = False

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class NotifyError(OutsideError):
    """An alert could not be delivered."""
