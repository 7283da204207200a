"""The demo's processes: a sidecar of its own, and the agents, each in a process group that Ctrl-C does not reach."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from sidecar.control.client import Operators
from sidecar.errors import ControlError

START_S = 60.0
STOP_S = 20.0
SETTLE_S, QUICK = 10.0, 10
LOOK_S = 0.03
DOORS = ("otlp", "control", "observe")


class SidecarProcess:
    """`sidecar run` on its defaults, but for ports that are free here and a data directory of its own.

    Args:
        folder: Where its configuration, log and data directory go.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "sidecar.log"
        data_dir = folder / "data"
        data_dir.mkdir(mode=0o700)
        self.at = {door: f"127.0.0.1:{port}" for door, port in zip(DOORS, _free_ports(len(DOORS)), strict=True)}
        self.socket = data_dir / "operators.sock"
        config = folder / "sidecar.yaml"
        config.write_text(json.dumps({
            "storage": {"data_dir": str(data_dir)},
            "otlp": {"grpc": self.at["otlp"], "http": None},
            "control": {"agents": self.at["control"], "agents_socket": None},
            "observe": {"http": self.at["observe"]},
        }))  # fmt: skip
        began_s = time.monotonic()
        with self._log.open("ab") as log:
            self._process = _start(["-m", "sidecar", "run", "--config", str(config)], stdout=log, stderr=log)
        try:
            while not self._is_ready():
                if self._process.poll() is not None or time.monotonic() - began_s > START_S:
                    raise ControlError(
                        "UNAVAILABLE", f"the demo's sidecar does not start:\n{_last_words(self._log, 5)}"
                    )
                time.sleep(LOOK_S)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - began_s

    @property
    def operators(self) -> str:
        """Where operators come."""
        return f"unix:{self.socket}"

    def settle(self) -> None:
        """Waits, `SETTLE_S` at most, until it answers at once `QUICK` times in a row.

        Behind its open doors it loads models and compiles patterns for a moment. On a machine as busy as one where six
        agents start, questions that come just then are answered too late, which is safe, and not what is shown here.
        """
        end_s, quick = time.monotonic() + SETTLE_S, 0
        with Operators(self.operators) as operators:
            while quick < QUICK and time.monotonic() < end_s:
                began_s = time.monotonic()
                operators.status()
                quick = quick + 1 if time.monotonic() - began_s < LOOK_S else 0
                time.sleep(LOOK_S)

    def stop(self) -> None:
        """Ends it as a supervisor does."""
        _end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        host, _, port = self.at["otlp"].rpartition(":")  # the last door to open
        with contextlib.suppress(OSError, ControlError):
            socket.create_connection((host, int(port)), 1.0).close()
            with Operators(self.operators) as operators:
                return operators.status().ready
        return False


class AgentProcess:
    """One agent; what it tells is put on `told`, and last, once it has ended, ``gone`` and how its log ends."""

    def __init__(
        self, name: str, folder: Path, arguments: Sequence[str], environment: dict[str, str],
        told: queue.Queue[dict[str, Any]],
    ) -> None:  # fmt: skip
        self.name = name
        self._log = folder / f"{name}.log"
        around = {key: value for key, value in os.environ.items() if not key.startswith("SIDECAR_")}
        with self._log.open("ab") as log:
            self._process = _start(
                ["-m", "sidecar.demo.loop", name, "--folder", str(folder), *arguments], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=around | environment,
            )  # fmt: skip
        self._told = told
        threading.Thread(target=self._listen, daemon=True, name=name).start()

    def go(self) -> None:
        """Lets it go on where it waits for its cue."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Ends it."""
        _end(self._process)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(json.loads(line))
        self._told.put({"kind": "gone", "agent": self.name, "why": f"died: {_last_words(self._log, 1)}"})


def _start(arguments: list[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, *arguments], start_new_session=True, **options)  # noqa: S603  # ours


def _last_words(log: Path, lines: int) -> str:
    with contextlib.suppress(FileNotFoundError):  # the demo is over
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])
    return ""


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        doors = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [door.getsockname()[1] for door in doors]
