"""The audit log: no record can be changed, removed, moved or added unseen (promise P12, bad input 87)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from msgspec.structs import replace

from sidecar.storage import ControlBatch, ControlStore, Entry, Head, Instant, StorageSettings, Verdict, audit, control

NOW = Instant(1_800_000_000 * 10**9, 5, "boot")
LOG = "l" * 32


def entry(number: int) -> Entry:
    return Entry(NOW, "ann", "pause", "local", f"s{number}", number, detail={"tool": "send_email", "n": number})


def chain(length: int, log: str = LOG) -> list[tuple[int, bytes, bytes]]:
    records: list[tuple[int, bytes, bytes]] = []
    previous = audit.origin(log)
    for seq in range(1, length + 1):
        body = audit.body(seq, entry(seq))
        previous = audit.link(previous, body)
        records.append((seq, body, previous))
    return records


def test_a_record_is_canonical_json() -> None:
    assert audit.body(7, entry(1)) == (
        b'{"action":"pause","actor":"ann","boot_id":"boot","decision_id":"","detail":{"n":1,"tool":"send_email"},'
        b'"epoch":1,"evidence_digest":"","policy_digest":"","realm":"local","request_id":"","seq":7,"session":"s1",'
        b'"time_mono":5,"time_wall":1800000000000000000}'
    )
    assert audit.record(audit.body(7, entry(1)), b"h") == audit.Record(7, entry(1), audit.body(7, entry(1)), b"h")


def test_the_hashes_are_as_documented() -> None:
    body = audit.body(1, entry(1))
    leaf = hashlib.sha256(b"agent-sidecar audit record v1\0" + body).digest()
    assert audit.leaf(body) == leaf
    assert audit.link(b"p" * 32, body) == hashlib.sha256(b"agent-sidecar audit chain v1\0" + b"p" * 32 + leaf).digest()


def test_a_whole_chain_is_ok() -> None:
    assert audit.verify(LOG, chain(20)) == Verdict("ok", 20)


def test_every_changed_byte_is_found_at_its_record() -> None:
    records = chain(4)
    for at, (seq, body, stored) in enumerate(records):
        for offset in range(len(body)):
            changed = bytearray(body)
            changed[offset] ^= 1
            forged = [*records[:at], (seq, bytes(changed), stored), *records[at + 1 :]]
            assert audit.verify(LOG, forged).state == "tampered"
            assert audit.verify(LOG, forged).seq == seq
        for offset in range(len(stored)):
            wrong = bytearray(stored)
            wrong[offset] ^= 0x80
            forged = [*records[:at], (seq, body, bytes(wrong)), *records[at + 1 :]]
            assert audit.verify(LOG, forged) == Verdict(
                "tampered", seq, "the hash does not fit the record and those before it"
            )


def test_every_removal_swap_and_insertion_is_found() -> None:
    records = chain(6)
    for at in range(5):
        assert audit.verify(LOG, records[:at] + records[at + 1 :]).seq == at + 1
        swapped = records.copy()
        swapped[at], swapped[at + 1] = (at + 1, *records[at + 1][1:]), (at + 2, *records[at][1:])
        assert audit.verify(LOG, swapped).state == "tampered"
        doubled = [*records[: at + 1], *((seq + 1, body, stored) for seq, body, stored in records[at:])]
        assert audit.verify(LOG, doubled).state == "tampered"


def test_a_chain_made_again_from_the_start_needs_a_witness() -> None:
    head = Head(LOG, 5, chain(5)[-1][2])
    forged = []
    previous = audit.origin(LOG)
    for seq in range(1, 6):
        body = audit.body(seq, replace(entry(seq), actor="mallory"))
        previous = audit.link(previous, body)
        forged.append((seq, body, previous))
    assert audit.verify(LOG, forged).state == "ok"  # a chain alone cannot tell; this is why heads are shipped
    assert audit.verify(LOG, forged, head) == Verdict("tampered", 5, "a witness has another hash for this record")
    assert audit.verify(LOG, chain(9), head) == Verdict("ok", 9)
    assert audit.verify(LOG, chain(4), head).reason == "the log ends here, a witness has seen 5 records"
    assert audit.verify("another", chain(9, "another"), head).state == "tampered"


def test_nothing_to_go_by_is_not_ok() -> None:
    assert audit.verify(LOG, []) == Verdict("cannot tell", 0, "the log is empty")
    assert audit.verify("", chain(3)).state == "cannot tell"


@pytest.mark.parametrize(
    "detail", [{str(number): 1 for number in range(17)}, {"k": "x" * 257}, {"k" * 257: 1}, {"k": "\ud800"}]
)
def test_detail_is_bounded_and_clean(detail: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"detail|surrogates"):
        audit.check(replace(entry(1), detail=detail))


def test_now_reads_three_clocks() -> None:
    first, second = Instant.now(), Instant.now()
    assert first.boot_id == second.boot_id != ""
    assert second.boot_ns >= first.boot_ns > 0
    assert first.at_ns > 0


# ---- in the database


@pytest.fixture
async def store(settings: StorageSettings) -> AsyncIterator[ControlStore]:
    store = ControlStore.open(settings)
    yield store
    await store.close()


async def fill(store: ControlStore, first: int, last: int) -> None:
    for number in range(first, last + 1, 5):
        await store.commit(
            ControlBatch(audit=[entry(each) for each in range(number, min(number + 5, last + 1))]), durable=last < 50
        )
    await store.commit(ControlBatch(), durable=True)


def execute(data: Path, sql: str, values: tuple[Any, ...] = ()) -> None:
    connection = apsw.Connection(str(data / "control.db"))
    connection.execute(sql, values)
    connection.close()


async def test_the_chain_goes_on_after_a_restart(settings: StorageSettings) -> None:
    store = ControlStore.open(settings)
    assert store.verify_audit().state == "cannot tell"
    assert store.head().seq == 0
    await fill(store, 1, 12)
    head = store.head()
    await store.close()
    store = ControlStore.open(settings)
    assert store.head() == head
    await fill(store, 13, 20)
    assert store.verify_audit(head) == Verdict("ok", 20)
    assert [record.seq for record in store.audit_after(15)] == [16, 17, 18, 19, 20]
    assert store.audit_after(19)[0].entry == entry(20)
    await store.close()


async def test_verification_reads_page_by_page(store: ControlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_PAGE", 7)
    await fill(store, 1, 100)
    assert store.verify_audit() == Verdict("ok", 100)


@pytest.mark.parametrize(
    ("sql", "state", "seq"),
    [
        ("UPDATE audit SET record = CAST(replace(record, 'ann', 'bob') AS BLOB) WHERE seq = 6", "tampered", 6),
        ("UPDATE audit SET record = x'00' WHERE seq = 6", "tampered", 6),
        ("UPDATE audit SET hash = randomblob(32) WHERE seq = 9", "tampered", 9),
        ("DELETE FROM audit WHERE seq = 3", "tampered", 3),
        ("DELETE FROM audit WHERE seq < 3", "tampered", 1),
        ("UPDATE audit SET seq = -seq WHERE seq = 1", "tampered", 1),
        ("UPDATE audit SET seq = seq + 1 WHERE seq = 10", "tampered", 10),
        ("UPDATE meta SET value = 'other' WHERE name = 'log'", "tampered", 1),
        ("DELETE FROM meta", "cannot tell", 0),
        ("DROP TABLE audit", "cannot tell", 0),
        ("DELETE FROM audit", "cannot tell", 0),
    ],
)
async def test_tampering_with_the_file_is_told_apart(
    store: ControlStore, data: Path, sql: str, state: str, seq: int
) -> None:
    await fill(store, 1, 10)
    execute(data, sql)
    verdict = store.verify_audit()
    assert (verdict.state, verdict.seq) == (state, seq)


async def test_a_log_rolled_back_is_seen_by_its_witness(settings: StorageSettings, data: Path) -> None:
    store = ControlStore.open(settings)
    await fill(store, 1, 5)
    await store.close()
    earlier = (data / "control.db").read_bytes()
    store = ControlStore.open(settings)
    await fill(store, 6, 10)
    head = store.head()
    await store.close()
    (data / "control.db").write_bytes(earlier)
    store = ControlStore.open(settings)
    assert store.verify_audit() == Verdict("ok", 5)
    assert store.verify_audit(head).state == "tampered"
    await fill(store, 6, 9)
    await store.commit(ControlBatch(audit=[replace(entry(10), actor="mallory")]), durable=True)
    assert store.verify_audit(head).reason == "a witness has another hash for this record"
    await store.close()


def test_records_hold_no_field_for_text_of_evidence() -> None:
    fields = set(msgspec.json.decode(audit.body(1, entry(1))))
    assert fields == {
        "seq", "time_wall", "time_mono", "boot_id", "actor", "action", "realm", "session", "epoch", "request_id",
        "decision_id", "policy_digest", "evidence_digest", "detail",
    }  # fmt: skip
    check: Callable[[Entry], None] = audit.check
    with pytest.raises(ValueError, match="at most 256"):
        check(replace(entry(1), detail={"text": "I know about your affair. " * 20}))
