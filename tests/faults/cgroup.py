"""A limit on the memory of one process: a control group (version 1 or 2), or a watch where none can be had."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup(Protocol):
    """A limit that is set once it is known what the process needs.

    Attributes:
        kind: What enforces it.
        kills: Processes that it has ended for their memory.
    """

    kind: str

    @property
    def kills(self) -> int: ...

    def enter(self, pid: int) -> None:
        """Puts a process under it."""
        ...

    def limit(self, pid: int, more_bytes: int) -> None:
        """From now on that process, which has entered, gets so much more than it has, and no more."""
        ...

    def free(self) -> None:
        """Lifts the limit, for the next process."""
        ...


class ControlGroup:
    """The kernel's own; counts page cache, too, but gives that up before it kills."""

    kind = "cgroup"

    def __init__(self, folder: Path, limit: str) -> None:
        self._folder, self._limit = folder, folder / limit
        self._unlimited = self._limit.read_text()

    def enter(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, pid: int, more_bytes: int) -> None:
        with contextlib.suppress(OSError):  # no swap to escape to, where there is such a thing
            (self._folder / "memory.swap.max").write_text("0")
        with contextlib.suppress(OSError):  # more is in use already: then it has been killed, or will be
            self._limit.write_text(str(self._used_bytes + more_bytes))

    @property
    def _used_bytes(self) -> int:
        for name in ("memory.usage_in_bytes", "memory.current"):
            with contextlib.suppress(OSError):
                return int((self._folder / name).read_text())
        raise RuntimeError("the control group does not measure")

    def free(self) -> None:
        self._limit.write_text(self._unlimited)

    @property
    def kills(self) -> int:
        for name in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(OSError):
                for line in (self._folder / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        raise RuntimeError("the control group does not count kills")


class Watch:
    """Looks at the process's RSS every millisecond and kills it, as the kernel would."""

    kind = "watched RSS"

    def __init__(self) -> None:
        self.kills = 0
        self._limit: tuple[int, int] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def enter(self, pid: int) -> None:
        """Nothing: any process can be watched."""

    def limit(self, pid: int, more_bytes: int) -> None:
        self._limit = pid, rss_bytes(pid) + more_bytes

    def free(self) -> None:
        self._limit = None

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.001):
            if (limit := self._limit) is None:
                continue
            with contextlib.suppress(OSError):
                if rss_bytes(limit[0]) > limit[1]:
                    os.kill(limit[0], signal.SIGKILL)
                    self.kills, self._limit = self.kills + 1, None


def rss_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def memory_limited() -> Iterator[MemoryGroup]:
    """A limit of this test's own."""
    name = f"sidecar-faults-{os.getpid()}-{time.monotonic_ns()}"
    for parent, limit in ((ROOT / "memory", "memory.limit_in_bytes"), (ROOT, "memory.max")):
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists() and os.access(folder / limit, os.W_OK):
                yield ControlGroup(folder, limit)
                return
        finally:
            _remove(folder)
    watch = Watch()
    try:
        yield watch
    finally:
        watch.close()


def _remove(folder: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)
