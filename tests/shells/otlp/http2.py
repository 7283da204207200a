"""As much HTTP/2 as it takes to say to a gRPC server what a gRPC client would not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Client:
    """One connection; `trailers` waits for the end of a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._next = 1
        self._initial = 65535
        self._windows: dict[int, int] = {0: 65535}

    @classmethod
    async def connect(cls, port: int) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client._writer.write(PREFACE)
        client.frame(SETTINGS, 0, 0, b"")
        return client

    def frame(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        self._writer.write(len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content)

    def ask(self, *headers: tuple[str, str], path: str = EXPORT, flags: int = END_HEADERS) -> int:
        """Opens a stream; its number."""
        stream, self._next = self._next, self._next + 2
        told: Sequence[tuple[str, str]] = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
            ("te", "trailers"), ("content-type", "application/grpc"), *headers,
        ]  # fmt: skip
        self.frame(HEADERS, flags, stream, b"".join(_literal(name, value) for name, value in told))
        return stream

    def send(self, stream: int, body: bytes, *, compressed: bool = False, end: bool = True) -> None:
        """A message that fits into one frame."""
        content = bytes([compressed]) + len(body).to_bytes(4, "big") + body
        assert len(content) <= 16384
        self.frame(DATA, END_STREAM if end else 0, stream, content)

    async def send_large(self, stream: int, body: bytes, *, compressed: bool = False) -> int:
        """A message of any size, as fast as the server takes it; its status, as `status` tells it."""
        content = bytes([compressed]) + len(body).to_bytes(4, "big") + body
        self._windows.setdefault(stream, self._initial)
        at = 0
        try:
            while at < len(content):
                room = min(self._windows[0], self._windows[stream], 16384)
                if room <= 0:
                    kind, flags, number, told = await self.read()
                    if number == stream and (status := _status(kind, flags, told)) is not None:
                        return status
                    continue
                part = content[at : at + room]
                at += len(part)
                self._windows[0] -= len(part)
                self._windows[stream] -= len(part)
                self.frame(DATA, END_STREAM if at == len(content) else 0, stream, part)
        except (asyncio.IncompleteReadError, ConnectionError):
            return -2
        return await self.status(stream)

    async def drain(self) -> None:
        await self._writer.drain()

    async def read(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, content. Pings and settings are acknowledged."""
        head = await self._reader.readexactly(9)
        content = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big")
        if kind == WINDOW_UPDATE:
            self._windows[stream] = self._windows.get(stream, self._initial) + int.from_bytes(content, "big")
        if kind == SETTINGS:
            for at in range(0, len(content), 6):
                if content[at : at + 2] == b"\0\x04":  # what streams may send at first
                    more = int.from_bytes(content[at + 2 : at + 6], "big") - self._initial
                    self._initial += more
                    self._windows = {number: size + (more if number else 0) for number, size in self._windows.items()}
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.frame(kind, ACK, 0, content if kind == PING else b"")
        return kind, flags, stream, content

    async def status(self, stream: int) -> int:
        """The gRPC status that ends `stream`; -1 when it is reset, -2 when the connection ends.

        Only for the first stream of a connection: later ones are told in fewer letters, which nobody here can read.
        """
        try:
            while True:
                kind, flags, number, content = await self.read()
                if number == stream and (status := _status(kind, flags, content)) is not None:
                    return status
        except (asyncio.IncompleteReadError, ConnectionError):
            return -2

    async def is_closed(self) -> bool:
        """Waits until the server ends the connection."""
        try:
            while True:
                await self.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            return True

    def close(self) -> None:
        self._writer.close()


def _status(kind: int, flags: int, content: bytes) -> int | None:
    if kind == RST:
        return -1
    if kind == HEADERS and flags & END_STREAM and b"grpc-status" in content:
        at = content.index(b"grpc-status") + len(b"grpc-status")
        return int(content[at + 1 : at + 1 + content[at]])
    return None


def _literal(name: str, value: str) -> bytes:
    out = b"\0"
    for text in (name.encode(), value.encode()):
        size = len(text)
        if size < 127:
            out += bytes([size])
        else:
            out += b"\x7f"
            size -= 127
            while size > 127:
                out += bytes([size & 127 | 128])
                size >>= 7
            out += bytes([size])
        out += text
    return out
