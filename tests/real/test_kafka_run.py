"""The whole way by Kafka: an agent's OpenTelemetry SDK, a real Collector, a real broker, `sidecar run`, a pause."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaConsumer, TopicPartition
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sidecar import agent as agents
from tests.faults.process import Sidecar
from tests.real.parts import Collector, KafkaBroker
from tests.real.test_kafka import Ledger, reading, records_of, spans_of, until
from tests.shells.recordings import AFFAIR, DULL, THREAT, Act

pytestmark = [pytest.mark.broker, pytest.mark.collector]
PARTITIONS = 3

COLLECTOR = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:PORT_GRPC"}}}}
processors: {batch: {send_batch_size: 8, timeout: 20ms}}
exporters:
  kafka:
    brokers: ["BROKER"]
    traces: {topic: TOPIC, encoding: otlp_proto}
    partition_traces_by_id: true
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [kafka]}
"""


class Agent:
    """An agent with the OpenTelemetry SDK, as its framework would use it; it knows nothing of a sidecar."""

    def __init__(self, name: str, collector: Collector) -> None:
        self._name = name
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{collector.ports['grpc']}", insecure=True)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=20))
        self._tracer = self._provider.get_tracer("agent.framework")

    def run(self, session: str, *acts: Act) -> None:
        """One run of the agent, in a trace of its own: its tool calls, one after the other."""
        about = {"gen_ai.conversation.id": session, "gen_ai.agent.name": self._name}
        with self._tracer.start_as_current_span(
            f"invoke_agent {self._name}", attributes={"gen_ai.operation.name": "invoke_agent"} | about
        ):
            for act in acts:
                with self._tracer.start_as_current_span(f"execute_tool {act.tool}") as span:
                    span.set_attributes(about | {
                        "gen_ai.operation.name": "execute_tool",
                        "gen_ai.tool.name": act.tool,
                        "gen_ai.tool.call.arguments": json.dumps(act.arguments),
                        "gen_ai.tool.call.result": act.result,
                    })  # fmt: skip
        assert self._provider.force_flush()

    def close(self) -> None:
        self._provider.shutdown()


@pytest.fixture
def topic(kafka_broker: KafkaBroker, tmp_path: Path) -> str:
    """The topic of one test; its consumer group has the same name."""
    return kafka_broker.make_topic(f"spans-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}", PARTITIONS)


@pytest.fixture
def gateway(kafka_broker: KafkaBroker, collector: Callable[..., Collector], topic: str) -> Collector:
    """A Collector that agents send to and that writes to the topic."""
    return collector(COLLECTOR.replace("BROKER", kafka_broker.address).replace("TOPIC", topic))


