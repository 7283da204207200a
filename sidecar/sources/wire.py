"""Protobuf on the wire, as far as it must be understood before it is parsed: where records stand, how much they hold.

A parser builds everything it is given: two megabytes of empty attributes become fifty. So requests are first counted
and cut into their records here, field by field and without building anything, in steps that a caller may stop between.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Literal

from msgspec import Struct

from sidecar.errors import SpanError

LEN, I64, I32, VARINT = 2, 1, 5, 0

Message = dict[int, "Message"]
"""Which fields of a message hold messages that are of interest, and what those hold in turn."""

KEY_VALUE: Message = {}
VALUE: Message = {5: {}, 6: {1: KEY_VALUE}}
VALUE[5][1] = VALUE
KEY_VALUE[2] = VALUE
RESOURCE: Message = {1: KEY_VALUE}
SCOPE: Message = {3: KEY_VALUE}
SPAN: Message = {9: KEY_VALUE, 11: {3: KEY_VALUE}, 13: {4: KEY_VALUE}, 15: {}}
LOG: Message = {5: VALUE, 6: KEY_VALUE}

HIGHEST = 16
"""Highest number of a field that any record has."""

STEP = 256
"""Fields visited between two stops: some 0.1 ms."""


class WireError(ValueError):
    """These bytes are no protobuf."""


def varint(body: bytes, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where the next thing starts."""
    value = shift = 0
    try:
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise WireError("a number of more than 10 bytes")
    except IndexError:
        raise WireError("ends within a number") from None


def fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message in ``body[at:end]``, as (number, wire type, start and end of the content).

    Raises:
        WireError: They overrun the message, or use a wire type that proto3 has not.
    """
    limit = len(body)
    while at < end:
        tag = body[at]
        at += 1
        if tag > 0x7F:
            tag, at = varint(body, at - 1)
        wire = tag & 7
        if wire == LEN:
            if at < limit and (size := body[at]) < 0x80:
                at += 1
            else:
                size, at = varint(body, at)
            stop = at + size
        elif wire == VARINT:
            _, stop = varint(body, at)
        elif wire == I64:
            stop = at + 8
        elif wire == I32:
            stop = at + 4
        else:
            raise WireError(f"wire type {wire}")
        if stop > end or tag < 8:
            raise WireError("a field overruns its message" if stop > end else "field number 0")
        yield tag >> 3, wire, at, stop
        at = stop


class Scope(Struct):
    """The records of one scope: its own message, its schema's address, and where spans or log records stand."""

    message: bytes
    schema: bytes
    records: list[tuple[int, int]]


class Resource(Struct):
    """One resource, and what it holds."""

    message: bytes
    schema: bytes
    scopes: list[Scope]


class Split(Struct):
    """An export request cut into its records: `count` in all, and `unknown` fields around them."""

    resources: list[Resource]
    count: int = 0
    unknown: int = 0


def split(body: bytes, *, most_records: int, most_fields: int) -> Generator[None, None, Split]:
    """Cuts an export request into its records; the envelopes of spans and of log records are alike.

    Raises:
        WireError: These bytes are no protobuf.
        SpanError: ``too_many_spans``, or ``too_many_nodes`` for more than `most_fields` in the envelopes.
    """
    found = Split([])
    seen = 0

    def see() -> bool:
        """Counts one field; whether it is time to stop for a moment."""
        nonlocal seen
        seen += 1
        if seen > most_fields:
            raise SpanError("too_many_nodes", "more fields than a request may hold")
        return seen % STEP == 0

    for number, wire, at, stop in fields(body, 0, len(body)):
        if see():
            yield
        if (number, wire) != (1, LEN):
            found.unknown += 1
            continue
        messages, schemas, scopes = [], [], []  # told twice, a message is merged: its bytes are put together
        for inner, inner_wire, inner_at, inner_stop in fields(body, at, stop):
            if see():
                yield
            if inner_wire != LEN or not 1 <= inner <= 3:
                found.unknown += 1
            elif inner == 1:
                messages.append(body[inner_at:inner_stop])
            elif inner == 3:
                schemas.append(body[inner_at:inner_stop])
            else:
                scope_messages, scope_schemas, records = [], [], []
                for leaf, leaf_wire, leaf_at, leaf_stop in fields(body, inner_at, inner_stop):
                    if see():
                        yield
                    if leaf_wire != LEN or not 1 <= leaf <= 3:
                        found.unknown += 1
                    elif leaf == 2:
                        records.append((leaf_at, leaf_stop))
                        found.count += 1
                        if found.count > most_records:
                            raise SpanError("too_many_spans", f"more than {most_records} records in a request")
                    elif leaf == 1:
                        scope_messages.append(body[leaf_at:leaf_stop])
                    else:
                        scope_schemas.append(body[leaf_at:leaf_stop])
                if records:
                    scopes.append(Scope(b"".join(scope_messages), b"".join(scope_schemas[-1:]), records))
        if scopes:
            found.resources.append(Resource(b"".join(messages), b"".join(schemas[-1:]), scopes))
    return found


