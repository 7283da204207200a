"""A full disk: telemetry is refused first, control writes next, and a pause is stored all the same (P13, M10)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.core.events import SessionKey
from sidecar.sources import InboxFullError, Row
from sidecar.storage import (
    ControlBatch,
    ControlStore,
    DiskFullError,
    Entry,
    Grant,
    Instant,
    SavedRun,
    StorageSettings,
    TelemetryStore,
)
from sidecar.storage.writer import Ballast

from .conftest import MIB

NOW = Instant(10**18, 10**12, "boot")
KEY = SessionKey("local", "s1")


def batch_of(desired: str, epoch: int, key: SessionKey = KEY) -> ControlBatch:
    run = SavedRun(key, desired, epoch, 1, pause_id="p1")  # type: ignore[arg-type]
    return ControlBatch(runs=[run], audit=[Entry(NOW, "policy", desired)])


def a_grant(number: int) -> ControlBatch:
    grant = Grant(f"g{number}", b"d" * 32, KEY, Instant(NOW.at_ns, NOW.boot_ns + 10**9, "boot"))
    return ControlBatch(grants=[grant], audit=[Entry(NOW, "policy", "grant")])


def fill_up(directory: Path) -> Path:
    """Takes all that is left of the disk."""
    filler = directory / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    assert os.statvfs(directory).f_bavail == 0
    return filler


def sound(store: ControlStore) -> bool:
    connection = store._connection
    return connection.pragma("integrity_check") == "ok" and store.verify_audit().state == "ok"


async def until_full(store: ControlStore) -> int:
    """Grants until the disk takes no more; how many were stored."""
    for number in range(10_000):
        try:
            await store.commit(a_grant(number), durable=True)
        except DiskFullError:
            return number
    raise AssertionError("the disk never filled")


async def until_refused(store: TelemetryStore) -> list[int]:
    """Appends until telemetry is refused; the rows that were stored."""
    stored: list[int] = []
    for number in range(10_000):
        try:
            stored += [await store.append(Row("traces", os.urandom(100_000), number))]
        except InboxFullError:
            return stored
    raise AssertionError("telemetry was never refused")


def test_the_ballast_follows_its_setting(data: Path) -> None:
    path = data / "control.ballast"
    for size_bytes in (MIB, 2 * MIB, MIB, 0):
        assert Ballast(path, size_bytes).held
        assert (path.stat().st_blocks * 512 if path.exists() else 0) == size_bytes
    path.write_bytes(b"")
    os.truncate(path, MIB)  # as long, and reserves nothing
    assert Ballast(path, MIB).held
    assert path.stat().st_blocks * 512 == MIB


async def test_a_disk_too_full_for_the_ballast_takes_pauses_only(small_disk: Path) -> None:
    settings = StorageSettings(data_dir=small_disk, ballast_bytes=20 * MIB, low_water_bytes=20 * MIB)
    store = ControlStore.open(settings)
    assert store.writer.is_low
    await store.commit(batch_of("paused", 1), durable=True)
    with pytest.raises(DiskFullError):
        await store.commit(a_grant(1), durable=True)
    await store.close()


async def test_a_pause_is_stored_on_the_ballast(small_disk: Path) -> None:
    settings = StorageSettings(data_dir=small_disk, ballast_bytes=2 * MIB, low_water_bytes=2 * MIB)
    store = ControlStore.open(settings)
    assert (small_disk / "control.ballast").stat().st_size == 2 * MIB
    filler = fill_up(small_disk)
    granted = await until_full(store)
    assert not store.writer.is_low

    await store.commit(batch_of("paused", 1), durable=True)
    assert store.writer.is_low
    assert not (small_disk / "control.ballast").exists()
    # What was given up is for pauses alone.
    with pytest.raises(DiskFullError, match="only pauses"):
        await store.commit(a_grant(99_999), durable=True)
    with pytest.raises(DiskFullError):
        await store.commit(batch_of("running", 2), durable=True)
    for number in range(50):
        await store.commit(batch_of("paused", 1, SessionKey("local", f"t{number}")), durable=True)

    # With room again the ballast is taken back and all goes on, without a restart.
    filler.unlink()
    await store.commit(batch_of("running", 2), durable=True)
    assert not store.writer.is_low
    assert (small_disk / "control.ballast").stat().st_size == 2 * MIB
    assert store.head().seq == granted + 52
    assert not store.writer.failure
    assert sound(store)
    await store.close()

    store = ControlStore.open(settings)
    assert len(store.load(NOW).runs) == 50
    assert len(store.load(NOW).grants) == 0  # void: their session was paused
    await store.close()


async def test_without_a_ballast_the_pause_fails(small_disk: Path) -> None:
    """The control: with the protecting line off, the promise does not hold."""
    settings = StorageSettings(data_dir=small_disk, ballast_bytes=0, low_water_bytes=0)
    store = ControlStore.open(settings)
    filler = fill_up(small_disk)
    await until_full(store)
    with pytest.raises(DiskFullError):
        await store.commit(batch_of("paused", 1), durable=True)
    filler.unlink()
    await store.commit(batch_of("paused", 1), durable=True)
    assert sound(store)
    await store.close()


async def test_a_pause_grouped_with_grants_is_stored_and_they_are_not(small_disk: Path) -> None:
    settings = StorageSettings(data_dir=small_disk, ballast_bytes=2 * MIB, low_water_bytes=2 * MIB)
    store = ControlStore.open(settings)
    fill_up(small_disk)
    granted = await until_full(store)
    lost = store.writer.lost
    for number in range(3):
        await store.commit(a_grant(50_000 + number), durable=False)
    await store.commit(batch_of("paused", 1), durable=True)
    assert store.writer.lost == lost + 3
    assert [run.desired for run in store.load(NOW).runs] == ["paused"]
    assert store.head().seq == granted + 1  # no grant without its record, no record without its grant
    assert sound(store)
    await store.close()


async def test_telemetry_is_refused_while_control_writes_go_on(small_disk: Path) -> None:
    settings = StorageSettings(data_dir=small_disk, ballast_bytes=2 * MIB, low_water_bytes=8 * MIB)
    control, telemetry = ControlStore.open(settings), TelemetryStore.open(settings)
    stored = await until_refused(telemetry)
    assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize > 4 * MIB
    for number in range(200):
        await control.commit(a_grant(number), durable=True)
    await control.commit(batch_of("paused", 1), durable=True)
    assert not control.writer.is_low
    assert [seq for seq, _ in telemetry.read(0, 1000)] == stored
    await telemetry.close()
    await control.close()


async def test_telemetry_that_meets_a_full_disk_is_refused_and_goes_on_later(small_disk: Path) -> None:
    settings = StorageSettings(data_dir=small_disk, ballast_bytes=0, low_water_bytes=0)
    store = TelemetryStore.open(settings)
    stored = [await store.append(Row("traces", b"first", 1))]
    filler = fill_up(small_disk)
    stored += await until_refused(store)
    assert not store.writer.failure
    filler.unlink()
    stored.append(await store.append(Row("traces", b"last", 1)))
    assert [seq for seq, _ in store.read(0, 1000)] == stored == list(range(1, len(stored) + 1))
    assert store._reader.pragma("integrity_check") == "ok"
    await store.close()
