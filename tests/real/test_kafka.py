"""The Kafka source against a real broker, and what a real Collector writes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import logging
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest
from google.protobuf.internal.decoder import _DecodeVarint32
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.core.span import Speaker
from sidecar.errors import SpanError, StorageError
from sidecar.sources import InboxFullError, kafka
from sidecar.sources.kafka import Gap, KafkaSource
from sidecar.sources.kafka_settings import KafkaSettings, KafkaTopic
from tests.real.parts import KafkaBroker, free_port

pytestmark = pytest.mark.broker
PATIENCE_S = 60.0


class Ledger:
    """An intake that keeps what it is given; `fails` may raise first."""

    def __init__(self, fails: Callable[[bytes], Exception | None] = lambda _: None) -> None:
        self.taken: list[tuple[str, bytes, str, Speaker, int]] = []
        self.fails = fails

    async def take(self, kind, body, encoding, speaker, arrived_ns):
        await asyncio.sleep(0)
        if error := self.fails(body):
            raise error
        self.taken.append((kind, body, encoding, speaker, arrived_ns))

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body, *_ in self.taken]


class Asides(list):
    """Dead letters, kept in memory."""

    def __call__(self, body, topic, partition, offset, reason):
        self.append((body, topic, partition, offset, reason))


@contextlib.asynccontextmanager
async def reading(
    broker: KafkaBroker | str, intake: object, *topics: str, group: str = "", gaps: list[Gap] | None = None, **more
) -> AsyncIterator[KafkaSource]:
    """A source at work; its dead letters are in ``source.asides``."""
    asides = Asides()
    settings = {
        "bootstrap_servers": [broker if isinstance(broker, str) else broker.address],
        "topics": {topic: {"signal": "traces"} for topic in topics},
        "group_id": group or f"group-{topics[0]}",
        "session_timeout": 2,
    }
    source = KafkaSource(
        KafkaSettings.model_validate(settings | more),
        intake,
        dead_letter=asides,
        gap=(gaps if gaps is not None else []).append,
    )
    source.asides = asides
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        await source.close()
        await task


async def until(is_so: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"never so: {what or is_so}"
        await asyncio.sleep(0.02)


def produce(broker: KafkaBroker, topic: str, bodies: Iterable[bytes], *, together: bool = False, **config) -> None:
    """Sends messages to partition 0, each a batch of its own unless `together`."""
    with contextlib.closing(broker.producer(**({"linger_ms": 200} if together else {}), **config)) as producer:
        for body in bodies:
            producer.send(topic, body, key=b"a key is not looked at", partition=0)
            if not together:
                producer.flush()
        producer.flush()


def committed(broker: KafkaBroker, group: str, topic: str) -> int | None:
    with contextlib.closing(KafkaConsumer(bootstrap_servers=broker.address, group_id=group)) as consumer:
        return consumer.committed(TopicPartition(topic, 0))


# --- what the Collector writes ---------------------------------------------------------------------------------------

COLLECTOR = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:PORT_HTTP"}}}}
processors: {batch: {send_batch_size: 64, timeout: 200ms}}
exporters:
  kafka:
    brokers: ["BROKER"]
    traces: {topic: wire_spans, encoding: otlp_proto}
    logs: {topic: wire_logs}
    partition_traces_by_id: true
  kafka/json:
    brokers: ["BROKER"]
    traces: {topic: wire_json, encoding: otlp_json}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [kafka, kafka/json]}
    logs: {receivers: [otlp], processors: [batch], exporters: [kafka]}
"""


def delimited(file: Path) -> list[bytes]:
    """The requests of a capture: each after its length as a varint."""
    data, at, found = gzip.decompress(file.read_bytes()), 0, []
    while at < len(data):
        size, at = _DecodeVarint32(data, at)
        found.append(data[at : at + size])
        at += size
    return found


def made_requests() -> tuple[list[bytes], list[bytes]]:
    """Requests for machines without captures."""
    traces, logs = [], []
    for n in range(1, 60):
        spans = ExportTraceServiceRequest()
        scope = spans.resource_spans.add().scope_spans.add()
        for m in range(1, 1 + n % 7):
            span = scope.spans.add(name=f"tool {m}", trace_id=n.to_bytes(16), span_id=(n * 100 + m).to_bytes(8))
            span.attributes.add(key="gen_ai.tool.call.arguments").value.string_value = "é🙂" * (n * m)
            span.status.SetInParent()  # the Collector writes it whether or not it was there
        traces.append(spans.SerializeToString())
        told = ExportLogsServiceRequest()
        told.resource_logs.add().scope_logs.add().log_records.add(body={"string_value": f"said {n}"}, time_unix_nano=n)
        logs.append(told.SerializeToString())
    return traces, logs


