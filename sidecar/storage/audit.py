"""The audit log: what was decided, by whom, as a chain in which no record can be changed unseen.

A record is canonical JSON (keys sorted, no blanks, whole numbers only). Its own hash, the leaf, depends on nothing but
its bytes, so that a tree can be built over the same leaves; the chain hash binds it to all records before it:

    leaf = SHA-256(LEAF_TAG ‖ record)        hash = SHA-256(LINK_TAG ‖ previous hash ‖ leaf)

Records name evidence by its digest and hold none of its text: erasing evidence never breaks the chain. Cutting off
the end leaves a shorter chain that is whole; only a head kept elsewhere tells (`Head`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

LEAF_TAG = b"agent-sidecar audit record v1\0"
LINK_TAG = b"agent-sidecar audit chain v1\0"
_ORIGIN_TAG = b"agent-sidecar audit origin v1\0"
_MAX_DETAILS = 16
_MAX_DETAIL_CHARS = 256
_encode = msgspec.json.Encoder(order="sorted").encode


class Instant(Struct, frozen=True):
    """One moment by the clocks that a restart or a step of the wall clock cannot confuse.

    Attributes:
        at_ns: Wall clock, Unix nanoseconds; for people.
        boot_ns: Since the machine started, suspended time included.
        boot_id: Which start of the machine that was.
    """

    at_ns: int
    boot_ns: int
    boot_id: str

    @classmethod
    def now(cls) -> Instant:
        return cls(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), _boot_id())


class Entry(Struct, frozen=True):
    """Something to be put on record.

    Attributes:
        actor: Authenticated name of who did it.
        action: A short word for it, for instance ``pause``, ``grant`` or ``reveal``.
        evidence_digest: Hexadecimal; stands for the evidence, whose text is kept elsewhere.
        detail: At most 16 names, ids and numbers of at most 256 characters; never an agent's text.
    """

    at: Instant
    actor: str
    action: str
    realm: str = ""
    session: str = ""
    epoch: int = 0
    request_id: str = ""
    decision_id: str = ""
    policy_digest: str = ""
    evidence_digest: str = ""
    detail: dict[str, str | int | bool] = {}


class Record(Struct, frozen=True):
    """An entry in its place in the log. `body` are the canonical bytes that the hashes stand for."""

    seq: int
    entry: Entry
    body: bytes
    hash: bytes


class Head(Struct, frozen=True):
    """Where a log ended at some moment: what a witness keeps. `log` names the log for good."""

    log: str
    seq: int
    hash: bytes


class Verdict(Struct, frozen=True):
    """What a walk along the chain found.

    Attributes:
        state: ``ok``: every record is as it was written. ``tampered``: record `seq` is not. ``cannot tell``: there
            is nothing to go by, or the log cannot be read.
        seq: The first record that is wrong; when ok, the last.
    """

    state: Literal["ok", "tampered", "cannot tell"]
    seq: int = 0
    reason: str = ""


class _Body(Struct, frozen=True):
    seq: int
    time_wall: int
    time_mono: int
    boot_id: str
    actor: str
    action: str
    realm: str
    session: str
    epoch: int
    request_id: str
    decision_id: str
    policy_digest: str
    evidence_digest: str
    detail: dict[str, str | int | bool]


def check(entry: Entry) -> None:
    """Raises:
    ValueError: The entry is not fit for the record: too much detail, or text that is not UTF-8.
    """
    if len(entry.detail) > _MAX_DETAILS:
        raise ValueError(f"an audit record holds at most {_MAX_DETAILS} details")
    if any(len(str(part)) > _MAX_DETAIL_CHARS for item in entry.detail.items() for part in item):
        raise ValueError(f"a detail of an audit record holds at most {_MAX_DETAIL_CHARS} characters")
    body(0, entry)


def body(seq: int, entry: Entry) -> bytes:
    """The canonical bytes of `entry` as record number `seq`."""
    return _encode(
        _Body(
            seq=seq,
            time_wall=entry.at.at_ns,
            time_mono=entry.at.boot_ns,
            boot_id=entry.at.boot_id,
            actor=entry.actor,
            action=entry.action,
            realm=entry.realm,
            session=entry.session,
            epoch=entry.epoch,
            request_id=entry.request_id,
            decision_id=entry.decision_id,
            policy_digest=entry.policy_digest,
            evidence_digest=entry.evidence_digest,
            detail=entry.detail,
        )
    )


def record(body_bytes: bytes, chain_hash: bytes) -> Record:
    """Reads a stored record.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: It is not one.
    """
    told = msgspec.json.decode(body_bytes, type=_Body)
    entry = Entry(
        at=Instant(told.time_wall, told.time_mono, told.boot_id),
        actor=told.actor,
        action=told.action,
        realm=told.realm,
        session=told.session,
        epoch=told.epoch,
        request_id=told.request_id,
        decision_id=told.decision_id,
        policy_digest=told.policy_digest,
        evidence_digest=told.evidence_digest,
        detail=told.detail,
    )
    return Record(told.seq, entry, body_bytes, chain_hash)


def leaf(body_bytes: bytes) -> bytes:
    """The hash of a record by itself."""
    return hashlib.sha256(LEAF_TAG + body_bytes).digest()


def link(previous: bytes, body_bytes: bytes) -> bytes:
    """The chain hash of a record that follows one with chain hash `previous`."""
    return hashlib.sha256(LINK_TAG + previous + leaf(body_bytes)).digest()


def origin(log: str) -> bytes:
    """What stands in for the hash before the first record of the log of that name."""
    return hashlib.sha256(_ORIGIN_TAG + log.encode()).digest()


def verify(log: str, records: Iterable[tuple[int, bytes, bytes]], head: Head | None = None) -> Verdict:
    """Walks a chain from its first record.

    Args:
        records: Sequence number, body and chain hash, ascending.
        head: What a witness has; the log must reach as far and agree there.
    """
    if not log:
        return Verdict("cannot tell", 0, "the log has no name")
    if head is not None and head.log != log:
        return Verdict("tampered", 0, "this is another log than the one that was witnessed")
    seq, chain = 0, origin(log)
    for number, body_bytes, stored in records:
        if number != seq + 1:
            return Verdict("tampered", seq + 1, "the record is missing")
        try:
            told = record(body_bytes, stored)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Verdict("tampered", number, "the record cannot be read")
        if told.seq != number:
            return Verdict("tampered", number, f"the record says it is number {told.seq}")
        chain = link(chain, body_bytes)
        if chain != stored:
            return Verdict("tampered", number, "the hash does not fit the record and those before it")
        if head is not None and head.seq == number and head.hash != chain:
            return Verdict("tampered", number, "a witness has another hash for this record")
        seq = number
    if head is not None and head.seq > seq:
        return Verdict("tampered", seq + 1, f"the log ends here, a witness has seen {head.seq} records")
    if seq == 0:
        return Verdict("cannot tell", 0, "the log is empty")
    return Verdict("ok", seq)


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"
