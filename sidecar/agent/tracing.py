"""OpenTelemetry: spans of acts and messages, kept for the next question as they end and exported within 0.2 s.

The exporter is our own, as the SDK's gives up after 10 s and does not read `partial_success` (reliability.md M21): what
happened while the sidecar was away is exactly what it must hear of when it is back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from sidecar.agent.options import Credential, Options
from sidecar.agent.outbox import CAPACITY, Key, Outbox

log = logging.getLogger("sidecar.agent")

SESSION = otel_context.create_key("sidecar-session")
"""Where the session stands in an OpenTelemetry context, so that it follows threads and tasks as traces do."""

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EXPORT_DELAY_S = 0.2
BATCH_SPANS, REQUEST_BYTES = 512, 4 * 2**20
TRY_S, LONGEST_WAIT_S = 3.0, 2.0

_RETRIABLE = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)


def provider(given: TracerProvider | None, name: str, version: str) -> TracerProvider:
    """The application's tracer provider; where it has none, one of our own, which becomes the process's.

    Ours is made the process's so that instrumented frameworks tell it what they do.
    """
    if given is not None:
        return given
    present = trace.get_tracer_provider()
    if isinstance(present, TracerProvider):
        return present
    facts = {"service.name": name} | ({"service.version": version} if version else {})
    own = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(facts))
    trace.set_tracer_provider(own)
    return own


class SpanTap(SpanProcessor):
    """Names the session on every span that begins within it, and keeps every span that ends until it is exported."""

    def __init__(
        self, outbox: Outbox, delivery: SpanDelivery, instance_id: Callable[[], str], owns: Callable[[str], bool]
    ) -> None:
        self._outbox, self._delivery = outbox, delivery
        self._instance_id, self._owns = instance_id, owns
        # The outbox refuses a span before this queue could overflow, so nothing is dropped uncounted.
        self._batch = BatchSpanProcessor(
            delivery,
            max_queue_size=CAPACITY + BATCH_SPANS,
            schedule_delay_millis=EXPORT_DELAY_S * 1000,
            max_export_batch_size=BATCH_SPANS,
        )
        self.is_closed = False

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        session: Any = otel_context.get_value(SESSION, parent_context)
        if session is not None:
            told = span.attributes or {}
            span.set_attributes({k: v for k, v in session.span_attributes.items() if k not in told})

    def on_end(self, span: ReadableSpan) -> None:
        place = span.get_span_context()
        if self.is_closed or place is None or not place.trace_flags.sampled:
            return
        attributes = span.attributes or {}
        if attributes.get("sidecar.instance.id", self._instance_id()) != self._instance_id():
            return  # another client's session; it tells its own sidecar
        session_id = str(attributes.get("gen_ai.conversation.id", ""))
        session_id = session_id if self._owns(session_id) else ""
        encoded = encode_spans([span]).SerializeToString() if session_id else None
        if self._outbox.add((place.trace_id, place.span_id), session_id, encoded):
            self._batch.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.is_closed or self._batch.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Also called by the tracer provider, at the latest when the process ends."""
        if not self.is_closed:
            self._delivery.close()
            self._batch.shutdown()  # type: ignore[no-untyped-call]
        self.is_closed = True


class SpanDelivery(SpanExporter):
    """Exports batches until the sidecar has stored them or says that it never will."""

    def __init__(self, options: Options, credential: Credential, outbox: Outbox) -> None:
        self._options, self._credential, self._outbox = options, credential, outbox
        self._channel: grpc.Channel | None = None
        self._export: Any = None
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._complained = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        keys = [key for span in spans if (key := _key(span))]
        body = encode_spans(spans).SerializeToString()
        if len(body) > REQUEST_BYTES and len(spans) > 1:
            half = len(spans) // 2
            halves = (self.export(spans[:half]), self.export(spans[half:]))
            return SpanExportResult.SUCCESS if set(halves) == {SpanExportResult.SUCCESS} else SpanExportResult.FAILURE
        waited_s = 0.05
        while True:
            try:
                self._accepted(keys, self._send(body))
                return SpanExportResult.SUCCESS
            except grpc.RpcError as error:
                words, again = f"{error.code().name}: {str(error.details())[:200]}", _may_try_again(error)
            except ValueError:  # the channel was closed meanwhile
                words, again = "closed", False
            if not again or time.monotonic() >= self._give_up_at:
                self._outbox.gave_up(keys)
                self._complain(f"{len(keys)} spans are lost: {words}")
                return SpanExportResult.FAILURE
            waited_s = min(LONGEST_WAIT_S, waited_s * 2)
            pause_s = min(waited_s * random.uniform(0.5, 1.0), max(0.0, self._give_up_at - time.monotonic()))  # noqa: S311
            self._closing.wait(pause_s) if not self._closing.is_set() else time.sleep(min(pause_s, 0.05))

    def close(self) -> None:
        """From now on tries go on for `flush_s` only."""
        if not self._closing.is_set():
            self._give_up_at = time.monotonic() + self._options.flush_s
            self._closing.set()

    def shutdown(self) -> None:
        self.close()
        if self._channel is not None:
            self._channel.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True

    def _send(self, body: bytes) -> bytes:
        if self._channel is None:  # made here and not earlier: a process may fork until its first act
            self._channel = self._options.channel(self._options.otlp)
            self._export = self._channel.unary_unary(EXPORT)
        timeout_s = min(TRY_S, max(0.05, self._give_up_at - time.monotonic()))
        answer: bytes = self._export(body, timeout=timeout_s, metadata=self._credential.metadata())
        return answer

    def _accepted(self, keys: list[Key], answer: bytes) -> None:
        rejected = 0
        if answer:
            partial = ExportTraceServiceResponse.FromString(answer).partial_success
            rejected = partial.rejected_spans
            if rejected:
                self._complain(f"the sidecar rejected {rejected} spans: {partial.error_message[:200]}")
        if rejected:
            self._outbox.gave_up(keys, rejected)
        else:
            self._outbox.exported(keys)
            self._complained = ""

    def _complain(self, words: str) -> None:
        if words != self._complained:
            log.error("%s", words)
        self._complained = words


def _may_try_again(error: grpc.RpcError) -> bool:
    """As the OTLP specification has it: RESOURCE_EXHAUSTED only where the answer says when."""
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return any(
            "retryinfo" in name or b"RetryInfo" in _octets(value) for name, value in error.trailing_metadata() or ()
        )
    return error.code() in _RETRIABLE


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _key(span: ReadableSpan) -> Key | None:
    place = span.get_span_context()
    return (place.trace_id, place.span_id) if place else None
