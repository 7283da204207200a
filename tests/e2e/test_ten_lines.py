"""The ten lines of the README, run as they are against a real sidecar and a real mail server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.control.client import Operators
from sidecar.control.v1 import control_pb2 as pb
from sidecar.demo.post import PostOffice
from sidecar.demo.processes import SidecarProcess

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0

NOWHERE = "127.0.0.1:1"

Run = Callable[[SidecarProcess | None], subprocess.Popen[str]]
"""Starts the example beside a sidecar, or where there is none."""


@pytest.fixture
def post() -> Iterator[PostOffice]:
    with PostOffice() as open_one:
        yield open_one


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SidecarProcess]:
    with SidecarProcess(tmp_path_factory.mktemp("sidecar")) as running:
        running.settle()
        yield running


@pytest.fixture
def run(post: PostOffice) -> Iterator[Run]:
    started = []

    def start(beside: SidecarProcess | None) -> subprocess.Popen[str]:
        at = beside.at if beside else {"control": NOWHERE, "otlp": NOWHERE}
        where = {"SIDECAR_CONTROL": at["control"], "SIDECAR_OTLP": at["otlp"], "SMTP_PORT": str(post.port)}
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.ten_lines"], cwd=ROOT, env=os.environ | where, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def operate(sidecar: SidecarProcess, *words: str) -> None:
    """An operator types a command."""
    command = [sys.executable, "-m", "sidecar", *words, "--at", sidecar.operators]
    subprocess.run(command, check=True, timeout=WAIT_S, stdout=subprocess.DEVNULL)


def until_judged(start: Callable[[], subprocess.Popen[str]]) -> str:
    """Runs it again, as its user would, while a busy machine answers it too late; what it said."""
    for _ in range(20):
        said, trouble = start().communicate(timeout=WAIT_S)
        if "may be tried again" not in said:
            break
    print(trouble, file=sys.stderr)
    return said


def test_at_most_ten_lines_gate_it() -> None:
    gating = (ROOT / "examples" / "ten_lines.py").read_text().partition("# What gates it:\n")[2]
    assert 0 < len([line for line in gating.splitlines() if line.strip()]) <= 10
    assert gating in (ROOT / "README.md").read_text(), "the README shows what is run here"


def test_what_is_allowed_is_sent_and_the_sidecar_knows_of_it(
    sidecar: SidecarProcess, run: Run, post: PostOffice
) -> None:
    assert until_judged(lambda: run(sidecar)) == "sent to amy@corp.example\n"
    assert [mail["To"] for mail in post.delivered] == ["amy@corp.example"]
    with Operators(sidecar.operators) as operators:
        session = operators.sessions()[0]
    assert (session.agent, session.acts, session.state) == ("mail-helper", 1, pb.RUN_STATE_RUNNING)


def test_what_an_operator_pauses_waits_until_they_resume_it(
    sidecar: SidecarProcess, run: Run, post: PostOffice
) -> None:
    operate(sidecar, "pause", "--role", "mail-helper", "--reason", "lunch is off")
    agent = run(sidecar)
    with Operators(sidecar.operators) as operators:
        followed = (pb.OBSERVED_ACKNOWLEDGED, pb.OBSERVED_QUIESCED)
        end_s = time.monotonic() + WAIT_S
        while not any(view.observed in followed for view in operators.sessions()):
            assert time.monotonic() < end_s, "the agent has not acknowledged the pause"
            assert agent.poll() is None, agent.communicate()
            time.sleep(0.05)
    assert post.delivered == []
    operate(sidecar, "resume", "--role", "mail-helper", "--reason", "lunch is on again")
    resumed = [agent]
    assert until_judged(lambda: resumed.pop() if resumed else run(sidecar)) == "sent to amy@corp.example\n"
    assert len(post.delivered) == 1


def test_without_a_sidecar_nothing_is_sent(run: Run, post: PostOffice) -> None:
    said, _ = run(None).communicate(timeout=WAIT_S)
    assert said.startswith("not done: ")
    assert "nothing about the act itself" in said  # a system refusal
    assert post.delivered == []
