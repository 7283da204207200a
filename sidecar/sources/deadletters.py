"""Messages that could not be taken, kept for study in a file that cannot grow without bound."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class DeadLetters:
    """Appends each message to a file of JSON lines; what it holds is hostile and is never read back by us.

    At most `max_bytes` on disk: a file that would outgrow half of it takes the place of the one before (``<name>.1``),
    which is lost. Only its owner may read it. Not for two threads at once.

    Args:
        path: The file; its folder must exist.
        max_bytes: Of both files together.
        max_body: Bytes kept of one message; size and digest are of the whole.
        now_ns: The wall clock, Unix nanoseconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 64 * 2**20,
        max_body: int = 2**20,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if max_bytes // 2 < max_body * 4 // 3 + 1024:
            raise ValueError("half of max_bytes must hold one message of max_body")
        self._path, self._max_bytes, self._max_body, self._now_ns = path, max_bytes, max_body, now_ns

    def __call__(self, body: bytes, topic: str, partition: int, offset: int, reason: str) -> None:
        """Keeps one message.

        Raises:
            OSError: The disk refused.
        """
        line = json.dumps(
            {
                "at_ns": self._now_ns(),
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "reason": reason,
                "size_bytes": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
                "body": base64.b64encode(body[: self._max_body]).decode(),
            }
        )
        with suppress(FileNotFoundError):
            if self._path.lstat().st_size + len(line) >= self._max_bytes // 2:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
            file.write(line.encode() + b"\n")
