"""A sidecar in a process of its own, to be killed: its data directory and its ports outlive it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

from sidecar.control.client import Operators
from tests.faults import victim
from tests.faults.cgroup import MemoryGroup

T = TypeVar("T")

DOORS = ("grpc", "http", "agents", "observe")
START_S = 120.0


class Sidecar:
    """`sidecar run`, again and again on the same data directory and ports.

    Args:
        folder: Where its configuration, log and data directory are.
        installed: Started by the installed command, as operators start it; else forked from a process that has
            imported it all, which saves a second a start.
        without: The protecting line that is off, one of `victim.LINES`.
        fault: What is wrong with it besides, one of `victim.FAULTS`.
        settings: Sections of the configuration, over those that a test needs.
    """

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(["tests.faults.victim"])

    def __init__(
        self, folder: Path, *, installed: bool = False, without: str = "", fault: str = "", **settings: dict[str, Any]
    ) -> None:
        self.folder, self.data, self._installed = folder, folder / "data", installed
        self._without, self._fault = without, fault
        self.ports = dict(zip(DOORS, free_ports(len(DOORS)), strict=True))
        self.data.mkdir(mode=0o700)
        at = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        sections: dict[str, dict[str, Any]] = {
            "storage": {"data_dir": str(self.data), "low_water_bytes": 2**20, "ballast_bytes": 2**20,
                        "checkpoint_interval_s": 1},
            "otlp": {"grpc": at["grpc"], "http": at["http"]},
            "control": {"agents": at["agents"], "agents_socket": None},
            "observe": {"http": at["observe"], "first_zero": 0},
        }  # fmt: skip
        for name, section in settings.items():
            sections[name] = sections.get(name, {}) | section
        self._sections, self.config = sections, folder / "sidecar.yaml"
        self.config.write_text(yaml.safe_dump(sections))
        self.log = folder / "log"
        self._process: Any = None
        self.pid = 0
        self.started_ns = 0
        self.settling_s = 2 * victim.LATER_S if without == "commit_before_answer" else 0.0
        """How long after an answer what was answered is sure to be on the disk."""

    def set(self, section: str, **settings: Any) -> None:
        """Changes its configuration, for the next start."""
        self._sections[section] = self._sections.get(section, {}) | settings
        self.config.write_text(yaml.safe_dump(self._sections))

    # ------------------------------------------------------------ life

    def start(self, *, dies: str = "", serving: bool = True, group: MemoryGroup | None = None) -> float:
        """Starts it; seconds until its doors for telemetry were open.

        Args:
            dies: The point at which it ends itself, one of `victim.POINTS` with a number: ``name:3`` the third time.
            serving: Wait until the doors are open.
            group: What limits its memory.
        """
        self.started_ns = time.monotonic_ns()
        if self._without or self._fault or dies or not self._installed:
            arguments = victim.Arguments(str(self.config), self._without, self._fault, dies, str(self.log))
            if not self._installed:
                self._process = self._context.Process(target=victim.run, args=(arguments,), daemon=True)
                self._process.start()
                self.pid = self._process.pid
            else:
                self._spawn([sys.executable, "-m", "tests.faults.victim", *arguments])
        else:
            self._spawn([str(Path(sys.executable).with_name("sidecar")), "run", "-c", str(self.config)])
        if group is not None:
            group.enter(self.pid)
        if not serving:
            return 0.0
        self.until(lambda: self.is_open("http"), START_S)  # the last door to open
        return (time.monotonic_ns() - self.started_ns) / 1e9

    def _spawn(self, command: list[str]) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        if self._process is None:
            return False
        return self._process.is_alive() if hasattr(self._process, "is_alive") else self._process.poll() is None

    def signal(self, number: signal.Signals) -> int:
        """Sends a signal; the time of it, monotonic."""
        at_ns = time.monotonic_ns()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return at_ns

    def kill(self) -> int:
        """Ends it at once, if it runs; the time of it, monotonic."""
        if not self.is_alive:
            return 0
        at_ns = self.signal(signal.SIGKILL)
        self.wait()
        return at_ns

    def wait(self, timeout_s: float = 60.0) -> int:
        """Waits until it has ended; its exit code, negative for a signal."""
        if hasattr(self._process, "exitcode"):
            self._process.join(timeout_s)
            code = self._process.exitcode
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            code = self._process.returncode
        if code is None:
            raise TimeoutError("the sidecar does not end")
        return int(code)

    def stop(self) -> int:
        """Ends it as a supervisor does; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    # ------------------------------------------------------------ looking

    def until(self, look: Callable[[], T], timeout_s: float = 30.0) -> T:
        """Waits until `look` gives something true, while the sidecar lives; errors count as no."""
        end_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(Exception):
                if found := look():
                    return found
            if not self.is_alive:
                raise RuntimeError(f"the sidecar has ended: {self.log.read_text(errors='replace')[-2000:]}")
            if time.monotonic() > end_s:
                raise TimeoutError("what was waited for did not happen")
            time.sleep(0.005)

    def is_open(self, door: str) -> bool:
        """Whether a door takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[door]), 1.0):
            return True
        return False

    def address(self, door: str) -> str:
        return f"127.0.0.1:{self.ports[door]}"

    def people(self) -> Operators:
        """A client of the operators' door."""
        return Operators(f"unix:{self.data / 'operators.sock'}")

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All samples, by name and labels."""
        with urllib.request.urlopen(f"http://{self.address('observe')}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def count(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have those labels."""
        wanted = set(labels.items())
        return sum(value for (one, has), value in self.metrics().items() if one == f"sidecar_{name}" and wanted <= has)

    def rss_bytes(self, *, peak: bool = False) -> int:
        """Memory of the process: now, or the most since it started or since `forget_peak`."""
        field = "VmHWM:" if peak else "VmRSS:"
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"no {field}")

    def forget_peak(self) -> None:
        """From now on the peak is counted anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, below those that the system gives to clients: while a sidecar is down nobody gets them."""
    found: list[int] = []
    chance = random.Random(os.getpid() + time.monotonic_ns())
    while len(found) < count:
        port = chance.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found
