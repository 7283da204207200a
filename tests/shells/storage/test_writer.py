"""The writer thread: groups, order, failures that stay alone and failures that end the service."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from sidecar.errors import StorageError
from sidecar.storage.sqlite import open_writer
from sidecar.storage.writer import DiskFullError, QueueFullError, Writer

from .conftest import NOTES, FailingDisk, notes_on

FOREVER_S = 3600.0


def add(text: str, connection: apsw.Connection) -> int:
    connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))
    return connection.last_insert_rowid()


def note(text: str) -> Callable[[apsw.Connection], int]:
    return partial(add, text)


def stored(data: Path) -> list[Any]:
    connection = apsw.Connection(str(data / "notes.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.pragma("integrity_check") == "ok"
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY id")]
    finally:
        connection.close()


class Commits:
    """Counts the commits of a connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.number = 0
        connection.set_commit_hook(self._count)

    def _count(self) -> bool:
        self.number += 1
        return False


async def test_a_result_is_told_once_it_is_on_the_disk(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    assert await writer.submit(note("a"), urgent=True) == 1
    assert stored(data) == ["a"]
    await writer.close()
    assert stored(data) == ["a"]


async def test_an_urgent_operation_takes_along_what_is_queued(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    commits = Commits(database.connection)
    writer = Writer(database, group_s=FOREVER_S)
    waiting = [writer.submit(note(str(number))) for number in range(5)]
    await asyncio.sleep(0)
    assert commits.number == 0
    assert await writer.submit(note("now"), urgent=True) == 6
    assert [await future for future in waiting] == [1, 2, 3, 4, 5]
    assert commits.number == 1
    await writer.close()


async def test_a_hundred_operations_wait_for_nobody(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    writer = Writer(database, group_s=FOREVER_S)
    await asyncio.wait_for(asyncio.gather(*(writer.submit(note(str(number))) for number in range(100))), 30)
    await writer.close()


async def test_operations_nobody_hurries_are_grouped_and_committed_soon(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    commits = Commits(database.connection)
    writer = Writer(database)
    for number in range(10):
        writer.post(note(str(number)))
    await asyncio.wait_for(writer.submit(note("last")), 30)
    assert commits.number <= 2
    await writer.close()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
async def test_callers_are_told_in_the_order_of_the_commits(data: Path, eager: bool, ordered: bool) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), eager=eager, ordered=ordered)
    told: list[int] = []
    futures = []
    for number in range(3000):
        future = writer.submit(note(str(number)), urgent=number % 97 == 0)
        future.add_done_callback(lambda done: told.append(done.result()))
        futures.append(future)
        if number % 50 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*futures)
    assert told == sorted(told)
    if ordered:
        assert results == list(range(1, 3001))
    await writer.close()


async def test_one_call_to_the_loop_tells_a_whole_group(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), group_s=FOREVER_S)
    loop = asyncio.get_running_loop()
    calls: list[object] = []
    real = loop.call_soon_threadsafe

    def call(*args: Any) -> asyncio.Handle:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", call)
    futures = [writer.submit(note(str(number)), urgent=number == 49) for number in range(50)]
    await asyncio.gather(*futures)
    assert len(calls) == 1
    await writer.close()


async def test_urgent_rows_may_overtake_where_order_does_not_matter(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    writer = Writer(database, ordered=False)
    held, going = threading.Event(), threading.Event()

    def hold(connection: apsw.Connection) -> None:
        going.set()
        held.wait(30)

    first = writer.submit(hold, urgent=True)
    await asyncio.to_thread(going.wait, 30)
    slow = [writer.submit(note(f"slow {number}"), size_bytes=8 * 2**20) for number in range(3)]
    quick = writer.submit(note("quick"), urgent=True)
    held.set()
    await first
    assert await quick == 1
    assert [await future for future in slow] == [2, 3, 4]
    await writer.close()


async def test_an_operation_that_fails_fails_alone(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), group_s=FOREVER_S)

    def broken(connection: apsw.Connection) -> None:
        add("half done", connection)
        raise ValueError("ours")

    futures: list[asyncio.Future[Any]] = [
        writer.submit(note("a")),
        writer.submit(note("a")),
        writer.submit(broken),
        writer.submit(note("b"), urgent=True),
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert (results[0], results[3]) == (1, 2)
    assert isinstance(results[1], StorageError)
    assert "UNIQUE" in str(results[1])
    assert isinstance(results[2], ValueError)
    assert stored(data) == ["a", "b"]
    assert not writer.failure
    await writer.close()


async def test_a_write_nobody_waited_for_is_counted_when_it_is_lost(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    await writer.submit(note("a"), urgent=True)
    writer.post(note("a"))
    await writer.submit(note("b"), urgent=True)
    assert writer.lost == 1
    await writer.close()


async def test_a_caller_that_gave_up_stops_nobody(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), group_s=FOREVER_S)
    gone, other = writer.submit(note("a")), writer.submit(note("b"))
    gone.cancel()
    await writer.submit(note("c"), urgent=True)
    assert await other == 2
    assert stored(data) == ["a", "b", "c"]
    await writer.close()


async def test_closing_commits_what_is_queued_and_refuses_the_rest(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), group_s=FOREVER_S)
    futures = [writer.submit(note(str(number))) for number in range(10)]
    await writer.close()
    assert await asyncio.gather(*futures) == list(range(1, 11))
    with pytest.raises(StorageError, match="is closed"):
        writer.post(note("late"))