def measure(
    body: bytes, start: int, end: int, message: Message, *, attributes: int, most_attributes: int, most_fields: int
) -> Generator[None, None, tuple[int, int, int]]:
    """Counts what parsing ``body[start:end]`` would build, until one of the counts is above its limit.

    Args:
        attributes: Number of the field that holds the record's attributes.
    Returns:
        How many attributes there are, how many fields in all, and how many of the record's own that nobody knows.
    """
    seen = direct = unknown = 0
    stop_at = STEP
    stack = [(fields(body, start, end), message)]
    while stack:
        inner, kind = stack[-1]
        for number, wire, at, stop in inner:
            seen += 1
            if len(stack) == 1:
                direct += number == attributes
                unknown += number > HIGHEST
            if seen > most_fields or direct > most_attributes:
                return direct, seen, unknown
            if seen >= stop_at:
                stop_at = seen + STEP
                yield
            if wire == LEN and number in kind:
                if kind[number] is KEY_VALUE and _is_plain(body, at, stop):
                    seen += 3
                    continue
                stack.append((fields(body, at, stop), kind[number]))
                break
        else:
            stack.pop()
    return direct, seen, unknown


def pruned(
    body: bytes, message: Message, *, depth: int, most: int, instead: bytes, value_depth: int = 0
) -> Generator[None, None, bytes]:
    """A copy of `body`, in which containers that lie `depth` or more values deep are replaced by the value `instead`.

    Raises:
        WireError: Values are nested more than `most` deep, or these bytes are no protobuf.
    """
    if message is VALUE:
        if value_depth >= depth and any(number in VALUE for number, _, _, _ in fields(body, 0, len(body))):
            if (yield from nested(body)) + value_depth > most:
                raise WireError("nested too deep")
            return instead
        value_depth += 1
    parts = []
    last = 0
    for number, wire, at, stop in fields(body, 0, len(body)):
        if wire == LEN and number in message:
            kind, inner = message[number], body[at:stop]
            inner = yield from pruned(inner, kind, depth=depth, most=most, instead=instead, value_depth=value_depth)
            parts += [bytes([number << 3 | LEN]), _number(len(inner)), inner]
            yield
        else:
            parts.append(body[last:stop])
        last = stop
    return b"".join(parts)


def nested(body: bytes) -> Generator[None, None, int]:
    """How many containers deep the value `body` is nested: 0 for a text or a number."""
    deepest = seen = 0
    stack: list[tuple[Iterator[tuple[int, int, int, int]], Message, int]] = [(fields(body, 0, len(body)), VALUE, 0)]
    while stack:
        inner, kind, depth = stack[-1]
        for number, wire, at, stop in inner:
            seen += 1
            if seen % STEP == 0:
                yield
            if wire == LEN and number in kind:
                deeper = depth + (kind is VALUE)
                deepest = max(deepest, deeper)
                stack.append((fields(body, at, stop), kind[number], deeper))
                break
        else:
            stack.pop()
    return deepest


def signal(body: bytes, start: int, end: int) -> Literal["traces", "logs"] | None:
    """Whether a record is a span or a log record, by its shape; None where that cannot be told.

    A span begins with a trace id (bytes) and has its times in fields 7 and 8; a log record has them in 1 and 11.
    """
    for number, wire, _, _ in fields(body, start, end):
        if (number, wire) in ((1, I64), (2, VARINT), (8, I32), (11, I64)):
            return "logs"
        if (number, wire) in ((1, LEN), (2, LEN), (7, I64), (8, I64)):
            return "traces"
    return None


def _is_plain(body: bytes, at: int, stop: int) -> bool:
    """Whether a key and its value are a short name and one text and nothing else, as nearly all are."""
    try:
        value = at + 2 + body[at + 1]
        if body[at] != 0x0A or value >= stop or body[at + 1] > 0x7F or body[value] != 0x12:
            return False
        size, inner = varint(body, value + 1)
        if inner + size != stop or body[inner] != 0x0A:
            return False
        size, inner = varint(body, inner + 1)
        return inner + size == stop
    except (IndexError, WireError):
        return False


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
