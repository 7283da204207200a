"""What figures are taken of: a sidecar in a process of its own, as `sidecar run` starts it, and an empty server."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import grpc
import yaml

START_S = 60.0
EMPTY = "/benchmarks.Empty/Call"
HOME = "nimbral.example"
"""Domain of the organisation that the sidecar is told of; that of `mix`."""
_TICKS = os.sysconf("SC_CLK_TCK")
_OPTIONS = (("grpc.enable_http_proxy", 0),)


class Sidecar:
    """Within ``with``, `sidecar run` on free ports, its databases on this disk. Started again, it remembers.

    Limits of what one sender may send are out of the way; all else is as shipped.

    Args:
        settings: Sections of the configuration, over those that are needed here.
    """

    def __init__(self, **settings: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sidecar-bench-")
        folder = Path(self._folder.name)
        self.data, self._config, self._log = folder / "data", folder / "sidecar.yaml", folder / "log"
        ports = free_ports(3)
        self.control, self.otlp, self.http = (f"127.0.0.1:{port}" for port in ports)
        rates = {"bytes_per_s": "8GiB", "spans_per_s": 10**7, "sessions_per_s": 10**6, "sessions": 10**6}
        sections: dict[str, dict[str, Any]] = {
            "storage": {"data_dir": str(self.data)},
            "otlp": {"grpc": self.otlp, "http": None},
            "intake": {"rates": rates},
            "control": {"agents": self.control, "agents_socket": None, "questions_per_s": 10**6,
                        "sessions_per_s": 10**6},
            "observe": {"http": self.http, "log_level": "warning"},
            "organisation": {"domains": [HOME]},
        }  # fmt: skip
        for name, section in settings.items():
            sections[name] = sections.get(name, {}) | section
        self._config.write_text(yaml.safe_dump(sections))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        self.settle()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> int:
        """Starts the process, and does not wait for it; the time of that, monotonic nanoseconds."""
        began_ns = time.monotonic_ns()
        command = [str(Path(sys.executable).with_name("sidecar")), "run", "-c", str(self._config)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        return began_ns

    def stop(self) -> None:
        """Ends it as a supervisor does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def settle(self) -> None:
        """Waits until it is ready and all that loads behind the gate is loaded: until it has nothing to do."""
        self.until(lambda: self.get("/readyz"))
        before = self.cpu_s()
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            time.sleep(0.5)
            now = self.cpu_s()
            if now - before < 0.03:
                return
            before = now

    def until(self, look: Callable[[], Any], timeout_s: float = START_S) -> Any:
        """Waits until `look` gives something true, while the sidecar lives; errors count as no."""
        end_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(Exception):
                if found := look():
                    return found
            if self._process is None or self._process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"the sidecar is not there: {self._log.read_text()[-2000:]}")
            time.sleep(0.01)

    def get(self, path: str) -> str:
        """What the HTTP port answers.

        Raises:
            OSError: Anything but 200.
        """
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as answer:
            return answer.read().decode()

    def count(self, name: str) -> float:
        """Sum of a metric over its labels."""
        lines = self.get("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))

    def cpu_s(self) -> float:
        """Processor time it has used, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_bytes(self) -> int:
        """Memory that is its own: what is resident, without files and what is shared."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextlib.contextmanager
    def channel(self, door: str = "") -> Iterator[Any]:
        """A connection to the agents' door, or to another."""
        with grpc.insecure_channel(door or self.control, _OPTIONS) as channel:
            yield channel


@contextlib.contextmanager
def empty_call() -> Iterator[Callable[[bytes], bytes]]:
    """A call of a `grpc.aio` server that reads and answers nothing, in a process of its own."""
    with child(_serve_nothing) as pipe, grpc.insecure_channel(f"127.0.0.1:{pipe.recv()}", _OPTIONS) as channel:
        yield channel.unary_unary(EMPTY)


@contextlib.contextmanager
def child(work: Callable[..., None], *given: Any) -> Iterator[Connection]:
    """Runs `work(pipe, *given)` in a fresh process; it is to end when it is sent anything, or when the pipe closes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *given), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with contextlib.suppress(OSError):
            ours.send(None)
        process.join(10)
        if process.is_alive():
            process.terminate()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _serve_nothing(pipe: Connection) -> None:
    asyncio.run(_serving(pipe))


async def _serving(pipe: Connection) -> None:
    async def nothing(body: bytes, context: Any) -> bytes:
        return b""

    _, service, method = EMPTY.split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(nothing)}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    await asyncio.to_thread(_ended, pipe)
    await server.stop(0)


def _ended(pipe: Connection) -> None:
    with contextlib.suppress(EOFError):
        pipe.recv()
