"""The whole sidecar in this process: what is counted is shown, and what was put off is stored before it ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.app import App
from sidecar.config import Config
from sidecar.control.v1 import control_pb2 as pb
from sidecar.service import recording
from sidecar.storage import Instant
from sidecar.storage.control import ControlReader

AGENT = pb.AgentIdentity(name="clerk")


def free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


@pytest.fixture
async def running(tmp_path) -> AsyncIterator[App]:
    agents, otlp, http = free_addresses(3)
    config = Config.model_validate({
        "storage": {"data_dir": tmp_path / "data", "low_water_bytes": 2**20, "ballast_bytes": 2**20},
        "otlp": {"grpc": otlp, "http": None},
        "control": {"agents": agents, "agents_socket": None, "operators_socket": None},
        "observe": {"http": http},
    })  # fmt: skip
    before = sys.getswitchinterval(), gc.get_threshold()
    app = App(config)
    try:
        await app.start()
        yield app
    finally:
        await app.stop()
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])
        gc.unfreeze()


async def ask(app: App, tool: str) -> pb.AuthorizeResponse:
    async with grpc.aio.insecure_channel(app.config.control.agents) as channel:
        call = {name: channel.unary_unary(f"/sidecar.control.v1.AgentService/{name}")
                for name in ("OpenSession", "Authorize")}  # fmt: skip
        await call["OpenSession"](pb.OpenSessionRequest(session_id="s", agent=AGENT).SerializeToString())
        question = pb.AuthorizeRequest(session_id="s", tool=tool, arguments_json="{}", call_id="c1", agent=AGENT)
        return pb.AuthorizeResponse.FromString(await call["Authorize"](question.SerializeToString()))


async def counted(app: App, name: str) -> float:
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{app.config.observe.http}/metrics").read())
    samples = [s for family in text_string_to_metric_families(page.decode()) for s in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


async def test_question_is_counted_with_what_the_core_took_to_decide_it(running):
    assert await counted(running, "sidecar_gate_decision_seconds_count") == 0
    assert (await ask(running, "read_file")).answer == pb.ANSWER_ALLOWED
    assert await counted(running, "sidecar_gate_decision_seconds_count") == 1
    assert await counted(running, "sidecar_gate_seconds_count") == 1
    taken = [await counted(running, f"sidecar_{name}_sum") for name in ("gate_decision_seconds", "gate_seconds")]
    assert 0 < taken[0] <= taken[1]


async def test_what_was_put_off_is_stored_before_the_stores_are_closed(running, monkeypatch):
    monkeypatch.setattr(recording, "SOON_S", 3600.0)
    monkeypatch.setattr(running, "_record", lambda action: None)  # the question came after that, while doors closed
    assert (await ask(running, "read_file")).answer == pb.ANSWER_ALLOWED
    await running.stop()
    reader = ControlReader(running.config.storage.data_dir / "control.db")
    assert [record.entry.session for record in reader.audit_after(0) if record.entry.action == "allow"] == ["s"]
    reader.load(Instant.now())
    reader.close_reader()