@pytest.fixture
def sidecar(kafka_broker: KafkaBroker, topic: str, tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar whose telemetry comes by Kafka, from a Collector that is trusted to name the agent ``desk``."""
    folder = tmp_path / "sidecar"
    folder.mkdir()
    one = Sidecar(folder, installed=True)
    settings = yaml.safe_load(one.config.read_text())
    settings["kafka"] = [{
        "name": "fleet",
        "bootstrap_servers": [kafka_broker.address],
        "topics": {topic: {"signal": "traces"}},
        "group_id": topic,
        "session_timeout": "2s",
        "speaks_for": ["desk"],
    }]  # fmt: skip
    one.config.write_text(yaml.safe_dump(settings))
    yield one
    one.kill()


def sessions(sidecar: Sidecar) -> dict[str, Any]:
    """What an operator sees by ``sidecar sessions --json``, by session."""
    argv = [Path(sys.executable).with_name("sidecar"), "sessions", "--json", "--at"]
    target = f"unix:{sidecar.data / 'operators.sock'}"
    done = subprocess.run([*map(str, argv), target], capture_output=True, text=True, timeout=60, check=True)
    return {view["session_id"]: view for view in json.loads(done.stdout)}


def acts(sidecar: Sidecar) -> dict[str, int]:
    """Acts that the sidecar knows of, by session."""
    with sidecar.people() as operators:
        return {view.session_id: view.acts for view in operators.sessions(limit=500)}


def written(broker: KafkaBroker, topic: str) -> int:
    """Messages on the topic."""
    places = [TopicPartition(topic, n) for n in range(PARTITIONS)]
    with contextlib.closing(KafkaConsumer(bootstrap_servers=broker.address)) as consumer:
        return sum(consumer.end_offsets(places).values())


def waiting(broker: KafkaBroker, topic: str) -> int:
    """Messages on the topic that the group has not committed."""
    config = {"bootstrap_servers": broker.address, "group_id": topic, "enable_auto_commit": False}
    with contextlib.closing(KafkaConsumer(**config)) as consumer:
        committed = sum(consumer.committed(TopicPartition(topic, n)) or 0 for n in range(PARTITIONS))
    return written(broker, topic) - committed


@pytest.mark.faults
def test_a_session_is_paused_by_what_comes_over_kafka_and_a_kill_loses_nothing_of_it(
    kafka_broker: KafkaBroker,
    gateway: Collector,
    topic: str,
    sidecar: Sidecar,
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk, stranger = Agent("desk", gateway), Agent("stranger", gateway)
    sent: dict[str, int] = {}
    ends = threading.Event()

    def work() -> None:
        while not ends.wait(0.05) and len(sent) < 180:  # a list shows 200
            session = f"dull-{len(sent)}"
            desk.run(session, *DULL)
            sent[session] = len(DULL)

    sidecar.start()
    desk.run("threat", AFFAIR)
    stranger.run("elsewhere", *DULL)
    sent |= {"threat": 1, "elsewhere": len(DULL)}
    sidecar.until(lambda: acts(sidecar) == sent, 60)

    # A kill while messages come in, and the act that matters while nobody looks.
    sender = threading.Thread(target=work)
    sender.start()
    sidecar.until(lambda: len(acts(sidecar)) > 20)
    sidecar.kill()
    is_armed, at_kill = sender.is_alive(), len(sent)
    desk.run("threat", THREAT)
    while sender.is_alive() and len(sent) < at_kill + 20:
        sender.join(0.01)
    ends.set()
    sender.join()
    sent["threat"] = 2
    left = waiting(kafka_broker, topic)
    sidecar.start()
    sidecar.until(lambda: sessions(sidecar)["threat"]["state"] == "RUN_STATE_PAUSED", 60)
    sidecar.until(lambda: acts(sidecar) == sent, 60)
    sidecar.until(lambda: waiting(kafka_broker, topic) == 0)
    with capsys.disabled():
        print(f"\nkafka, whole way: armed {is_armed}, messages left at the kill {left}, sessions {len(sent)}, lost 0")
    assert is_armed, "the kill fell when all had been sent"
    assert left > 0, "the kill fell when all had been read"

    seen = sessions(sidecar)
    threat = seen.pop("threat")
    assert (threat["realm"], threat["grade"]) == ("agent:desk", "attested")
    assert threat["observed"] == "OBSERVED_UNENFORCED", "nothing holds an agent that only sends spans, and it says so"
    assert {cause["actor"] for cause in threat["causes"]} == {"leverage"}
    assert (seen["elsewhere"]["realm"], seen["elsewhere"]["grade"]) == ("forwarder:fleet", "declared")
    assert {view["state"] for view in seen.values()} == {"RUN_STATE_RUNNING"}
    with sidecar.people() as operators:
        (alert,) = [alert for alert in operators.alerts() if alert.detector == "leverage"]

    # The pause and the alert outlive another kill, and what is read again changes neither.
    sidecar.kill()
    sidecar.start()
    assert sessions(sidecar)["threat"]["pause_id"] == threat["pause_id"]
    sidecar.until(lambda: acts(sidecar) == sent, 60)
    with sidecar.people() as operators:
        (again,) = [alert for alert in operators.alerts() if alert.detector == "leverage"]
    assert (again.fingerprint, again.count) == (alert.fingerprint, alert.count)
    desk.close()
    stranger.close()


def test_an_act_asked_at_the_gate_and_its_span_that_comes_by_kafka_are_one_event(
    kafka_broker: KafkaBroker, gateway: Collector, topic: str, sidecar: Sidecar, tmp_path: Path
) -> None:
    """The agent library asks the sidecar, by its credential, and sends its telemetry to the Collector."""
    tokens = tmp_path / "tokens.yaml"
    digest = hashlib.sha256(b"the desk's token").hexdigest()
    tokens.write_text(yaml.safe_dump({"tokens": [{"name": "desk", "role": "agent", "sha256": digest}]}))
    tokens.chmod(0o600)
    settings = yaml.safe_load(sidecar.config.read_text())
    settings["control"]["credentials"] = {"file": str(tokens)}
    sidecar.config.write_text(yaml.safe_dump(settings))
    sidecar.start()
    sent: list[str] = []
    library = agents.connect(
        "desk", control=sidecar.address("agents"), otlp=f"127.0.0.1:{gateway.ports['grpc']}",
        token="the desk's token", on_pause="raise", on_hold="raise",
        tracer_provider=TracerProvider(resource=Resource({"service.name": "desk"})), deadline_s=5.0,
        patience_s=30.0, flush_s=10.0,
    )  # fmt: skip

    @library.tool
    def read_inbox(folder: str) -> str:
        return AFFAIR.result

    @library.tool
    def send_email(to: str, subject: str, body: str) -> str:
        sent.append(to)
        return "sent"

    asked = 0

    def act(tool: Callable[..., str], arguments: dict[str, str]) -> str:
        """As its user would: what a busy machine answers too late is asked again."""
        nonlocal asked
        for _ in range(100):
            asked += 1
            with contextlib.suppress(agents.SidecarUnavailable):
                return tool(**arguments)
        pytest.fail("the sidecar never answered in time")

    with library, library.session() as session:
        act(read_inbox, AFFAIR.arguments)
        act(send_email, DULL[1].arguments)
        before = asked
        with pytest.raises(agents.SessionPaused):
            act(send_email, THREAT.arguments)
        name = session.id
    assert sent == [DULL[1].arguments["to"]]
    sidecar.until(lambda: written(kafka_broker, topic) > 0, 60)
    sidecar.until(lambda: waiting(kafka_broker, topic) == 0, 60)
    sidecar.until(lambda: not sidecar.count("inbox_rows"), 60)
    (view,) = [view for view in sessions(sidecar).values() if view["session_id"] == name]
    assert (view["realm"], view["state"]) == ("agent:desk", "RUN_STATE_PAUSED")
    assert 3 <= int(view["acts"]) <= asked, "an act is known twice"
    with sidecar.people() as operators:
        (alert,) = operators.alerts(session_id=name)
    assert alert.detector == "leverage"
    assert alert.count <= asked - before


# --- every compression that a Collector can write --------------------------------------------------------------------

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def compressing(address: str) -> str:
    """A Collector's configuration that writes all it gets once in each compression."""
    exporters = {
        f"kafka/{codec}": {
            "brokers": [address],
            "traces": {"topic": f"spans_{codec}"},
            "logs": {"topic": f"logs_{codec}"},
            "producer": {"compression": codec},
        }
        for codec in CODECS
    }
    pipeline = {"receivers": ["otlp"], "exporters": list(exporters)}
    return str(yaml.safe_dump({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:PORT_HTTP"}}}},
        "exporters": exporters,
        "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": {"traces": pipeline, "logs": pipeline}},
    }))  # fmt: skip


