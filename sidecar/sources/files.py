"""Recorded telemetry: OTLP/JSON lines and length-delimited OTLP protobuf, plain or gzipped.

What a file holds is told by its bytes, not by its name. It is read as a stream: memory is that of its largest record.
"""

from __future__ import annotations

import gzip
import io
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from msgspec import Struct, field

from sidecar.core.span import Span
from sidecar.errors import SourceError, SpanError
from sidecar.sources import Encoding
from sidecar.sources.decode import Limits, Signal, decode

RECORD_BYTES = 64 * 2**20
"""Largest record, that is line or delimited message."""

LIMITS = Limits(spans=1_000_000, nodes=5_000_000)
"""A recording may hold in one line what nobody would send at once, for instance a whole session."""

_NAMED = 20  # bad records that a report names; the rest are counted
_EMPTY = 1_024  # records without content in a row, after which this is no recording
_CHUNK = 64 * 1024


class BadRecord(Struct, frozen=True):
    """A record that was left out.

    Attributes:
        where: ``line N``, or ``byte N`` in a file of delimited messages (after decompression).
        reason: As in `decode.REFUSED`, or ``too_large``.
    """

    where: str
    reason: str


class FileReport(Struct):
    """What became of a file's records; filled while it is read.

    Attributes:
        records: Requests that were read, good ones and bad ones.
        bad: How many were left out; the first 20 are `named`.
        rejected: Spans that were left out of good requests, by reason (`decode.REJECTED`).
        notes: Spans that decoding had to change, by note (`decode.NOTES`).
    """

    records: int = 0
    bad: int = 0
    named: list[BadRecord] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


def read(
    source: str | Path | BinaryIO, *, strict: bool = False, report: FileReport | None = None, limits: Limits = LIMITS
) -> Iterator[tuple[Signal, Span]]:
    """The spans and log records of a recording, in its order.

    Args:
        source: A path, ``-`` for standard input, or an open stream of bytes.
        strict: Whether a bad record ends the reading; else it is counted in `report`.
        limits: What one record may hold.
    Raises:
        SourceError: The file cannot be read, is something else, or breaks off; or a record is bad and `strict` is set.
            Says the file, and the line or byte.
    """
    report = FileReport() if report is None else report
    name, stream = _open(source)
    try:
        yield from _read(name, stream, strict=strict, report=report, limits=limits)
    except (OSError, EOFError, zlib.error) as error:
        what = "breaks off within its compression" if isinstance(error, EOFError) else str(error)
        raise SourceError(f"{name}: {what}") from error
    finally:
        if stream is not source and name != _STDIN:
            stream.close()


_STDIN = "standard input"


def _open(source: str | Path | BinaryIO) -> tuple[str, BinaryIO]:
    if not isinstance(source, str | Path):
        return str(getattr(source, "name", "stream")), source
    if str(source) == "-":
        return _STDIN, sys.stdin.buffer
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(f"{path}: is a directory")
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise SourceError(f"{path}: is a device")
        return str(path), path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error


def _read(
    name: str, stream: BinaryIO, *, strict: bool, report: FileReport, limits: Limits
) -> Iterator[tuple[Signal, Span]]:
    head, stream = _peek(stream)
    if head[:2] == b"\x1f\x8b":
        head, stream = _peek(cast("BinaryIO", gzip.GzipFile(fileobj=stream)))
    if not head:
        raise SourceError(f"{name}: is empty")
    form = _form(head)
    if form == "utf-16":
        raise SourceError(f"{name}: line 1: is UTF-16; OTLP/JSON is UTF-8")
    for where, body in _lines(stream) if form == "json" else _messages(name, stream):
        report.records += 1
        try:
            if body is None:
                raise SpanError("too_large", f"more than {RECORD_BYTES} bytes")
            decoded = decode(None, body, form, limits)
        except SpanError as error:
            if strict:
                raise SourceError(f"{name}: {where}: {error}") from error
            report.bad += 1
            if len(report.named) < _NAMED:
                report.named.append(BadRecord(where, error.reason))
            continue
        for counted, more in ((report.rejected, decoded.rejected), (report.notes, decoded.notes)):
            for reason, spans in more.items():
                counted[reason] = counted.get(reason, 0) + spans
        for span in decoded.spans:
            yield decoded.signal or "traces", span
    if report.bad and report.bad == report.records:
        first = report.named[0]
        raise SourceError(f"{name}: {first.where}: {first.reason}; nothing in it is OTLP")


def _form(head: bytes) -> Encoding | Literal["utf-16"]:
    """What a file is, by its first bytes.

    A delimited message begins with its length, which can look like any letter, and then with field 1, which is 0x0a.
    """
    if head in (b'{\0"\0', b'\0{\0"', b"\xff\xfe{\0", b"\xfe\xff\0{"):
        return "utf-16"
    if head == b"\xef\xbb\xbf{" or (head[:1] in (b"{", b"[", b" ", b"\t", b"\r", b"\n") and head[1:2] != b"\n"):
        return "json"
    return "proto"


def _lines(stream: BinaryIO) -> Iterator[tuple[str, bytes | None]]:
    """Lines without their ends and where each stands; None for one that is too long."""
    number = 0
    while line := stream.readline(RECORD_BYTES + 2):
        number += 1
        whole: bytes | None = line.rstrip(b"\r\n")
        if len(line) > RECORD_BYTES and not line.endswith(b"\n"):
            whole = None
            while (line := stream.readline(_CHUNK)) and not line.endswith(b"\n"):
                pass
        if whole != b"":
            yield f"line {number}", whole


def _messages(name: str, stream: BinaryIO) -> Iterator[tuple[str, bytes | None]]:
    """Messages, each after its length as a varint, and where each stands."""
    at = empty = 0
    while first := stream.read(1):
        start, size, shift = at, 0, 0
        byte = first
        while True:
            at += 1
            size |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
            if shift > 35 or not (byte := stream.read(1)):
                raise SourceError(f"{name}: byte {start}: {_NOT_OTLP if not start else 'breaks off within a length'}")
        if size > RECORD_BYTES:
            raise SourceError(f"{name}: byte {start}: {_NOT_OTLP if not start else f'a record of {size} bytes'}")
        body = stream.read(size)
        if len(body) < size:
            raise SourceError(f"{name}: byte {start}: {'breaks off within a record' if start else _NOT_OTLP}")
        at += size
        empty = 0 if body else empty + 1
        if empty > _EMPTY:
            raise SourceError(f"{name}: byte {start}: {_NOT_OTLP}")
        if body:
            yield f"byte {start}", body


_NOT_OTLP = "neither OTLP/JSON lines nor delimited OTLP messages, or it breaks off"


def _peek(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first four bytes, and a stream that still has them; a pipe may give them one by one."""
    head = b""
    while len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    return head, cast("BinaryIO", io.BufferedReader(_Rejoined(head, stream), _CHUNK))


class _Rejoined(io.RawIOBase):
    """A stream, with what was read of it already put back before it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)
        chunk, self._head = self._head[: len(room)], self._head[len(room) :]
        if not chunk:
            read: Callable[[int], bytes] = getattr(self._rest, "read1", self._rest.read)
            chunk = read(len(room))
        room[: len(chunk)] = chunk
        return len(chunk)
