"""The HTTP port, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sidecar.errors import ConfigError
from sidecar.observe import http
from sidecar.observe.health import STUCK_S
from sidecar.observe.http import CONNECTIONS, Door, app
from sidecar.observe.settings import ObserveSettings
from tests.shells.observe.scene import Scene


@pytest.fixture
async def door(scene: Scene) -> AsyncIterator[Door]:
    made = Door(app(scene.scrape, scene.health), "127.0.0.1:0")
    made.start()
    yield made
    await made.close()


async def ask(door: Door, path: str, *, method: str = "GET", header: str = "") -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers in lower case, body."""
    host, port = door.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


async def test_metrics_are_shown_in_the_form_that_is_asked_for(scene, door):
    scene.act("s1", "mailer", "read")
    status, headers, body = await ask(door, "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'sidecar_acts_total{asked="no",role="mailer",scored="yes"} 1.0\n' in body
    status, headers, body = await ask(door, "/metrics", header="Accept: application/openmetrics-text;version=1.0.0\r\n")
    assert (status, headers["content-type"]) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert body.endswith(b"# EOF\n")


async def test_a_head_has_the_headers_of_a_get_and_no_body(door):
    for path in ("/metrics", "/healthz", "/readyz"):
        status, headers, body = await ask(door, path, method="HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"])
async def test_other_methods_are_refused(door, method):
    status, headers, _ = await ask(door, "/metrics", method=method)
    assert status == 405
    assert set(headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path", ["/", "/metrics/x", "/api/v1/sessions", "/console", "/../etc/passwd", "/%2e%2e/", "/Metrics"]
)
async def test_nothing_else_is_served(door, path):
    status, _, body = await ask(door, path)
    assert (status, body) == (404, b"Not Found")


async def test_answers_say_nothing_of_what_serves_them_and_are_not_kept(door):
    _, headers, _ = await ask(door, "/metrics")
    assert "server" not in headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


async def test_alive_as_long_as_the_clock_ticks(scene, door):
    scene.now_s = STUCK_S - 0.1
    assert (await ask(door, "/healthz"))[0] == 200
    scene.now_s = STUCK_S
    status, _, body = await ask(door, "/healthz")
    assert (status, body) == (503, b"the clock is stuck\n")
    assert await scene.value("sidecar_unready", reason="stuck") == 1
    scene.health.beat()
    assert (await ask(door, "/healthz"))[0] == 200


async def test_how_late_the_clock_ticks_is_measured(scene):
    for scene.now_s in (1.0, 2.0, 3.5):
        scene.health.beat()
    assert await scene.value("sidecar_loop_lag_seconds_count") == 3
    assert await scene.value("sidecar_loop_lag_seconds_sum") == 0.5


async def test_ready_only_when_it_can_judge_and_says_why_not(scene, door):
    status, headers, body = await ask(door, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": {}})
    assert headers["content-type"] == "application/json"
    scene.service.restoring = True
    scene.service.degraded["feeder"] = None
    scene.pipeline.engine.switch_off("marked")
    scene.control.writer._failure = "control.db: disk I/O error"
    status, _, body = await ask(door, "/readyz")
    assert status == 503
    assert json.loads(body)["reasons"] == {
        "restoring": ["the state before the start"],
        "degraded": ["feeder"],
        "detector_off": ["marked"],
        "storage_failed": ["control.db"],
    }
    assert await scene.value("sidecar_ready") == 0
    assert await scene.value("sidecar_storage_failed", database="control") == 1
    assert await scene.value("sidecar_unready") == 4
    scene.control.writer._failure = ""


async def test_scrapes_at_the_same_time_are_each_whole(scene, door):
    for number in range(200):
        scene.act(f"s{number}", f"agent {number}", "send", mark="medium")
    pages = await asyncio.gather(*(ask(door, "/metrics") for _ in range(20)))
    for status, _, body in pages:
        assert status == 200
        assert body.count(b"sidecar_alerts_firing{") == 51
        assert body.count(b"\nsidecar_ready 1.0\n") == 1


async def test_counting_goes_on_while_a_scrape_is_written(scene, monkeypatch):
    """The page is written in a thread; the loop that judges has its turn meanwhile."""
    writing, go_on = asyncio.Event(), asyncio.Event()
    loop, write = asyncio.get_running_loop(), scene.scrape._write

    def slow(*args: object) -> tuple[bytes, str]:
        loop.call_soon_threadsafe(writing.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)
        return write(*args)

    monkeypatch.setattr(scene.scrape, "_write", slow)
    page = asyncio.create_task(scene.page())
    await asyncio.wait_for(writing.wait(), 30)
    scene.act("s1", "mailer", "read")
    go_on.set()
    assert 'role="mailer"' in await page


async def test_others_may_add_routes(scene):
    async def hello(request: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    door = Door(app(scene.scrape, scene.health, [Route("/hello", hello)]), "127.0.0.1:0")
    door.start()
    assert (await ask(door, "/hello"))[2] == b"hello"
    await door.close()


async def test_few_connections_are_kept_and_the_port_recovers(scene, door):
    host, port = door.address.rsplit(":", 1)
    held = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS)]
    reader, writer = await asyncio.open_connection(host, int(port))
    assert await asyncio.wait_for(reader.read(), 30) == b""
    for _, open_ in (*held, (reader, writer)):
        open_.close()
        await open_.wait_closed()
    for _ in range(100):
        try:
            assert (await ask(door, "/healthz"))[0] == 200
            break
        except (ConnectionError, ValueError, IndexError):  # the others' ends have not arrived yet
            await asyncio.sleep(0.05)
    else:
        pytest.fail("no connection is taken any more")


async def test_a_client_that_asks_nothing_is_sent_away(scene, monkeypatch):
    monkeypatch.setattr(http, "REQUEST_S", 0.05)
    door = Door(app(scene.scrape, scene.health), "127.0.0.1:0")
    door.start()
    host, port = door.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost:")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    await door.close()


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000]
)
async def test_what_is_no_request_is_refused_and_the_port_lives(door, request_):
    host, port = door.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_)
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.startswith(b"HTTP/1.1 400")
    writer.close()
    assert (await ask(door, "/healthz"))[0] == 200


async def test_an_address_in_use_stops_the_start_by_name(scene):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=r"observe\.http: cannot listen on 127\.0\.0\.1:\d+: Address already in use"
        ):
            Door(app(scene.scrape, scene.health), address)


async def test_signals_stay_the_applications(scene):
    import signal

    before = signal.getsignal(signal.SIGTERM)
    door = Door(app(scene.scrape, scene.health), "127.0.0.1:0")
    door.start()
    assert (await ask(door, "/healthz"))[0] == 200
    assert signal.getsignal(signal.SIGTERM) is before
    await door.close()


@pytest.mark.parametrize("address", ["0.0.0.0:4322", "[::]:4322", "10.0.0.5:4322", "sidecar.example:4322"])
def test_beyond_this_machine_only_when_told_so(address):
    with pytest.raises(ValidationError, match="exposed: true"):
        ObserveSettings(http=address)
    assert ObserveSettings(http=address, exposed=True).http == address


@pytest.mark.parametrize("address", ["127.0.0.1:4322", "[::1]:0", "localhost:80", None])
def test_on_this_machine_by_default(address):
    assert ObserveSettings(http=address).http == address
    assert ObserveSettings().http == "127.0.0.1:4322"


async def test_free_space_is_that_of_the_databases(scene, tmp_path: Path):
    assert await scene.value("sidecar_disk_free_bytes") > 0
