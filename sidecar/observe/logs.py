"""Logs to standard error: one line a record, JSON or for people, with nothing of agents' content and no secrets.

Frequent things are counted (`observe.metrics`), rare things are logged. A record says what happened in words of ours;
what it is about stands in `extra=`. Whatever an agent wrote stays out: fields that would hold it are left out by name,
an exception is told by its type and place, and what is not printable is escaped.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import sys
import traceback
from typing import IO, Any

import re2

from sidecar.errors import ConfigError, OutsideError
from sidecar.observe.settings import ObserveSettings

CONTENT = frozenset((
    "answer", "arguments", "args_json", "attributes", "authorization", "body", "carried", "completion", "content",
    "cookie", "credential", "data", "document", "email", "evidence", "excerpt", "headers", "input", "instructions",
    "key", "message_text", "messages", "output", "password", "payload", "prompt", "question", "quote", "reasoning",
    "recipients", "request", "response", "result", "secret", "snippet", "span", "system", "text", "token", "url",
))  # fmt: skip
"""Fields that no log line has, wherever they come from."""
LONGEST = 1000
"""Characters kept of any text in a record."""
MAX_FIELDS = 32
WITHHELD = "[withheld]"

_OWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_SECRETS = re2.compile(
    r"(?i)(\bbearer\s+|\b(?:authorization|password|passwd|secret|token|api[_-]?key|access[_-]?key)[\"']?\s*[=:]\s*"
    r"(?:bearer\s+|basic\s+)?[\"']?)[^\s\"',;]{4,}"
)
_USER_INFO = re2.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@")


class NoContent(logging.Filter):
    """Takes fields out of a record that could hold content or a secret, and says that it did."""

    def filter(self, record: logging.LogRecord) -> bool:
        refused = sorted(name for name in record.__dict__ if name not in _OWN and name.lower() in CONTENT)
        for name in refused:
            del record.__dict__[name]
        if refused:
            record.__dict__["withheld"] = refused
        return True


def words(text: object) -> str:
    """`text` fit for one line: cut, without secrets, and all that is not printable escaped."""
    try:
        told = str(text)
    except Exception:  # whatever it is, it does not cost the record
        told = type(text).__name__
    if len(told) > LONGEST:
        told = f"{told[:LONGEST]}… ({len(told)} characters)"
    told = _SECRETS.sub(lambda match: f"{match.group(1)}{WITHHELD}", _encodable(told))
    told = _USER_INFO.sub(lambda match: f"{match.group(1)}{WITHHELD}@", told)
    return told if told.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in told)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _value(value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if (isinstance(value, int) and value.bit_length() <= 64) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_value(part) for part in value[:MAX_FIELDS] if not isinstance(part, dict | list | tuple)]
    return words(value)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    own = {name: value for name, value in record.__dict__.items() if name not in _OWN}
    return {words(name): _value(own[name]) for name in list(own)[:MAX_FIELDS]}


def _said(record: logging.LogRecord) -> str:
    try:
        return words(record.getMessage())
    except Exception:  # the arguments do not fit the message: a mistake of ours that must not cost the record
        return words(record.msg)


def error_words(error: BaseException) -> str:
    """An exception, without what it may repeat of an agent's: its words only where they are ours or the system's."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {words(error.strerror)}"
    if isinstance(error, ConfigError | OutsideError):
        return f"{type(error).__name__}: {words(error)}"
    return type(error).__name__


def _places(error: BaseException) -> list[str]:
    """Where an exception came from, innermost last: file, line and function, without the code."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return [f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}" for frame in frames]


def _when(record: logging.LogRecord) -> str:
    at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Json(logging.Formatter):
    """One JSON object a line, all ASCII: `at`, `level`, `logger`, `message`, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": _when(record), "level": record.levelname.lower(), "logger": words(record.name)}
        line["message"] = _said(record)
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        if record.exc_info and (error := record.exc_info[1]) is not None:
            line |= {"error": error_words(error), "trail": _places(error)}  # type: ignore[dict-item]
        return json.dumps(line, ensure_ascii=True, allow_nan=False, default=words)


class Text(logging.Formatter):
    """One line for people."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_when(record)[11:23]} {record.levelname.lower():8} {_said(record)}"
        line += "".join(f" {name}={value}" for name, value in _fields(record).items())
        if record.exc_info and (error := record.exc_info[1]) is not None:
            line += f" error={error_words(error)} at {' < '.join(reversed(_places(error)))}"
        return line


class _Stderr(logging.StreamHandler[IO[str]]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Says only that a record was lost; the library would print its arguments."""
        with contextlib.suppress(Exception):
            self.stream.write('{"level": "error", "message": "a record could not be written"}\n')


def configure(settings: ObserveSettings | None = None, stream: IO[str] | None = None) -> None:
    """Sends all logging of this process to `stream`, standard error by default; may be called again."""
    settings = settings or ObserveSettings()
    stream = stream or sys.stderr
    for_people = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    made = _Stderr(stream)
    made.setFormatter(Text() if for_people else Json())
    made.addFilter(NoContent())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(made)
    level = settings.log_level.upper()
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger("sidecar").setLevel(level)
    for name, level in settings.log_levels.items():
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
