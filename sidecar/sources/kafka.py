"""Reads telemetry that a Collector put on Kafka, at least once.

The client library blocks, so one thread of this source makes all its calls; everything else happens on the event loop.
The order of things is the promise: a message's bytes are durable in the inbox, then its offset is committed, so a crash
between the two reads it again and never loses it. Nothing that arrives can stop a partition: what cannot be understood
is put aside, what cannot even be read is a gap, and both are counted and told.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol, TypeVar

from kafka import KafkaConsumer, codec
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.net.compat import KafkaNetClient
from kafka.structs import MemberState, OffsetAndMetadata, TopicPartition
from msgspec import Struct, field

from sidecar.core.span import Speaker
from sidecar.errors import ConfigError, OutsideError, SpanError
from sidecar.sources import Encoding
from sidecar.sources.kafka_settings import KafkaSettings

log = logging.getLogger(__name__)

Returned = TypeVar("Returned")

POLL_S = 0.1
"""How long one look for messages may hold the thread when there are none; commits and `close` wait as long."""
KEEP_ALIVE_S = 1.0
"""How often the group hears from us while the inbox keeps us waiting."""
LOOK_AROUND_S = 5.0
"""How often the broker is asked how far behind we are; also how soon a silent broker is noticed."""
CALL_S = 5.0
"""Longest wait for one answer of the broker."""
BACKOFF_S = (0.2, 30.0)
"""First and longest wait before trying again."""
TRIES = 3
"""Times that a batch is fetched, or a message offered, before it counts as bad and not as bad luck."""


class Intake(Protocol):
    """Where messages go; the one in `sidecar.sources.intake` fits."""

    async def take(
        self,
        kind: Literal["traces", "logs"],
        body: bytes,
        encoding: Encoding,
        speaker: Speaker,
        arrived_ns: int,
    ) -> object:
        """Returns once `body` is durable.

        Raises:
            SpanError: It cannot be understood; trying again is no use.
            OutsideError: It failed and nothing was kept; `retriable` says whether to try again, `retry_after_s`,
                where there is one, says when.
        """
        ...


class DeadLetter(Protocol):
    """Keeps a message that could not be taken; called on this source's thread, one at a time."""

    def __call__(self, body: bytes, topic: str, partition: int, offset: int, reason: str, /) -> None:
        """Keeps it."""
        ...


class Gap(Struct, frozen=True):
    """Messages of one partition that were there and that we shall never see: sessions in them are incomplete.

    Attributes:
        first, after: From offset `first` up to but without `after`. Where offsets went back (a topic made anew, a
            broker restored), `after` is below `first`, and how much is missing is not known.
        reason: ``unreadable``, ``expired`` or ``went_back``.
    """

    topic: str
    partition: int
    first: int
    after: int
    reason: Literal["unreadable", "expired", "went_back"]


class KafkaCounts(Struct):
    """What has happened so far.

    Attributes:
        taken: Messages that are durable in the inbox, those read again included.
        put_aside: Messages handed to the dead letters, by reason.
        unkept: Of those, messages that the dead letters could not keep.
        tombstones: Messages without a value.
        gaps: Offsets lost unread.
        waits: Times that the inbox or the disk made a message wait.
        commit_failures: Commits refused; what they covered may be read again.
        reconnects: Times that we had to begin anew with the brokers.
    """

    taken: int = 0
    put_aside: dict[str, int] = field(default_factory=dict)
    unkept: int = 0
    tombstones: int = 0
    gaps: int = 0
    waits: int = 0
    commit_failures: int = 0
    reconnects: int = 0