def captured_requests(request: pytest.FixtureRequest) -> tuple[list[bytes], list[bytes]]:
    try:
        folder: Path = request.getfixturevalue("shared") / "captures"
    except pytest.skip.Exception:
        return made_requests()
    traces, logs = (sorted(folder.glob(f"*.content.{signal}.otlp.pb.gz"))[:40] for signal in ("traces", "logs"))
    return [body for file in traces for body in delimited(file)], [body for file in logs for body in delimited(file)]


def digest(*parts) -> str:
    return hashlib.sha256(b"|".join(part.SerializeToString(deterministic=True) for part in parts)).hexdigest()[:16]


def spans_of(bodies: Iterable[bytes]) -> Counter[str]:
    """Every span with its resource and scope, as a digest of their bytes."""
    requests = map(ExportTraceServiceRequest.FromString, bodies)
    return Counter(
        digest(resource.resource, scope.scope, span)
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


def records_of(bodies: Iterable[bytes]) -> Counter[str]:
    requests = map(ExportLogsServiceRequest.FromString, bodies)
    return Counter(
        digest(resource.resource, scope.scope, record)
        for request in requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    )


@pytest.mark.collector
async def test_every_span_and_log_record_that_a_collector_was_given_is_taken(kafka_broker, collector, request):
    for topic in ("wire_spans", "wire_logs", "wire_json"):
        kafka_broker.make_topic(topic, 3)
    traces, logs = captured_requests(request)
    started = collector(COLLECTOR.replace("BROKER", kafka_broker.address))

    def send() -> None:
        for path, bodies in (("traces", traces), ("logs", logs)):
            for body in bodies:
                url = f"http://127.0.0.1:{started.ports['http']}/v1/{path}"
                header = {"Content-Type": "application/x-protobuf"}
                with urllib.request.urlopen(urllib.request.Request(url, body, header), timeout=30) as answer:
                    assert answer.status == 200

    ledger = Ledger()
    topics = {
        "wire_spans": KafkaTopic(signal="traces"),
        "wire_logs": KafkaTopic(signal="logs"),
        "wire_json": KafkaTopic(signal="traces", encoding="otlp_json"),
    }
    async with reading(kafka_broker, ledger, "wire", topics=topics, speaks_for=("mailer",)) as source:
        await asyncio.to_thread(send)
        await asyncio.to_thread(started.stop)  # it sends what it holds first

        def taken(kind: str, encoding: str) -> list[bytes]:
            return [body for told, body, how, *_ in ledger.taken if (told, how) == (kind, encoding)]

        sent, said = spans_of(traces), records_of(logs)
        await until(lambda: spans_of(taken("traces", "proto")).total() >= sent.total(), "all spans")
        await until(lambda: records_of(taken("logs", "proto")).total() >= said.total(), "all log records")
        await until(lambda: source.position() and source.counts.taken == len(ledger.taken))
    assert sent.total() > 100
    assert spans_of(taken("traces", "proto")) == sent
    assert records_of(taken("logs", "proto")) == said
    assert taken("traces", "json")
    assert all(body.startswith(b'{"resourceSpans"') for body in taken("traces", "json"))
    assert {speaker for *_, speaker, _ in ledger.taken} == {
        Speaker("forwarder:kafka", "attested", speaks_for=("mailer",))
    }
    # What is offered is the message itself, to the byte.
    with contextlib.closing(
        KafkaConsumer("wire_spans", bootstrap_servers=kafka_broker.address, auto_offset_reset="earliest")
    ) as consumer:
        stored: Counter[bytes] = Counter()
        while stored.total() < len(taken("traces", "proto")):
            stored.update(record.value for records in consumer.poll(20_000).values() for record in records)
    assert stored == Counter(taken("traces", "proto"))


# --- at least once ---------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, os, signal, sys
from sidecar.sources import kafka
from sidecar.sources.kafka_settings import KafkaSettings

address, topic, ledger, mode = sys.argv[1:]

class Intake:
    async def take(self, kind, body, encoding, speaker, arrived_ns):
        file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, body + b"\\n")
        os.close(file)

