"""Compressed bodies, undone a little at a time and never beyond a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import zstandard

from sidecar.errors import SpanError

ENCODINGS = ("identity", "gzip", "zstd")

_GZIP_STEP = 64 * 1024  # bytes that one step takes and gives at most: some 0.1 ms
_ZSTD_STEP = 256  # bytes that one step takes; four of them can stand for 128 KiB
_ZSTD_WINDOW = 8 * 2**20  # what a receiver must be able to keep, RFC 8878 section 3.1.1.1.2, and as much as ours does


def inflate(body: bytes, encoding: str, most: int) -> Iterator[bytes]:
    """The content of `body` in pieces.

    Args:
        encoding: One of `ENCODINGS`.
        most: Bytes of content that there may be.
    Raises:
        SpanError: ``too_large``; ``malformed`` when it ends early, goes on after its end, or is something else.
    """
    pieces = {"identity": _as_is, "gzip": _gunzip, "zstd": _unzstd}[encoding](body)
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > most:
                raise SpanError("too_large", f"more than {most} bytes of content")
            yield piece
    except (zlib.error, zstandard.ZstdError) as error:
        raise SpanError("malformed", f"not valid {encoding}") from error


def _as_is(body: bytes) -> Iterator[bytes]:
    yield body


def _gunzip(body: bytes) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=31)
    for at in range(0, len(body), _GZIP_STEP):
        left = body[at : at + _GZIP_STEP]
        while left and not stream.eof:
            yield stream.decompress(left, _GZIP_STEP)
            left = stream.unconsumed_tail
        if stream.eof:
            if stream.unused_data or at + _GZIP_STEP < len(body):
                raise SpanError("malformed", "something follows the gzip stream")
            return
    # What it holds back for the next call comes when it is asked again, and may be all that was missing.
    while piece := stream.decompress(b"", _GZIP_STEP):
        yield piece
    if not stream.eof:
        raise SpanError("malformed", "gzip ends early")


def _unzstd(body: bytes) -> Iterator[bytes]:
    stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    at = 0
    while not stream.eof:
        if at >= len(body):
            raise SpanError("malformed", "zstd ends early")
        yield stream.decompress(body[at : at + _ZSTD_STEP])
        at += _ZSTD_STEP
    if stream.unused_data or at < len(body):
        raise SpanError("malformed", "something follows the zstd stream")