class KafkaStatus(Struct, frozen=True):
    """How it goes.

    Attributes:
        state: ``connecting``; ``waiting`` for a partition (none of the topics exists, or others read them all);
            ``reading``; ``full``: the inbox makes us wait; ``down``: no broker answers, or they refuse us; ``closed``.
        why: For people, "" where there is nothing to say.
        lag: Messages that wait on the brokers; None where it is not known.
    """

    state: Literal["connecting", "waiting", "reading", "full", "down", "closed"] = "connecting"
    why: str = ""
    lag: int | None = None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells of partitions that came and went; the library calls it from a thread of its own."""

    def __init__(self) -> None:
        self.told: SimpleQueue[tuple[bool, frozenset[TopicPartition]]] = SimpleQueue()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.told.put((False, frozenset(revoked)))

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.told.put((True, frozenset(assigned)))


class KafkaSource:
    """One member of a consumer group, from Kafka into the inbox.

    Memory: what the brokers may answer at once (`fetch` each, before decompression) and `4 * in_flight` messages.

    Args:
        settings: Where to read, and as whom.
        intake: Takes each message.
        dead_letter: Keeps what cannot be taken.
        gap: Is told of messages lost unread, on the event loop.
        now_ns: The wall clock, Unix nanoseconds.

    Raises:
        ConfigError: A password or a certificate cannot be read.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        intake: Intake,
        *,
        dead_letter: DeadLetter,
        gap: Callable[[Gap], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.counts = KafkaCounts()
        self.status = KafkaStatus()
        consumer_config(settings)  # a password or certificate that is not there stops the start
        self._settings, self._intake = settings, intake
        self._dead_letter, self._gap, self._now_ns = dead_letter, gap, now_ns
        self.speaker = Speaker(f"forwarder:{settings.name}", "attested", speaks_for=settings.speaks_for)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"source-{settings.name}")
        self._room = asyncio.Semaphore(settings.in_flight)
        self._closing, self._ended = asyncio.Event(), asyncio.Event()
        self._running = False
        self._next: dict[TopicPartition, int] = {}
        """The offset we expect next of each partition, where we know."""
        self._done: dict[TopicPartition, int] = {}
        """The offset before which all of a partition is durable."""
        self._bad: tuple[TopicPartition, int, int] | None = None
        """A batch that cannot be read: where, at which offset, how often it was tried."""
        self._logged: dict[str, float] = {}
        self._looked = 0.0

    # --- what others may ask ---------------------------------------------------------------------------------------

    def position(self) -> Mapping[tuple[str, int], int]:
        """How far each of our partitions is durable: by (topic, partition) the offset before which all of it is."""
        return {(at.topic, at.partition): self._done[at] for at in sorted(self._done)}

    async def run(self) -> None:
        """Reads until closed. Brokers that are down, or that refuse us, are tried again for ever."""
        self._running = True
        for words in missing_libraries():
            log.warning("kafka source %s: %s", self._settings.name, words)
        wait_s = BACKOFF_S[0]
        try:
            while not self._closing.is_set():
                listener = _Listener()
                consumer = None
                try:
                    consumer = await self._call(self._open, listener)
                    self._looked = 0.0
                    while not self._closing.is_set():
                        await self._turn(consumer, listener)
                        if self.status.state == "reading":
                            wait_s = BACKOFF_S[0]
                except Exception as error:
                    self.counts.reconnects += 1
                    self._say("down", _words(error))
                    self._log_seldom("down", "beginning anew with the brokers: %s", _words(error))
                finally:
                    self._next.clear()
                    self._done.clear()
                    if consumer is not None:
                        with suppress(Exception):
                            await self._call(partial(consumer.close, autocommit=False, timeout_ms=_ms(CALL_S)))
                await self._pause(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])
        finally:
            self._say("closed")
            self._thread.shutdown(wait=False)
            self._ended.set()

    async def close(self) -> None:
        """Stops reading, commits what is durable and leaves the group; what was on its way is read again later."""
        self._closing.set()
        if self._running:
            await self._ended.wait()
        else:
            self._thread.shutdown(wait=False)

    # --- one turn ----------------------------------------------------------------------------------------------------

    async def _turn(self, consumer: KafkaConsumer, listener: _Listener) -> None:
        """Fetches some messages, sees them durable and commits."""
        try:
            batch = await self._call(_poll, consumer)
        except Exception as error:
            if not _is_unreadable(error) or (at := await self._call(_drop_unreadable, consumer)) is None:
                raise
            await self._pass_by(consumer, *at, error)
            return
        await self._note_partitions(consumer, listener)
        for at, records in batch.items():
            await self._note_jump(consumer, at, records)
        if batch:
            self._say("reading", lag=self.status.lag)
            await self._commit(consumer, await self._take_all(consumer, batch))
        await self._look_around(consumer)

    async def _take_all(
        self, consumer: KafkaConsumer, batch: Mapping[TopicPartition, list[Any]]
    ) -> dict[TopicPartition, int]:
        """Offers every message until all are durable or put aside, or we are closing; how far each partition got."""
        offers = {at: [asyncio.create_task(self._offer(record)) for record in records] for at, records in batch.items()}
        waiting = {task for tasks in offers.values() for task in tasks}
        stands_still = False
        try:
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=KEEP_ALIVE_S)
                if waiting and self._closing.is_set():
                    _, waiting = await asyncio.wait(waiting, timeout=CALL_S)
                    break
                if waiting:
                    stands_still = True
                    await self._call(_keep_alive, consumer)
        finally:
            for task in waiting:
                task.cancel()
            if stands_still:
                await self._call(_go_on, consumer)
        reached = {}
        for at, tasks in offers.items():
            for task, record in zip(tasks, batch[at], strict=True):
                if not task.done() or task.cancelled() or not task.result():
                    break
                reached[at] = record.offset + 1
        return reached

    async def _offer(self, record: Any) -> bool:
        """Sees one message durable or put aside; False when we closed first."""
        if record.value is None:
            self.counts.tombstones += 1
            return True
        topic = self._settings.topics[record.topic]
        encoding: Encoding = "proto" if topic.encoding == "otlp_proto" else "json"
        if reason := "empty" if not record.value else "too_large" if self._is_too_large(record) else "":
            return await self._put_aside(record, reason)
        failures, wait_s = 0, BACKOFF_S[0]
        while not self._closing.is_set():
            try:
                async with self._room:
                    if self._closing.is_set():
                        return False
                    await self._intake.take(topic.signal, record.value, encoding, self.speaker, self._now_ns())
            except SpanError as error:
                return await self._put_aside(record, error.reason)
            except OutsideError as error:
                if not error.retriable:
                    return await self._put_aside(record, "refused")
                told_s = getattr(error, "retry_after_s", None)  # a full inbox and a limit say when
                wait_s = min(wait_s * 2, BACKOFF_S[1]) if told_s is None else max(told_s, BACKOFF_S[0])
                self._say("full", _words(error), lag=self.status.lag)
            except Exception as error:  # ours: a message that breaks the intake must not stop the partition
                failures += 1
                self._log_seldom("intake", "the intake failed: %s", type(error).__name__)
                if failures >= TRIES:
                    return await self._put_aside(record, "intake_failed")
            else:
                self.counts.taken += 1
                return True
            self.counts.waits += 1
            await self._pause(wait_s)
        return False

    def _is_too_large(self, record: Any) -> bool:
        return len(record.value) > self._settings.max_message

    async def _put_aside(self, record: Any, reason: str) -> bool:
        """Keeps a message that cannot be taken; the partition goes on whether or not it could be kept."""
        self.counts.put_aside[reason] = self.counts.put_aside.get(reason, 0) + 1
        where = record.topic, record.partition, record.offset
        self._log_seldom(reason, "message put aside (%s) at %s/%d offset %d", reason, *where)
        try:
            await self._call(partial(self._dead_letter, record.value, *where, reason))
        except Exception as error:
            self.counts.unkept += 1
            self._log_seldom("unkept", "the dead letters kept nothing: %s", _words(error))
        return True

    async def _commit(self, consumer: KafkaConsumer, reached: dict[TopicPartition, int]) -> None:
        """Tells the broker how far we are, for partitions still ours: another's place must not be set back."""
        ours = consumer.assignment()
        reached = {at: offset for at, offset in reached.items() if at in ours}
        self._done.update(reached)
        offsets = {at: OffsetAndMetadata(offset, "", -1) for at, offset in reached.items()}
        try:
            await self._call(partial(consumer.commit, offsets, timeout_ms=_ms(CALL_S)))
        except (
            kafka_errors.RetriableError,
            kafka_errors.CommitFailedError,
            kafka_errors.RebalanceInProgressError,
            kafka_errors.IllegalGenerationError,
            kafka_errors.UnknownMemberIdError,
        ) as error:
            self.counts.commit_failures += 1
            self._log_seldom("commit", "commit refused, some messages may be read again: %s", _words(error))

    # --- what may have gone missing ----------------------------------------------------------------------------------

    async def _pass_by(self, consumer: KafkaConsumer, at: TopicPartition, offset: int, error: Exception) -> None:
        """Tries a batch that cannot be read again, then leaves one offset of it behind and says so.

        The length of a bad batch cannot be trusted, so what follows is found offset by offset.
        """
        tries = 1 + (self._bad[2] if self._bad and self._bad[:2] == (at, offset) else 0)
        if tries < TRIES:
            self._bad = (at, offset, tries)
            await self._pause(BACKOFF_S[0])
            return
        self._log_seldom("unreadable", "passed by %s/%d offset %d: %s", at.topic, at.partition, offset, _words(error))
        await self._call(consumer.seek, at, offset + 1)
        self._bad = (at, offset + 1, TRIES)
        self._lose(at, offset, offset + 1, "unreadable")
        self._next[at] = offset + 1
        await self._commit(consumer, {at: offset + 1})

    async def _note_partitions(self, consumer: KafkaConsumer, listener: _Listener) -> None:
        """Keeps account of which partitions are ours."""
        told = False
        with suppress(Empty):
            while True:
                came, those = listener.told.get_nowait()
                told = True
                for at in sorted(those):
                    self._next.pop(at, None)
                    self._done.pop(at, None)
                    if came and (committed := await self._call(_committed, consumer, at)) is not None:
                        self._next[at] = self._done[at] = committed
        if told:
            self._looked = 0.0

    async def _note_jump(self, consumer: KafkaConsumer, at: TopicPartition, records: list[Any]) -> None:
        """Tells of messages that the broker no longer has. Offsets without a message (transactions) are no loss."""
        expected, first = self._next.get(at), records[0].offset
        self._next[at] = records[-1].offset + 1
        if expected is None or first == expected:
            return
        if first < expected:
            self._lose(at, expected, first, "went_back")
        elif (oldest := await self._call(_oldest, consumer, at)) is not None and oldest > expected:
            self._lose(at, expected, oldest, "expired")

    def _lose(
        self, at: TopicPartition, first: int, after: int, reason: Literal["unreadable", "expired", "went_back"]
    ) -> None:
        self.counts.gaps += max(1, after - first)
        self._gap(Gap(at.topic, at.partition, first, after, reason))

    async def _look_around(self, consumer: KafkaConsumer) -> None:
        """Asks the broker how far behind we are, now and then; no answer means that it is down."""
        if time.monotonic() - self._looked < LOOK_AROUND_S:
            return
        self._looked = time.monotonic()
        try:
            lag = await self._call(_lag, consumer, min(self._settings.topics))
        except kafka_errors.RetriableError as error:
            self._say("down", _words(error))
            self._log_seldom("down", "no broker answers: %s", _words(error))
        else:
            if lag is None:
                self._say("waiting", "no partition: the topics do not exist yet, or other members read them all")
            else:
                self._say("reading", lag=lag)

    # --- small things ------------------------------------------------------------------------------------------------

    def _open(self, listener: _Listener) -> KafkaConsumer:
        """Connects; on the source's thread."""
        clients: list[KafkaNetClient] = []

        def client(**config: Any) -> KafkaNetClient:
            clients.append(KafkaNetClient(**config))
            return clients[-1]

        try:
            consumer = KafkaConsumer(**consumer_config(self._settings), kafka_client=client)
            consumer.subscribe(sorted(self._settings.topics), listener=listener)
        except BaseException:
            for opened in clients:  # the library leaves its own thread running when it cannot connect
                opened.close()
            raise
        return consumer

    async def _call(self, function: Callable[..., Returned], *arguments: Any) -> Returned:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _pause(self, seconds: float) -> None:
        """Waits, or until we are closing."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    def _say(self, state: Any, why: str = "", lag: int | None = None) -> None:
        self.status = KafkaStatus(state, why, lag)

    def _log_seldom(self, topic: str, message: str, *arguments: object) -> None:
        """Logs the first of a kind and then one a minute; the counts have them all."""
        now = time.monotonic()
        if now - self._logged.get(topic, -60.0) >= 60.0:
            self._logged[topic] = now
            log.warning("kafka source %s: " + message, self._settings.name, *arguments)


def consumer_config(settings: KafkaSettings) -> dict[str, Any]:
    """What kafka-python is told. Several of its defaults lose messages, so none that matters is left to it.

    Raises:
        ConfigError: A password or a certificate cannot be read.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": "agent-sidecar",
        "group_id": settings.group_id,
        "group_instance_id": settings.group_instance_id,
        # No deserializer, ever: one that raises leaves the partition standing on the bad message.
        "key_deserializer": None,
        "value_deserializer": None,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "check_crcs": True,
        "allow_auto_create_topics": False,
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "session_timeout_ms": _ms(settings.session_timeout),
        "heartbeat_interval_ms": _ms(settings.session_timeout * 0.3),
        "max_poll_interval_ms": _ms(settings.max_poll_interval),
        "max_poll_records": 4 * settings.in_flight,
        "fetch_max_bytes": settings.fetch,
        "max_partition_fetch_bytes": settings.fetch_partition,
        "fetch_max_wait_ms": 500,
        "metadata_max_age_ms": 10_000,  # how soon a new topic or partition is seen
        "bootstrap_timeout_ms": _ms(CALL_S),
        "reconnect_backoff_max_ms": 5_000,
        "security_protocol": ("SASL_" if settings.sasl else "") + ("SSL" if settings.tls else "PLAINTEXT"),
    }
    if settings.sasl:
        config["sasl_mechanism"] = settings.sasl.mechanism
        config["sasl_plain_username"] = settings.sasl.username
        config["sasl_plain_password"] = settings.sasl.password()
    if settings.tls:
        try:
            context = ssl.create_default_context(cafile=settings.tls.ca_file)
            if settings.tls.cert_file and settings.tls.key_file:
                context.load_cert_chain(settings.tls.cert_file, settings.tls.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot be used: {_words(error)}", key="kafka.tls") from error
        config["ssl_context"] = context
    return config


def missing_libraries() -> list[str]:
    """What is not installed and would be missed, a sentence each."""
    missing = []
    if importlib.util.find_spec("crc32c") is None:
        missing.append("crc32c is not installed: reading takes about 14 times the processor time")
    codecs = {
        "snappy": (codec.has_snappy, "python-snappy"),
        "lz4": (codec.has_lz4, "lz4"),
        "zstd": (codec.has_zstd, "zstandard"),
    }
    if lacking := {name: package for name, (is_there, package) in codecs.items() if not is_there()}:
        missing.append(
            f"messages compressed with {', '.join(lacking)} cannot be read and will be passed by;"
            f" install {', '.join(lacking.values())} if a producer uses them"
        )
    return missing


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _words(error: BaseException) -> str:
    """An error for people, short, without what a message held."""
    return f"{type(error).__name__}: {error}"[:300].replace("\n", " ")


# --- on the source's thread ------------------------------------------------------------------------------------------


def _poll(consumer: KafkaConsumer) -> dict[TopicPartition, list[Any]]:
    """The next messages, if there are any within `POLL_S`.

    kafka-python forgets a join of the group that was begun because of new metadata and outlasts one call, and then
    stands outside the group for ever. So an unfinished join is asked for again, which goes on with the one on its way.
    """
    if consumer.group_metadata().state is not MemberState.STABLE:
        consumer._coordinator.request_rejoin()
    batch: dict[TopicPartition, list[Any]] = consumer.poll(timeout_ms=_ms(POLL_S))
    return batch


def _is_unreadable(error: Exception) -> bool:
    """Whether the bytes of a batch may be at fault, and not the broker's answer or the way to it."""
    if isinstance(error, kafka_errors.CorruptRecordError | kafka_errors.UnsupportedCodecError):
        return True
    return not isinstance(error, kafka_errors.KafkaError)


def _drop_unreadable(consumer: KafkaConsumer) -> tuple[TopicPartition, int] | None:
    """Takes the batch that could not be read out of the library's hands; its place, None where there is none.

    kafka-python has no call for it, and left alone it loops for ever over the rest of such a batch. `tests/real` keeps
    watch over these two names.
    """
    batch = consumer._fetcher._next_partition_records
    if not batch:
        return None
    batch.drain()
    at: TopicPartition = batch.topic_partition
    offset = consumer.position(at, timeout_ms=_ms(CALL_S))
    return None if offset is None else (at, offset)


def _keep_alive(consumer: KafkaConsumer) -> None:
    """Tells the group that we live, without taking more messages."""
    try:
        consumer.pause(*consumer.assignment())
        for at, records in _poll(consumer).items():  # partitions that came this moment
            consumer.seek(at, records[0].offset)
            consumer.pause(at)
    except Exception as error:
        log.debug("keeping alive: %s", _words(error))  # the next real look meets it again


def _go_on(consumer: KafkaConsumer) -> None:
    consumer.resume(*consumer.paused())


def _committed(consumer: KafkaConsumer, at: TopicPartition) -> int | None:
    with suppress(kafka_errors.KafkaError):
        offset: int | None = consumer.committed(at, timeout_ms=_ms(CALL_S))
        return offset
    return None


def _oldest(consumer: KafkaConsumer, at: TopicPartition) -> int | None:
    with suppress(kafka_errors.KafkaError):
        offset: int = consumer.beginning_offsets([at], timeout_ms=_ms(CALL_S))[at]
        return offset
    return None


def _lag(consumer: KafkaConsumer, topic: str) -> int | None:
    """Messages that wait in our partitions; None where we have none. Raises `KafkaTimeoutError` when nobody answers."""
    ours = sorted(consumer.assignment())
    if not ours:
        consumer.committed(TopicPartition(topic, 0), timeout_ms=_ms(CALL_S))  # only to hear that a broker is there
        return None
    ends: dict[TopicPartition, int] = consumer.end_offsets(ours, timeout_ms=_ms(CALL_S))
    return sum(max(0, end - (consumer.position(at, timeout_ms=_ms(CALL_S)) or 0)) for at, end in ends.items())