class DiesBeforeCommit(kafka.KafkaSource):
    async def _commit(self, consumer, reached):
        print("armed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

class CommitsFirst(kafka.KafkaSource):
    async def _take_all(self, consumer, batch):
        await self._commit(consumer, {at: records[-1].offset + 1 for at, records in batch.items()})
        print("armed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

kind = {"dies": DiesBeforeCommit, "control": CommitsFirst}[mode]
settings = KafkaSettings(
    bootstrap_servers=[address], topics={topic: {"signal": "traces"}}, group_id=topic, session_timeout=2
)
asyncio.run(kind(settings, Intake(), dead_letter=print, gap=print).run())
"""


async def lost_after_kill(broker: KafkaBroker, topic: str, folder: Path, mode: str) -> tuple[bool, int, int]:
    """Kills a source in its first turn, runs another to the end: (was it armed, messages lost, read twice)."""
    broker.make_topic(topic)
    sent = [b"%d" % n for n in range(50)]
    produce(broker, topic, sent, together=True)
    ledger = folder / f"{topic}.ledger"
    argv = [sys.executable, "-c", CHILD, broker.address, topic, str(ledger), mode]
    child = await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=PATIENCE_S, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    before = ledger.read_bytes().split() if ledger.exists() else []
    after = Ledger()
    async with reading(broker, after, topic, group=topic) as source:
        await until(lambda: source.status.lag == 0, "all read")
        await until(lambda: source.position().get((topic, 0)) == 50, "all committed")
    found = Counter(before) + Counter(after.bodies)
    armed = b"armed" in child.stdout and committed(broker, topic, topic) == 50
    return armed, sum(body not in found for body in sent), sum(n > 1 for n in found.values())


@pytest.mark.faults
async def test_a_kill_between_take_and_commit_loses_nothing(kafka_broker, tmp_path, capsys):
    rounds = 3
    runs = [await lost_after_kill(kafka_broker, f"killed-{n}", tmp_path, "dies") for n in range(rounds)]
    armed, lost, again = (sum(column) for column in zip(*runs, strict=True))
    control_armed, control_lost, _ = await lost_after_kill(kafka_broker, "killed-control", tmp_path, "control")
    with capsys.disabled():
        print(f"\nkafka: rounds {rounds}, armed {armed}, lost {lost}, read twice {again}; control lost {control_lost}")
    assert (armed, lost) == (rounds, 0)
    assert again > 0
    assert control_armed
    assert control_lost > 0


@pytest.mark.parametrize("instance", [None, "one"])
async def test_a_clean_close_hands_over_without_reading_twice(kafka_broker, instance):
    topic = kafka_broker.make_topic(f"clean-{instance}")
    produce(kafka_broker, topic, [b"1", b"2"])
    first, second = Ledger(), Ledger()
    async with reading(kafka_broker, first, topic, group_instance_id=instance):
        await until(lambda: len(first.taken) == 2)
    produce(kafka_broker, topic, [b"3"])
    async with reading(kafka_broker, second, topic, group_instance_id=instance):
        await until(lambda: second.taken)
    assert (first.bodies, second.bodies) == ([b"1", b"2"], [b"3"])


async def test_members_of_a_group_share_the_partitions(kafka_broker):
    topic = kafka_broker.make_topic("shared", 4)
    one, two = Ledger(), Ledger()
    async with reading(kafka_broker, one, topic, group="sharing") as first:
        await until(lambda: first.status.state == "reading")
        async with reading(kafka_broker, two, topic, group="sharing") as second:
            await until(lambda: second.status.state == "reading", "the second has its part")
            with contextlib.closing(kafka_broker.producer()) as producer:
                for n in range(40):
                    producer.send(topic, b"%d" % n, partition=n % 4)
                producer.flush()
            await until(lambda: len({*one.bodies, *two.bodies}) == 40)
            assert one.taken
            assert two.taken
        with contextlib.closing(kafka_broker.producer()) as producer:
            for n in range(4):
                producer.send(topic, b"after %d" % n, partition=n)
            producer.flush()
        await until(lambda: sum(body.startswith(b"after") for body in one.bodies) == 4, "the first has them all again")


async def test_a_join_that_outlasts_one_look_for_messages_is_still_finished(kafka_broker, monkeypatch):
    # With looks this short every join outlasts several; kafka-python alone then stays outside the group now and then.
    monkeypatch.setattr(kafka, "POLL_S", 0.002)
    for n in range(10):
        topic = kafka_broker.make_topic(f"joining-{n}")
        produce(kafka_broker, topic, [b"1"])
        ledger = Ledger()
        async with reading(kafka_broker, ledger, topic):
            await until(lambda: ledger.taken, "it joined")  # noqa: B023 - awaited within the turn


# --- bad messages ----------------------------------------------------------------------------------------------------


async def test_a_poison_message_is_put_aside_and_the_partition_goes_on(kafka_broker, caplog):
    topic = kafka_broker.make_topic("poison")
    secret = b"\xffpoison with a secret"
    produce(kafka_broker, topic, [b"1", secret, b"2"])
    ledger = Ledger(lambda body: SpanError("undecodable") if body == secret else None)
    async with reading(kafka_broker, ledger, topic) as source:
        await until(lambda: source.position().get((topic, 0)) == 3)
    assert ledger.bodies == [b"1", b"2"]
    assert source.asides == [(secret, topic, 0, 1, "undecodable")]
    assert source.counts.put_aside == {"undecodable": 1}
    assert committed(kafka_broker, f"group-{topic}", topic) == 3
    assert "undecodable" in caplog.text
    assert "secret" not in caplog.text


async def test_empty_oversized_and_intake_breaking_messages_are_put_aside_and_tombstones_counted(kafka_broker):
    topic = kafka_broker.make_topic("odd")
    produce(kafka_broker, topic, [b"", None, b"x" * 2000, b"breaks", b"refused", b"good"])
    errors = {b"breaks": ZeroDivisionError(), b"refused": NotRetriableError()}
    ledger = Ledger(errors.get)
    async with reading(kafka_broker, ledger, topic, max_message=1024) as source:
        await until(lambda: source.position().get((topic, 0)) == 6)
    assert ledger.bodies == [b"good"]
    assert [(offset, reason) for *_, offset, reason in sorted(source.asides, key=lambda aside: aside[3])] == [
        (0, "empty"),
        (2, "too_large"),
        (3, "intake_failed"),
        (4, "refused"),
    ]
    assert source.counts.tombstones == 1


class NotRetriableError(StorageError):
    retriable = False


async def test_a_message_goes_by_even_when_it_cannot_be_kept(kafka_broker):
    topic = kafka_broker.make_topic("unkept")
    produce(kafka_broker, topic, [b"bad", b"good"])
    ledger = Ledger(lambda body: SpanError("undecodable") if body == b"bad" else None)
    async with reading(kafka_broker, ledger, topic) as source:
        source._dead_letter = lambda *_: (_ for _ in ()).throw(OSError("no space left"))
        await until(lambda: source.position().get((topic, 0)) == 2)
    assert ledger.bodies == [b"good"]
    assert source.counts.unkept == 1


def flip_a_byte(broker: KafkaBroker, topic: str, marker: bytes) -> None:
    """Damages the stored batch that holds `marker`, as a failing disk would."""
    (file,) = broker.folder.glob(f"data/{topic}-0/*.log")
    with file.open("r+b") as stored:
        at = stored.read().index(marker)
        stored.seek(at)
        stored.write(bytes([marker[0] ^ 1]))


async def test_a_batch_whose_checksum_is_wrong_is_tried_thrice_then_passed_by_as_a_gap(kafka_broker, monkeypatch):
    topic = kafka_broker.make_topic("damaged")
    produce(kafka_broker, topic, [b"before"])
    produce(kafka_broker, topic, [b"damaged 1", b"damaged 2", b"damaged 3"], together=True)
    produce(kafka_broker, topic, [b"after"])
    flip_a_byte(kafka_broker, topic, b"damaged 2")
    tries: Counter[int] = Counter()
    drop = kafka._drop_unreadable

    def counted(consumer):
        found = drop(consumer)
        tries[found[1]] += 1
        return found

    monkeypatch.setattr(kafka, "_drop_unreadable", counted)
    ledger, gaps = Ledger(), []
    async with reading(kafka_broker, ledger, topic, gaps=gaps) as source:
        await until(lambda: source.position().get((topic, 0)) == 5)
    assert ledger.bodies == [b"before", b"after"]
    assert tries == {1: kafka.TRIES, 2: 1, 3: 1}
    assert gaps == [Gap(topic, 0, offset, offset + 1, "unreadable") for offset in (1, 2, 3)]
    assert source.counts.gaps == 3
    assert source.counts.reconnects == 0


async def test_messages_that_expired_unread_are_a_gap(kafka_broker):
    topic = kafka_broker.make_topic("expired")
    produce(kafka_broker, topic, [b"%d" % n for n in range(3)])
    ledger, gaps = Ledger(), []
    async with reading(kafka_broker, ledger, topic, gaps=gaps) as source:
        await until(lambda: source.position().get((topic, 0)) == 3)
    produce(kafka_broker, topic, [b"%d" % n for n in range(3, 10)])
    with contextlib.closing(kafka_broker.admin()) as admin:
        admin.delete_records({TopicPartition(topic, 0): 8})
    async with reading(kafka_broker, ledger, topic, gaps=gaps) as source:
        await until(lambda: source.position().get((topic, 0)) == 10)
    assert ledger.bodies == [b"0", b"1", b"2", b"8", b"9"]
    assert gaps == [Gap(topic, 0, 3, 8, "expired")]


async def test_offsets_that_went_back_are_a_gap_and_all_is_read(kafka_broker):
    topic = kafka_broker.make_topic("restored")
    produce(kafka_broker, topic, [b"1", b"2"])
    config = {"bootstrap_servers": kafka_broker.address, "group_id": topic, "enable_auto_commit": False}
    with contextlib.closing(KafkaConsumer(**config)) as consumer:  # as if the broker had lost the rest
        consumer.assign([TopicPartition(topic, 0)])
        consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(10, "", -1)})
    ledger, gaps = Ledger(), []
    async with reading(kafka_broker, ledger, topic, group=topic, gaps=gaps) as source:
        await until(lambda: source.position().get((topic, 0)) == 2)
    assert ledger.bodies == [b"1", b"2"]
    assert gaps == [Gap(topic, 0, 10, 0, "went_back")]


async def test_records_of_an_aborted_transaction_are_not_seen_and_are_no_gap(kafka_broker):
    topic = kafka_broker.make_topic("transactions")
    with contextlib.closing(kafka_broker.producer(transactional_id="tx")) as producer:
        producer.init_transactions()
        for body, ends in ((b"kept 1", "commit"), (b"aborted", "abort"), (b"kept 2", "commit")):
            producer.begin_transaction()
            producer.send(topic, body, partition=0)
            producer.flush()
            getattr(producer, f"{ends}_transaction")()
    ledger, gaps = Ledger(), []
    async with reading(kafka_broker, ledger, topic, gaps=gaps):
        await until(lambda: len(ledger.taken) == 2)
    assert ledger.bodies == [b"kept 1", b"kept 2"]
    assert gaps == []


# --- waiting ---------------------------------------------------------------------------------------------------------


async def kept_waiting(broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch, keep_alive_s: float):
    """An inbox that is full for longer than a member may be silent; what was taken, and how it went."""
    config = kafka.consumer_config
    monkeypatch.setattr(kafka, "consumer_config", lambda settings: config(settings) | {"max_poll_interval_ms": 2000})
    monkeypatch.setattr(kafka, "KEEP_ALIVE_S", keep_alive_s)
    broker.make_topic(topic)
    produce(broker, topic, [b"%d" % n for n in range(20)])
    states = set()
    opens = time.monotonic() + 6
    ledger = Ledger(lambda _: InboxFullError(0.2) if time.monotonic() < opens else None)
    async with reading(broker, ledger, topic) as source:
        while len(ledger.taken) < 20:
            states.add(source.status.state)
            await asyncio.sleep(0.05)
        await until(lambda: source.position().get((topic, 0)) == 20 or source.counts.commit_failures)
    return ledger, source, states


async def test_a_full_inbox_makes_the_partition_wait_and_the_member_stays(kafka_broker, monkeypatch):
    ledger, source, states = await kept_waiting(kafka_broker, "full", monkeypatch, 0.5)
    assert sorted(ledger.bodies, key=int) == [b"%d" % n for n in range(20)], "each once; several wait at a time"
    assert "full" in states
    assert source.counts.waits > 0
    assert source.counts.commit_failures == 0
    assert source.asides == []
    _, control, _ = await kept_waiting(kafka_broker, "full-control", monkeypatch, 60)
    assert control.counts.commit_failures > 0, "without signs of life the member should have been put out"


async def test_a_failing_disk_is_waited_for(kafka_broker):
    topic = kafka_broker.make_topic("disk")
    produce(kafka_broker, topic, [b"1", b"2"])
    refusals = [StorageError("disk full"), StorageError("disk full"), StorageError("disk full")]
    ledger = Ledger(lambda _: refusals.pop() if refusals else None)
    async with reading(kafka_broker, ledger, topic) as source:
        await until(lambda: source.position().get((topic, 0)) == 2)
    assert sorted(ledger.bodies) == [b"1", b"2"]
    assert source.counts.waits == 3
    assert source.asides == []


async def test_close_does_not_wait_for_a_full_inbox_and_nothing_is_committed(kafka_broker):
    topic = kafka_broker.make_topic("closing")
    produce(kafka_broker, topic, [b"1"])
    ledger = Ledger(lambda _: InboxFullError(3600))
    async with reading(kafka_broker, ledger, topic) as source:
        await until(lambda: source.status.state == "full")
    assert source.status.state == "closed"
    assert committed(kafka_broker, f"group-{topic}", topic) is None


async def test_a_topic_that_does_not_exist_yet_is_waited_for(kafka_broker, monkeypatch):
    config = kafka.consumer_config
    monkeypatch.setattr(kafka, "consumer_config", lambda settings: config(settings) | {"metadata_max_age_ms": 500})
    ledger = Ledger()
    async with reading(kafka_broker, ledger, "later") as source:
        await until(lambda: source.status.state == "waiting")
        kafka_broker.make_topic("later")
        produce(kafka_broker, "later", [b"1"])
        await until(lambda: ledger.bodies == [b"1"])
    assert source.counts.reconnects == 0


async def test_a_broker_that_went_away_is_waited_for(kafka_lib, tmp_path, monkeypatch):
    monkeypatch.setattr(kafka, "LOOK_AROUND_S", 0.5)
    monkeypatch.setattr(kafka, "CALL_S", 1.0)
    config = kafka.consumer_config
    monkeypatch.setattr(kafka, "consumer_config", lambda settings: config(settings) | {"reconnect_backoff_max_ms": 500})
    broker = KafkaBroker(tmp_path / "kafka", kafka_lib)
    try:
        topic = broker.make_topic("restarted")
        produce(broker, topic, [b"1"])
        ledger = Ledger()
        async with reading(broker, ledger, topic) as source:
            await until(lambda: ledger.bodies == [b"1"])
            broker.kill()
            await until(lambda: source.status.state == "down", "it says that the broker is down")
            await asyncio.to_thread(broker.start)
            await asyncio.to_thread(produce, broker, topic, [b"2"])
            await until(lambda: b"2" in ledger.bodies)
            await until(lambda: source.status.state == "reading")
    finally:
        broker.kill()


async def test_a_broker_that_never_was_is_tried_again_without_piling_up_threads(monkeypatch):
    monkeypatch.setattr(kafka, "CALL_S", 0.2)
    monkeypatch.setattr(kafka, "BACKOFF_S", (0.05, 0.05))
    before = threading.active_count()
    async with reading(f"127.0.0.1:{free_port()}", Ledger(), "none") as source:
        await until(lambda: source.counts.reconnects >= 5)
        assert source.status.state in ("down", "connecting")
        assert threading.active_count() <= before + 3
    assert source.status.state == "closed"


# --- TLS and passwords -----------------------------------------------------------------------------------------------

SECURE = """
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{control}
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
"""


def make_certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 in ``broker.pem``; the certificate alone in the file returned."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    (folder / "broker.pem").write_bytes(key.read_bytes() + cert.read_bytes())
    return cert


async def test_tls_and_scram_with_a_password_that_is_changed_while_running(kafka_lib, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(kafka, "BACKOFF_S", (0.2, 0.5))
    monkeypatch.setattr(kafka, "CALL_S", 2.0)
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "kafka"
    folder.mkdir()
    cert, password = make_certificate(folder), tmp_path / "password"
    scram = ("--add-scram", "SCRAM-SHA-512=[name=sidecar,password=right-horse]")
    broker = KafkaBroker(folder, kafka_lib, more=SECURE, format_with=scram)
    try:
        topic = broker.make_topic("secure")
        produce(broker, topic, [b"1"])
        password.write_text("wrong-horse\n")
        sasl = {"mechanism": "SCRAM-SHA-512", "username": "sidecar", "password_file": password}
        ledger = Ledger()
        async with reading(broker.secure_address, ledger, topic, tls={"ca_file": cert}, sasl=sasl) as source:
            await until(lambda: source.status.state == "down", "a wrong password is refused")
            assert ledger.taken == []
            password.write_text("right-horse\n")
            await until(lambda: ledger.bodies == [b"1"])
        async with reading(broker.secure_address, Ledger(), topic, tls={}, sasl=sasl) as stranger:
            await until(lambda: stranger.status.state == "down", "an unknown authority is refused")
    finally:
        broker.kill()
    assert "horse" not in caplog.text