async def test_the_queue_is_bounded_and_urgent_operations_have_room_of_their_own(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), group_s=FOREVER_S, capacity_rows=3)
    for number in range(3):
        writer.post(note(str(number)))
    assert not writer.has_room(1)
    with pytest.raises(QueueFullError):
        writer.post(note("no"))
    assert await writer.submit(note("yes"), urgent=True) == 4
    assert writer.has_room(1)
    await writer.close()


async def test_the_queue_is_bounded_in_bytes_but_takes_one_big_row(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES), group_s=FOREVER_S, capacity_bytes=100)
    assert writer.has_room(1000)
    writer.post(note("big"), size_bytes=1000)
    assert not writer.has_room(1)
    with pytest.raises(QueueFullError):
        writer.post(note("no"), size_bytes=1)
    await writer.close()
    assert stored(data) == ["big"]


@pytest.mark.parametrize("code", [apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR])
async def test_a_failed_sync_ends_the_service_and_is_not_tried_again(data: Path, disk: FailingDisk, code: int) -> None:
    database = notes_on(disk, data)
    writer = Writer(database, group_s=FOREVER_S)
    await writer.submit(note("before"), urgent=True)
    disk.sync_error = code
    # With ENOSPC from a sync, too: what reached the disk is not known.
    disk.errno = errno.ENOSPC if code == apsw.SQLITE_IOERR_FSYNC else errno.EIO
    waiting = [writer.submit(note(str(number))) for number in range(5)]
    with pytest.raises(StorageError):
        await writer.submit(note("now"), urgent=True)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, StorageError) for result in results)
    await asyncio.wait_for(writer.failed.wait(), 30)
    disk.sync_error, syncs = 0, disk.syncs
    with pytest.raises(StorageError, match=r"notes\.db"):
        writer.submit(note("later"))
    with pytest.raises(StorageError):
        writer.post(note("later"))
    await writer.close()
    assert disk.syncs == syncs
    assert stored(data)[:1] == ["before"]


async def test_a_failed_sync_of_the_file_is_seen_although_the_log_was_synced(data: Path, disk: FailingDisk) -> None:
    writer = Writer(notes_on(disk, data))
    disk.only, disk.sync_error = "notes.db", apsw.SQLITE_IOERR_FSYNC
    for number in range(40):
        await writer.submit(note(f"{number}" + "x" * 200_000), urgent=True)
        if writer.wal_pages >= 1000:
            break
    await asyncio.wait_for(writer.failed.wait(), 30)
    with pytest.raises(StorageError):
        writer.submit(note("later"))
    await writer.close()
    assert len(stored(data)) == number + 1  # all of it is in the log


async def test_a_full_disk_fails_the_operation_and_not_the_service(data: Path, disk: FailingDisk) -> None:
    writer = Writer(notes_on(disk, data))
    disk.write_error = apsw.SQLITE_FULL
    with pytest.raises(DiskFullError):
        await writer.submit(note("a"), urgent=True)
    disk.write_error = 0
    assert await writer.submit(note("b"), urgent=True) == 1
    await writer.close()
    assert stored(data) == ["b"]


@pytest.mark.parametrize(("code", "kind"), [(errno.EDQUOT, DiskFullError), (errno.EROFS, StorageError)])
async def test_a_write_the_system_refused_may_succeed_later(
    data: Path, disk: FailingDisk, code: int, kind: type[StorageError]
) -> None:
    writer = Writer(notes_on(disk, data))
    disk.write_error, disk.errno = apsw.SQLITE_IOERR_WRITE, code
    with pytest.raises(kind):
        await writer.submit(note("a"), urgent=True)
    disk.write_error = 0
    assert await writer.submit(note("b"), urgent=True) == 1
    await writer.close()


@pytest.mark.parametrize("victim", ["notes.db", "notes.db-wal"])
async def test_a_file_removed_while_in_use_ends_the_service(data: Path, victim: str) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    await writer.submit(note("a"), urgent=True)
    (data / victim).unlink()
    with pytest.raises(StorageError, match="removed or replaced"):
        await writer.submit(note("b"), urgent=True)
    assert writer.failed.is_set()
    await writer.close()


async def test_a_file_replaced_by_a_copy_ends_the_service(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    copy = (data / "notes.db").read_bytes()
    (data / "notes.db").unlink()
    (data / "notes.db").write_bytes(copy)
    with pytest.raises(StorageError, match="removed or replaced"):
        await writer.submit(note("b"), urgent=True)
    await writer.close()


async def test_the_log_is_moved_into_the_file_and_stays_short(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    for number in range(60):
        await writer.submit(note(str(number) + "x" * 400_000), urgent=True)
    assert (data / "notes.db").stat().st_size > 20_000_000
    assert (data / "notes.db-wal").stat().st_size < 10_000_000
    await writer.close()


async def test_a_stuck_reader_lets_the_log_grow_and_loses_nothing(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    await writer.submit(note("first"), urgent=True)
    reader = apsw.Connection(str(data / "notes.db"), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN; SELECT count(*) FROM notes").fetchall()
    for number in range(30):
        await writer.submit(note(str(number) + "x" * 400_000), urgent=True)
    assert writer.wal_pages > 2500
    reader.close()
    await writer.close()
    assert len(stored(data)) == 31


async def test_a_writer_belongs_to_one_loop(data: Path) -> None:
    writer = Writer(open_writer(data / "notes.db", NOTES))
    await writer.submit(note("a"), urgent=True)

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="belongs to the event loop"):
            writer.post(note("b"))

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    await writer.close()
