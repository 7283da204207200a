"""Recorded telemetry is read whole or the reader is told where and why not: rows 83 and 84."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.span import Span
from sidecar.errors import SourceError
from sidecar.sources import files
from sidecar.sources.files import BadRecord, FileReport, read
from tests.shells.otlp.kit import as_json, delimited, field, length, logs, record, span, traces

ONE, TWO = traces(span(1)), traces(span(2), span(3))
LINES = as_json(ONE) + b"\n" + as_json(TWO) + b"\n"
MESSAGES = delimited(ONE.SerializeToString(), TWO.SerializeToString())


def ids(spans: list[tuple[Any, Span]]) -> list[int]:
    return [int(got.span_id, 16) for _, got in spans]


def stored(folder: Path, content: bytes, name: str = "trace.otlp") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [LINES, MESSAGES])
@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, lambda b: gzip.compress(b[:100]) + gzip.compress(b[100:])])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.pb", "a.gz", "a"])
def test_a_file_is_what_its_bytes_say_whatever_its_name(
    tmp_path: Path, content: bytes, squeeze: Any, name: str
) -> None:
    report = FileReport()
    assert ids(list(read(stored(tmp_path, squeeze(content), name), strict=True, report=report))) == [1, 2, 3]
    assert report == FileReport(records=2)


@pytest.mark.parametrize(
    "content",
    [as_json(logs()) + b"\n" + as_json(ONE), delimited(logs().SerializeToString(), b"", ONE.SerializeToString())],
)
def test_spans_and_log_records_are_told_apart_request_by_request(tmp_path: Path, content: bytes) -> None:
    assert [(signal, got.signal) for signal, got in read(stored(tmp_path, content))] == [
        ("logs", "log"),
        ("traces", "span"),
    ]


def sized(size: int) -> bytes:
    """A request of so many bytes."""
    for tail in (b"", field(1, b"")):
        for schema in range(size):
            if len(body := field(1, field(3, b"s" * schema)) + tail) == size:
                return body
    raise AssertionError(size)


@pytest.mark.parametrize("size", [*range(8, 140), 256, 1391, 2048])
def test_a_delimited_file_is_known_whatever_length_it_begins_with(size: int) -> None:
    content = delimited(sized(size), ONE.SerializeToString())
    assert ids(list(read(io.BytesIO(content), strict=True))) == [1]


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\n\n\r\n"])
def test_row_83_line_ends_of_any_kind_and_empty_lines_are_fine(end: bytes) -> None:
    content = end.join([as_json(ONE), as_json(TWO)])
    assert ids(list(read(io.BytesIO(content), strict=True))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (LINES.decode().encode("utf-16"), "line 1: is UTF-16"),
        (LINES.decode().encode("utf-16-be"), "line 1: is UTF-16"),
        (LINES.decode().encode("utf-16-le"), "line 1: is UTF-16"),
        (MESSAGES[:-1], f"byte {len(length(len(ONE.SerializeToString()))) + len(ONE.SerializeToString())}: breaks off"),
        (gzip.compress(LINES * 100)[:-20], "breaks off within its compression"),
        (gzip.compress(LINES)[:200] + b"junk" * 50, ""),
        (b"\x1f\x8bjunk", ""),
        (b"hello world\n", "neither OTLP"),
        (b"{}x\n{\n", "line 1: malformed; nothing in it is OTLP"),
        (b"\xff" * 100, "neither OTLP"),
        (bytes(10_000), "neither OTLP"),
        (length(2**40) + b"x", "neither OTLP"),
        (MESSAGES + length(2**33), "a record of 8589934592 bytes"),
        (MESSAGES + b"\xff", "breaks off within a length"),
        (b"PK\x03\x04" + bytes(100), "nothing in it is OTLP"),
    ],
)
def test_row_83_what_is_no_recording_or_breaks_off_is_told_with_its_place(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = stored(tmp_path, content)
    with pytest.raises(SourceError) as refused:
        list(read(path))
    assert str(refused.value).startswith(f"{path}: ")
    assert says in str(refused.value)


def test_row_83_what_came_before_the_break_is_not_lost(tmp_path: Path) -> None:
    reading = read(stored(tmp_path, MESSAGES[:-1]))
    assert ids([next(reading)]) == [1]
    with pytest.raises(SourceError):
        next(reading)


def test_row_83_a_directory_a_loop_a_device_and_nothing_are_told_apart(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, says in (
        (tmp_path, "is a directory"),
        (loop, "symbolic links"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(SourceError, match=says):
            list(read(path))
    link = tmp_path / "link"
    link.symlink_to(stored(tmp_path, LINES))
    assert len(list(read(str(link)))) == 3


def test_row_83_a_pipe_is_read_though_its_bytes_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for byte in gzip.compress(MESSAGES):
                pipe.write(bytes([byte]))

    writer = threading.Thread(target=write)
    writer.start()
    assert ids(list(read(path, strict=True))) == [1, 2, 3]
    writer.join()


@pytest.mark.parametrize("content", [LINES, gzip.compress(MESSAGES)])
def test_standard_input_is_read_by_a_dash(content: bytes) -> None:
    code = "from sidecar.sources.files import read\nprint(len(list(read('-', strict=True))))"
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert done.stdout == b"3\n"


def test_row_83_zeros_without_end_on_standard_input_are_refused() -> None:
    code = "from sidecar.sources.files import read\nlist(read('-'))"
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-c", code], stdin=zeros, capture_output=True, timeout=60)
    assert b"SourceError: standard input: byte" in done.stderr


class Endless(io.RawIOBase):
    """Line after line of telemetry, `count` of them."""

    def __init__(self, line: bytes, count: int) -> None:
        self._line, self._left, self._rest = line, count, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and self._left:
            self._rest, self._left = self._line, self._left - 1
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def test_row_83_memory_does_not_grow_with_the_file() -> None:
    line = as_json(traces(*(span(n, [("t", "x" * 1000)]) for n in range(1, 50)))) + b"\n"

    def peak(count: int) -> int:
        tracemalloc.start()
        assert sum(1 for _ in read(io.BufferedReader(Endless(line, count)))) == 49 * count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(60) < 1.5 * peak(5)


def test_row_84_one_bad_line_is_counted_and_named_and_the_rest_is_read() -> None:
    good = as_json(ONE)
    content = b"\n".join([good] * 500 + [good[:-7]] + [good] * 499)
    report = FileReport()
    assert len(list(read(io.BytesIO(content), report=report))) == 999
    assert (report.records, report.bad, report.named) == (1000, 1, [BadRecord("line 501", "malformed")])


def test_row_84_strict_stops_at_the_first_bad_record_and_names_it(tmp_path: Path) -> None:
    path = stored(tmp_path, as_json(ONE) + b"\n\n{]\n" + as_json(TWO))
    with pytest.raises(SourceError) as refused:
        list(read(path, strict=True))
    assert str(refused.value) == f"{path}: line 3: not valid JSON"
    bad = delimited(ONE.SerializeToString(), b"\xff\xff", TWO.SerializeToString())
    at = len(delimited(ONE.SerializeToString()))
    with pytest.raises(SourceError, match=f"byte {at}: "):
        list(read(stored(tmp_path, bad), strict=True))
    report = FileReport()
    assert len(list(read(stored(tmp_path, bad), report=report))) == 3
    assert report.named == [BadRecord(f"byte {at}", "malformed")]


def test_row_84_of_many_bad_lines_the_first_are_named_and_all_are_counted() -> None:
    report = FileReport()
    assert len(list(read(io.BytesIO(as_json(ONE) + b"\n{" * 1000), report=report))) == 1
    assert (report.bad, len(report.named)) == (1000, 20)


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RECORD_BYTES", 1000)
    report = FileReport()
    content = as_json(ONE) + b"\n" + b"{" * 300_000 + b"\n" + as_json(ONE)
    assert len(list(read(io.BytesIO(content), report=report))) == 2
    assert report.named == [BadRecord("line 2", "too_large")]


def test_spans_left_out_of_good_requests_are_counted() -> None:
    report = FileReport()
    request = traces(span(1, trace_id=b"x"), span(2, [("n", float("nan"))]))
    assert len(list(read(io.BytesIO(delimited(request.SerializeToString())), report=report))) == 1
    assert (report.bad, report.rejected, report.notes) == (0, {"invalid_id": 1}, {"nonfinite": 1})


def test_a_session_in_one_line_may_be_larger_than_a_request() -> None:
    many = traces(*(span(n) for n in range(1, 25_000)))
    assert len(list(read(io.BytesIO(as_json(many)), strict=True))) == 24_999


@pytest.mark.corpora
def test_every_capture_is_read_and_told_apart(shared: Path) -> None:
    for path in sorted((shared / "captures").glob("*.pb.gz"))[::3]:
        found = {signal for signal, _ in read(path, strict=True)}
        assert found == {"logs" if ".logs." in path.name else "traces"}, path.name


@pytest.mark.corpora
def test_a_corpus_is_read(shared: Path) -> None:
    report = FileReport()
    assert len(list(read(shared / "corpora" / "format_structured.otlp.jsonl.gz", strict=True, report=report))) == 144
    assert report == FileReport(records=18)


def test_cut_anywhere_a_file_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(3)
    for content in (LINES, MESSAGES, gzip.compress(LINES), gzip.compress(MESSAGES)):
        for _ in range(40):
            changed = bytearray(content[: chance.randrange(1, len(content))])
            for _ in range(chance.randrange(3)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            try:
                list(read(io.BytesIO(bytes(changed))))
            except SourceError:
                continue


def test_log_records_without_a_trace_are_told_apart_too() -> None:
    alone = logs(record(trace_id=b"", span_id=b""))
    ((signal, got),) = read(io.BytesIO(delimited(alone.SerializeToString())))
    assert (signal, got.trace_id) == ("logs", "")
