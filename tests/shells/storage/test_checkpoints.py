"""Checkpoints: whole or refused, never half and never run (promise P16, bad input 90)."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sidecar.errors import StorageError
from sidecar.sources import Row
from sidecar.storage import Checkpoint, StorageSettings, TelemetryStore, sealed, telemetry
from sidecar.storage.sealed import RefusedError, seal, unseal

KEY = b"k" * 32
PAYLOAD = bytes(range(256)) * 3
NAME = "blob:agent/a"


def sealed_blob(payload: bytes = PAYLOAD, *, name: str = NAME, key: bytes = KEY, tenant: str = "local") -> bytes:
    return seal(name, payload, key=key, tenant=tenant, policy="sha256:1", code="0.1.0", created_ns=5)


def opened(blob: bytes, name: str = NAME) -> bytes:
    return unseal(name, blob, key=KEY, tenant="local")[1]


def refusal(blob: bytes, name: str = NAME) -> str:
    with pytest.raises(RefusedError) as caught:
        opened(blob, name)
    return caught.value.reason


@given(st.binary(max_size=2000), st.text(), st.text(max_size=100))
@hypothesis_settings(max_examples=100, deadline=None)
def test_what_was_sealed_opens(payload: bytes, name: str, tenant: str) -> None:
    try:
        tenant.encode()
    except UnicodeEncodeError:
        return
    blob = seal(name, payload, key=KEY, tenant=tenant, policy="p", code="c", created_ns=7)
    header, back = unseal(name, blob, key=KEY, tenant=tenant)
    assert (back, header.created_ns, header.policy, header.code) == (payload, 7, "p", "c")


def test_every_flipped_bit_is_noticed() -> None:
    blob = sealed_blob(b"small payload")
    for offset in range(len(blob)):
        for bit in range(8):
            flipped = bytearray(blob)
            flipped[offset] ^= 1 << bit
            assert refusal(bytes(flipped)) in sealed.Reason.__args__  # type: ignore[attr-defined]


def test_every_truncation_and_extension_is_noticed() -> None:
    blob = sealed_blob()
    for length in range(len(blob)):
        assert refusal(blob[:length])
    assert refusal(blob + b"\0") == "damaged"
    assert refusal(blob[:20]) == "truncated"


@given(st.binary(max_size=300))
@hypothesis_settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_reader(junk: bytes) -> None:
    for blob in (junk, sealed._MAGIC + junk, sealed._MAGIC + len(junk).to_bytes(4, "big") + junk + bytes(40)):
        assert refusal(blob)


def test_each_refusal_has_its_reason() -> None:
    assert refusal(b"") == "not a checkpoint"
    assert refusal(pickle.dumps({"a": 1})) == "pickle"
    assert refusal(sealed_blob(key=b"x" * 32)) == "wrong key"
    assert refusal(sealed_blob(tenant="other")) == "other tenant"
    assert refusal(sealed._MAGIC + b"\xff\xff\xff\xff" + bytes(100)) == "damaged"  # a header of 4 GiB
    flipped = bytearray(sealed_blob())
    flipped[-100] ^= 1
    assert refusal(bytes(flipped)) == "damaged"


def test_a_blob_is_bound_to_its_name() -> None:
    assert refusal(sealed_blob(), "blob:agent/b") == "wrong key"


def test_a_newer_schema_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "SCHEMA", 2)
    blob = sealed_blob()
    monkeypatch.undo()
    assert refusal(blob) == "newer schema"


def test_a_header_that_lies_about_the_length_is_refused() -> None:
    blob = sealed_blob()
    start = len(sealed._MAGIC) + 4
    header_bytes = int.from_bytes(blob[start - 4 : start], "big")
    header = msgspec.msgpack.decode(blob[start : start + header_bytes], type=sealed.Header)
    lying = msgspec.msgpack.encode(msgspec.structs.replace(header, length=10 * 2**30))
    rest = blob[start + header_bytes : -32]
    forged = sealed._MAGIC + len(lying).to_bytes(4, "big") + lying + rest
    assert refusal(forged + sealed._mac(KEY, NAME, forged)) == "truncated"


def test_a_blob_too_large_is_refused_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "MAX_PAYLOAD_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        sealed_blob(b"x" * 11)


# ---- the same through the database


@pytest.fixture
async def store(settings: StorageSettings) -> AsyncIterator[TelemetryStore]:
    store = TelemetryStore.open(settings, clock=lambda: 1000)
    for _ in range(10):
        await store.append(Row("traces", b"x", 1))
    yield store
    await store.close()


BLOBS = {"agent/a": b"first", "agent/b": b"second" * 1000, "session/é": b""}


def execute(data: Path, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    connection = apsw.Connection(str(data / "telemetry.db"))
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


async def test_without_a_checkpoint_there_is_nothing_to_restore(store: TelemetryStore) -> None:
    assert await store.load_checkpoint() == Checkpoint({}, {}, [])


async def test_a_checkpoint_is_restored_after_a_restart(settings: StorageSettings, store: TelemetryStore) -> None:
    store.policy = "sha256:7"
    await store.save_checkpoint({"row": 5, "asked": [3, 4]}, BLOBS)
    await store.close()
    again = TelemetryStore.open(settings)
    expected = Checkpoint({"row": 5, "asked": [3, 4]}, BLOBS, [], "sha256:7", 1000)
    assert await again.load_checkpoint() == expected
    await again.close()


async def test_only_what_changed_is_written(store: TelemetryStore) -> None:
    await store.save_checkpoint({"row": 1}, BLOBS)
    await store.save_checkpoint({"row": 2}, {"agent/a": b"newer"}, ["session/é", "never there"])
    loaded = await store.load_checkpoint()
    assert loaded.cursor == {"row": 2}
    assert loaded.blobs == {"agent/a": b"newer", "agent/b": BLOBS["agent/b"]}


async def test_a_cursor_beyond_the_inbox_or_a_reserved_name_is_refused(store: TelemetryStore) -> None:
    for row in (11, -1, "5", None):
        with pytest.raises(ValueError, match="row"):
            await store.save_checkpoint({"row": row}, {})
    with pytest.raises(ValueError, match="named 'cursor'"):
        await store.save_checkpoint({"row": 1}, {"cursor": b""})


async def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    store: TelemetryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save_checkpoint({"row": 1}, BLOBS)
    whole = telemetry._save

    def cut_off(cursor: bytes, blobs: Any, deletes: Any, connection: apsw.Connection) -> int:
        whole(cursor, blobs, deletes, connection)
        raise apsw.FullError("on demand")

    monkeypatch.setattr(telemetry, "_save", cut_off)
    with pytest.raises(StorageError):
        await store.save_checkpoint({"row": 9}, {"agent/a": b"half"}, ["agent/b"])
    loaded = await store.load_checkpoint()
    assert (loaded.cursor, loaded.blobs) == ({"row": 1}, BLOBS)


async def test_concurrent_saves_leave_the_later_one(store: TelemetryStore) -> None:

    await asyncio.gather(*(store.save_checkpoint({"row": n}, {"a": str(n).encode()}) for n in range(1, 8)))
    loaded = await store.load_checkpoint()
    assert (loaded.cursor, loaded.blobs) == ({"row": 7}, {"a": b"7"})


async def test_a_damaged_blob_is_named_set_aside_and_the_rest_restored(store: TelemetryStore, data: Path) -> None:
    await store.save_checkpoint({"row": 5}, BLOBS)
    execute(data, "UPDATE blobs SET blob = CAST(substr(blob, 1, 90) || x'ff' AS BLOB) WHERE name = 'agent/b'")
    loaded = await store.load_checkpoint()
    assert loaded.cursor == {"row": 5}
    assert loaded.blobs == {name: blob for name, blob in BLOBS.items() if name != "agent/b"}
    assert loaded.refused == [("agent/b", "truncated")]
    assert execute(data, "SELECT name, reason, refused_ns, size FROM refused_blobs") == [
        ("agent/b", "truncated", 1000, 91)
    ]
    assert (await store.load_checkpoint()).refused == []  # it is named once


async def test_swapped_blobs_are_both_refused(store: TelemetryStore, data: Path) -> None:
    await store.save_checkpoint({"row": 5}, BLOBS)
    first, second = execute(data, "SELECT blob FROM blobs WHERE name LIKE 'agent/%' ORDER BY name")
    execute(data, "UPDATE blobs SET blob = ? WHERE name = 'agent/a'", second)
    execute(data, "UPDATE blobs SET blob = ? WHERE name = 'agent/b'", first)
    loaded = await store.load_checkpoint()
    assert loaded.refused == [("agent/a", "wrong key"), ("agent/b", "wrong key")]
    assert list(loaded.blobs) == ["session/é"]


@pytest.mark.parametrize("at", range(0, 160, 8))
async def test_a_damaged_cursor_refuses_all_and_starts_at_the_oldest_row(
    store: TelemetryStore, data: Path, at: int
) -> None:
    await store.save_checkpoint({"row": 5}, BLOBS)
    ((cursor,),) = execute(data, "SELECT cursor FROM checkpoint")
    damaged = bytearray(cursor)
    damaged[at % len(cursor)] ^= 0x10
    execute(data, "UPDATE checkpoint SET cursor = ?", (bytes(damaged),))
    loaded = await store.load_checkpoint()
    assert (loaded.cursor, loaded.blobs) == ({}, {})
    assert [name for name, _ in loaded.refused] == ["cursor", *BLOBS]
    assert {reason for _, reason in loaded.refused[1:]} == {"no cursor"}
    assert await store.load_checkpoint() == Checkpoint({}, {}, [])
    assert (await store.retain(10**19)).rows == 0  # nothing is in a checkpoint any more


async def test_a_checkpoint_without_its_cursor_is_refused(store: TelemetryStore, data: Path) -> None:
    await store.save_checkpoint({"row": 5}, BLOBS)
    execute(data, "DELETE FROM checkpoint")
    loaded = await store.load_checkpoint()
    assert loaded.refused == [(name, "no cursor") for name in BLOBS]


async def test_state_of_another_tenant_or_another_key_is_refused(
    settings: StorageSettings, store: TelemetryStore
) -> None:
    await store.save_checkpoint({"row": 5}, {"agent/a": b"theirs"})
    await store.close()
    other = TelemetryStore.open(settings, tenant="other")
    loaded = await other.load_checkpoint()
    assert loaded.refused == [("cursor", "other tenant"), ("agent/a", "no cursor")]
    await other.save_checkpoint({"row": 5}, {"agent/a": b"ours"})
    await other.close()
    (settings.data_dir / "checkpoint.key").unlink()
    again = TelemetryStore.open(settings, tenant="other")
    assert (await again.load_checkpoint()).refused == [("cursor", "wrong key"), ("agent/a", "no cursor")]
    await again.close()


async def test_a_planted_pickle_is_set_aside_and_not_run(store: TelemetryStore, data: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (str(data / "ran"),)

    await store.save_checkpoint({"row": 5}, {"agent/a": b"x"})
    execute(data, "UPDATE blobs SET blob = ?", (pickle.dumps(Bomb()),))
    assert (await store.load_checkpoint()).refused == [("agent/a", "pickle")]
    assert not (data / "ran").exists()


async def test_what_is_set_aside_is_bounded(store: TelemetryStore, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_REFUSED_BYTES", 100)
    for round_ in range(3):
        await store.save_checkpoint({"row": 5}, {f"{round_}/{number}": b"x" * 500 for number in range(40)})
        execute(data, "UPDATE blobs SET blob = CAST(blob || x'00' AS BLOB)")
        assert len((await store.load_checkpoint()).refused) == 40
    kept = execute(data, "SELECT count(*), max(length(blob)), min(size) FROM refused_blobs")[0]
    assert kept[0] == telemetry.KEPT_REFUSED
    assert kept[1] == 100
    assert kept[2] > 500