def codecs_stored(broker: KafkaBroker, topic: str) -> set[int]:
    """The compression of every batch of a topic, from the broker's own file."""
    (file,) = broker.folder.glob(f"data/{topic}-0/*.log")
    data, at, found = file.read_bytes(), 0, set()
    while at + 23 <= len(data):
        (length,) = struct.unpack_from(">i", data, at + 8)
        if not length:
            break  # the rest of the file is kept free
        (attributes,) = struct.unpack_from(">h", data, at + 21)
        if not attributes & 0x20:  # no control batch
            found.add(attributes & 7)
        at += 12 + length
    return found


async def test_messages_in_every_compression_that_a_collector_writes_are_read(
    kafka_broker: KafkaBroker, collector: Callable[..., Collector]
) -> None:
    import urllib.request

    from tests.real.test_kafka import made_requests

    for codec in CODECS:
        kafka_broker.make_topic(f"spans_{codec}")
        kafka_broker.make_topic(f"logs_{codec}")
    started = collector(compressing(kafka_broker.address))
    traces, logs = made_requests()

    def send() -> None:
        for path, bodies in (("traces", traces), ("logs", logs)):
            for body in bodies:
                url = f"http://127.0.0.1:{started.ports['http']}/v1/{path}"
                request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.status == 200

    await asyncio.to_thread(send)
    await asyncio.to_thread(started.stop)  # it sends what it holds first
    for codec, number in CODECS.items():
        assert codecs_stored(kafka_broker, f"spans_{codec}") == {number}, codec
        ledger, gaps = Ledger(), []
        topics = {f"spans_{codec}": {"signal": "traces"}, f"logs_{codec}": {"signal": "logs"}}

        def told(kind: str) -> list[bytes]:
            return [body for said, body, *_ in ledger.taken if said == kind]  # noqa: B023 - called in its turn

        async with reading(kafka_broker, ledger, codec, topics=topics, gaps=gaps):
            await until(lambda: spans_of(told("traces")).total() >= spans_of(traces).total(), codec)
            await until(lambda: records_of(told("logs")).total() >= records_of(logs).total(), codec)
        assert spans_of(told("traces")) == spans_of(traces), codec
        assert records_of(told("logs")) == records_of(logs), codec
        assert gaps == []
