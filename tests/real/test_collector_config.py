"""The Collector configuration that we ship, on a real Collector."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from kafka import KafkaConsumer
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from sidecar.sources.identity import AGENT_KEYS
from tests.real.parts import Collector, free_port

pytestmark = pytest.mark.collector

SHIPPED = Path(__file__).parents[2] / "deploy/collector.yaml"
OVER = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:PORT_GRPC"}, http: {endpoint: "127.0.0.1:PORT_HTTP"}}}}
service: {telemetry: {metrics: {level: none}}}
"""


def shipped(folder: Path, *examples: str) -> Path:
    """The file, with some of its examples on, as its first lines say to do it."""
    text = SHIPPED.read_text()
    for example in examples:
        text = "".join(line.removeprefix(f"#{example}:") for line in text.splitlines(keepends=True))
    (folder / "collector.yaml").write_text(text)
    return folder / "collector.yaml"


class Sink:
    """Stands where the sidecar would: takes OTLP by gRPC and keeps it."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.requests: list[object] = []
        self.came = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(
            self._service(trace_service_pb2.ExportTraceServiceResponse), self._server
        )
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(
            self._service(logs_service_pb2.ExportLogsServiceResponse), self._server
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        self._server.start()

    def _service(self, answer: Callable[[], object]) -> object:
        class Service:
            @staticmethod
            def Export(request, context):
                self.requests.append(request)
                self.came.set()
                return answer()

        return Service()

    def one(self) -> object:
        """The request that came."""
        assert self.came.wait(30), "nothing came"
        (request,) = self.requests
        self.requests.clear()
        self.came.clear()
        return request

    def close(self) -> None:
        self._server.stop(None)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with contextlib.closing(Sink()) as sink:
        yield sink


def send(started: Collector, path: str, request: object, user: str = "") -> None:
    header = {"Content-Type": "application/x-protobuf"}
    if user:
        header["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    url = f"http://127.0.0.1:{started.ports['http']}/v1/{path}"
    with urllib.request.urlopen(urllib.request.Request(url, request.SerializeToString(), header), timeout=30):
        pass


def claiming(request: object, resources: object, *claims: tuple[str, str]) -> object:
    """A request whose resource says `claims`, in that order."""
    resource = resources.add()
    for key, value in claims:
        resource.resource.attributes.add(key=key).value.string_value = value
    if hasattr(resource, "scope_spans"):
        span = resource.scope_spans.add().spans.add(name="tool", trace_id=b"1" * 16, span_id=b"2" * 8)
        for key in ("sidecar.call.id", "gen_ai.agent.name"):
            span.attributes.add(key=key).value.string_value = "kept"
    else:
        resource.scope_logs.add().log_records.add(time_unix_nano=1)
    return request


def spans(*claims: tuple[str, str]) -> object:
    request = trace_service_pb2.ExportTraceServiceRequest()
    return claiming(request, request.resource_spans, *claims)


def said(resource: object) -> list[tuple[str, str]]:
    return sorted((pair.key, pair.value.string_value) for pair in resource.resource.attributes)


FORGED = [("service.name", "mailer"), ("service.name", "mailer again"), ("gen_ai.agent.name", "mailer"), ("host", "h")]
DECLARED = [("declared.gen_ai.agent.name", "mailer"), ("declared.service.name", "mailer"), ("host", "h")]


@pytest.mark.parametrize("examples", [(), ("one",), ("auth",), ("kafka",), ("auth", "kafka")])
def test_the_file_is_valid_with_each_of_its_examples(otelcol, tmp_path, examples):
    argv = [otelcol, "validate", f"--config={shipped(tmp_path, *examples)}"]
    env = os.environ | {"AGENT_NAME": "planner"}
    done = subprocess.run(argv, capture_output=True, check=False, env=env)
    assert done.returncode == 0, done.stderr.decode()


def test_it_does_not_start_for_an_agent_without_a_name(otelcol, tmp_path):
    argv = [otelcol, "validate", f"--config={shipped(tmp_path, 'one')}"]
    env = {name: value for name, value in os.environ.items() if name != "AGENT_NAME"}
    assert subprocess.run(argv, capture_output=True, check=False, env=env).returncode != 0


def test_what_the_sidecar_would_believe_is_taken_off_and_nothing_else(collector, sink, tmp_path):
    started = collector(OVER, base=shipped(tmp_path), env={"SIDECAR_OTLP": sink.address})
    send(started, "traces", spans(*FORGED))
    (resource,) = sink.one().resource_spans
    assert said(resource) == DECLARED
    (span,) = resource.scope_spans[0].spans
    assert {pair.key for pair in span.attributes} == {"sidecar.call.id", "gen_ai.agent.name"}
    logs = logs_service_pb2.ExportLogsServiceRequest()
    send(started, "logs", claiming(logs, logs.resource_logs, *FORGED))
    assert said(sink.one().resource_logs[0]) == DECLARED
    send(started, "traces", spans(("host", "h")))
    assert said(sink.one().resource_spans[0]) == [("host", "h")]


def test_every_key_that_names_an_agent_is_taken_off(collector, sink, tmp_path):
    started = collector(OVER, base=shipped(tmp_path), env={"SIDECAR_OTLP": sink.address})
    send(started, "traces", spans(*((key, "mailer") for key in AGENT_KEYS)))
    assert not {key for key, _ in said(sink.one().resource_spans[0])} & set(AGENT_KEYS)


def test_an_agent_alone_has_the_name_that_the_collector_gives_it(collector, sink, tmp_path):
    env = {"SIDECAR_OTLP": sink.address, "AGENT_NAME": "planner"}
    started = collector(OVER, base=shipped(tmp_path, "one"), env=env)
    send(started, "traces", spans(*FORGED))
    assert ("gen_ai.agent.name", "planner") in said(sink.one().resource_spans[0])


def test_an_agent_has_the_name_of_its_password_whatever_it_says(collector, sink, tmp_path):
    users = tmp_path / "agents.htpasswd"
    hashed = base64.b64encode(hashlib.sha1(b"alices").digest()).decode()
    users.write_text(f"alice:{{SHA}}{hashed}\n")
    env = {"SIDECAR_OTLP": sink.address, "AGENTS_HTPASSWD": str(users)}
    started = collector(OVER, base=shipped(tmp_path, "auth"), env=env)
    for stranger in ("", "alice:wrong", "mailer:alices"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            send(started, "traces", spans(*FORGED), stranger)
    assert sink.requests == []
    send(started, "traces", spans(*FORGED), "alice:alices")
    names = [value for key, value in said(sink.one().resource_spans[0]) if key in AGENT_KEYS]
    assert names == ["alice"]


@pytest.mark.broker
def test_kafka_gets_what_the_sidecar_gets(collector, sink, tmp_path, kafka_broker):
    for topic in ("otlp_spans", "otlp_logs"):
        kafka_broker.make_topic(topic)
    env = {"SIDECAR_OTLP": sink.address, "KAFKA_BROKER": kafka_broker.address}
    started = collector(OVER, base=shipped(tmp_path, "kafka"), env=env)
    send(started, "traces", spans(*FORGED))
    config = {"bootstrap_servers": kafka_broker.address, "auto_offset_reset": "earliest"}
    with contextlib.closing(KafkaConsumer("otlp_spans", **config)) as consumer:
        (records,) = consumer.poll(30_000).values()
    assert trace_service_pb2.ExportTraceServiceRequest.FromString(records[0].value) == sink.one()
    assert records[0].key == (b"1" * 16).hex().encode()


def test_telemetry_waits_while_the_sidecar_is_away(collector, tmp_path):
    away = f"127.0.0.1:{free_port()}"
    started = collector(OVER, base=shipped(tmp_path), env={"SIDECAR_OTLP": away})
    send(started, "traces", spans(("host", "h")))
    deadline = time.monotonic() + 30
    while b"Will retry" not in started.log.read_bytes():
        assert time.monotonic() < deadline, started.log.read_text()
        time.sleep(0.05)
    with contextlib.closing(Sink(away)) as back:
        assert said(back.one().resource_spans[0]) == [("host", "h")]
