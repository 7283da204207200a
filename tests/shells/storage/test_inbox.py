"""The inbox: rows in order, whole, and kept no longer than they may be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
import zstandard
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sidecar.core.span import Speaker
from sidecar.errors import StorageError
from sidecar.sources import Inbox, InboxFullError, Row
from sidecar.storage import StorageSettings, TelemetryStore, telemetry
from sidecar.storage.telemetry import _insert, _row

from .conftest import MIB

DAY_NS = 86_400 * 10**9
NOW_NS = 1_800_000_000 * 10**9


@pytest.fixture
async def store(settings: StorageSettings) -> AsyncIterator[TelemetryStore]:
    store = TelemetryStore.open(settings)
    yield store
    await store.close()


def row(body: bytes = b"x", at_ns: int = NOW_NS) -> Row:
    return Row("traces", body, at_ns)


async def fill(store: TelemetryStore, bodies: int, size_bytes: int = 50_000) -> None:
    for number in range(bodies):
        await store.append(row(os.urandom(size_bytes), NOW_NS + number))


async def test_rows_come_back_as_they_went_in_also_after_a_restart(settings: StorageSettings) -> None:
    rows = [
        Row("traces", b"\0\xff" * 1000, NOW_NS, "proto", Speaker("agent:a", "authenticated", "a")),
        Row("logs", b"", 0, "json", Speaker("forwarder:f", "attested", None, ("*",))),
        Row("asked", b"{}", NOW_NS, after=(1, 7)),
        Row("command", os.urandom(100_000), 2**64 - 1),
    ]
    store = TelemetryStore.open(settings)
    inbox: Inbox = store
    assert [await inbox.append(row) for row in rows] == [1, 2, 3, 4]
    await store.close()
    store = TelemetryStore.open(settings)
    back = store.read(0)
    assert [seq for seq, _ in back] == [1, 2, 3, 4]
    assert [row for _, row in back][:3] == rows[:3]
    assert back[3][1].body == rows[3].body
    assert back[3][1].arrived_ns == 2**63 - 1  # SQLite has no larger number
    assert await store.append(row()) == 5
    await store.close()


@given(
    st.builds(
        Row,
        kind=st.sampled_from(["traces", "logs", "asked", "command"]),
        body=st.one_of(st.binary(), st.binary(min_size=1, max_size=4).map(lambda part: part * 2000)),
        arrived_ns=st.integers(0, 2**63 - 1),
        encoding=st.sampled_from(["proto", "json"]),
        speaker=st.builds(
            Speaker,
            realm=st.text(st.characters(codec="utf-8")),
            grade=st.sampled_from(["authenticated", "attested", "declared"]),
            agent=st.none() | st.text(st.characters(codec="utf-8")),
            speaks_for=st.lists(st.text(st.characters(codec="utf-8")), max_size=3).map(tuple),
        ),
        after=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**31)),
    ),
    st.booleans(),
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_every_row_survives_the_file(given_row: Row, compress: bool) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(telemetry.SCHEMA.migrations[0])
    compressor = zstandard.ZstdCompressor(level=1) if compress else None
    seq = _insert(given_row, compressor, connection)
    stored = connection.execute(
        "SELECT seq, kind, encoding, arrived_ns, speaker, after_row, after_index, size, packed, body FROM inbox"
    ).fetchall()
    assert _row(stored[0]) == (seq, given_row)


async def test_compressed_rows_take_less_room_and_read_the_same(settings: StorageSettings) -> None:
    body = b'{"key": "value", "number": 12345}' * 1000
    store = TelemetryStore.open(settings.model_copy(update={"telemetry_zstd": True}))
    await store.append(row(body))
    await store.append(row(incompressible := os.urandom(5000)))
    assert [stored.body for _, stored in store.read(0)] == [body, incompressible]
    await store.close()
    store = TelemetryStore.open(settings)  # the setting may change; rows are read as they were written
    assert store.read(0)[0][1].body == body
    await store.close()


async def test_reading_is_by_number_and_in_pages(store: TelemetryStore) -> None:
    await fill(store, 10, 10)
    assert [seq for seq, _ in store.read(3, 4)] == [4, 5, 6, 7]
    assert store.read(10) == []
    assert store.backlog(0) == 10
    assert store.backlog(7) == 3
    assert store.backlog(10) == 0


async def test_a_page_of_big_rows_is_cut_short(store: TelemetryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_READ_BYTES", 100)
    await fill(store, 5, 60)
    assert [seq for seq, _ in store.read(0)] == [1, 2]
    assert [seq for seq, _ in store.read(2)] == [3, 4]
    await store.append(row(b"x" * 1000))
    assert [seq for seq, _ in store.read(5)] == [6]


async def test_numbers_follow_the_order_of_arrival(store: TelemetryStore) -> None:
    bodies = [str(number).encode() for number in range(500)]
    seqs = await asyncio.gather(*(store.append(row(body)) for body in bodies))
    assert seqs == sorted(seqs)
    assert [stored.body for _, stored in store.read(0, 1000)] == bodies


async def test_a_row_whose_sender_gave_up_is_read_and_may_be_in_a_checkpoint(store: TelemetryStore) -> None:
    gone = asyncio.ensure_future(store.append(row(b"gone")))
    await asyncio.sleep(0)  # it is queued
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await store.pin("any", [])  # a later commit has been made
    assert [stored.body for _, stored in store.read(0)] == [b"gone"]
    await store.save_checkpoint({"row": 1}, {})
    assert store.backlog(1) == 0


async def test_a_row_that_cannot_be_read_is_an_error_not_an_end(store: TelemetryStore, data: Path) -> None:
    await fill(store, 3, 10)
    other = apsw.Connection(str(data / "telemetry.db"))
    other.execute("UPDATE inbox SET speaker = 'junk' WHERE seq = 2")
    other.close()
    with pytest.raises(StorageError, match="rows after 0 cannot be read"):
        store.read(0)
    assert len(store.read(2)) == 1


async def test_old_rows_go_but_not_those_that_are_not_in_a_checkpoint(store: TelemetryStore) -> None:
    for day in range(10):
        await store.append(row(b"body", NOW_NS - (10 - day) * DAY_NS))
    assert (await store.retain(NOW_NS)).rows == 0
    await store.save_checkpoint({"row": 2}, {})
    purged = await store.retain(NOW_NS)  # 7 days: rows 1-3 are older, 1 and 2 are in the checkpoint
    assert (purged.rows, purged.size_bytes) == (2, 8)
    assert (store.purged_rows, store.purged_bytes) == (2, 8)
    await store.save_checkpoint({"row": 10}, {})
    assert (await store.retain(NOW_NS)).rows == 1
    assert [seq for seq, _ in store.read(0)] == [4, 5, 6, 7, 8, 9, 10]


async def test_what_evidence_refers_to_stays_until_it_is_let_go(store: TelemetryStore) -> None:
    for _ in range(5):
        await store.append(row(b"old", NOW_NS - 30 * DAY_NS))
    await store.save_checkpoint({"row": 5}, {})
    assert await store.pin("alert", [2, 4, 4, 99]) == 2
    assert await store.pin("other", [4]) == 1
    assert (await store.retain(NOW_NS)).rows == 3
    assert [seq for seq, _ in store.read(0)] == [2, 4]
    await store.unpin("alert")
    assert (await store.retain(NOW_NS)).rows == 1
    assert [seq for seq, _ in store.read(0)] == [4]
    await store.unpin("other")
    assert (await store.retain(NOW_NS)).rows == 1


async def test_pins_outlive_a_restart(settings: StorageSettings) -> None:
    store = TelemetryStore.open(settings)
    await store.append(row(b"old", 0))
    await store.save_checkpoint({"row": 1}, {})
    await store.pin("alert", [1])
    await store.close()
    store = TelemetryStore.open(settings)
    await store.load_checkpoint()
    assert (await store.retain(NOW_NS)).rows == 0
    await store.unpin("alert")
    assert (await store.retain(NOW_NS)).rows == 1
    assert await store.append(row()) == 2  # the number of a purged row is not given again
    await store.close()


@pytest.fixture
async def small(settings: StorageSettings) -> AsyncIterator[TelemetryStore]:
    store = TelemetryStore.open(settings.model_copy(update={"telemetry_max_bytes": 4 * MIB}))
    yield store
    await store.close()


async def test_above_its_size_the_oldest_rows_go_by_themselves(small: TelemetryStore, data: Path) -> None:
    for _ in range(20):
        await fill(small, 10, 50_000)
        await small.save_checkpoint({"row": small.backlog(0)}, {})
    rows = [seq for seq, _ in small.read(0, 1000)]
    assert rows == list(range(rows[0], 201))
    assert small.purged_rows == rows[0] - 1 > 0
    assert small.used_bytes <= 4 * MIB + MIB
    assert (data / "telemetry.db").stat().st_size < 8 * MIB


async def test_a_store_full_of_rows_that_must_stay_refuses_and_keeps_all(small: TelemetryStore) -> None:
    with pytest.raises(InboxFullError) as caught:
        await fill(small, 200, 50_000)
    assert caught.value.retry_after_s > 0
    kept = small.backlog(0)
    assert [seq for seq, _ in small.read(0, 1000)] == list(range(1, kept + 1))
    assert small.purged_rows == 0
    # Once the engine has caught up, there is room again.
    await small.save_checkpoint({"row": kept}, {})
    await small.retain(0)
    assert small.purged_rows > 0
    assert await small.append(row()) == kept + 1


async def test_below_the_low_water_mark_telemetry_is_refused(settings: StorageSettings) -> None:
    store = TelemetryStore.open(settings.model_copy(update={"low_water_bytes": 2**49}))
    with pytest.raises(InboxFullError):
        await store.append(row())
    assert store.backlog(0) == 0
    await store.close()


async def test_more_than_the_queue_holds_is_refused_while_the_disk_is_slow(store: TelemetryStore) -> None:
    tasks = [asyncio.ensure_future(store.append(row(bytes(16 * MIB)))) for _ in range(10)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    stored = [result for result in results if isinstance(result, int)]
    refused = [result for result in results if isinstance(result, InboxFullError)]
    assert stored
    assert refused
    assert len(stored) + len(refused) == 10
    assert store.backlog(0) == len(stored)


async def test_a_row_of_absurd_size_is_refused(store: TelemetryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_MAX_BODY_BYTES", 10)
    with pytest.raises(StorageError, match="at most 10 bytes"):
        await store.append(row(b"x" * 11))


async def test_nothing_is_acknowledged_after_the_store_is_closed(settings: StorageSettings) -> None:
    store = TelemetryStore.open(settings)
    await store.close()
    with pytest.raises(StorageError):
        await store.append(row())
