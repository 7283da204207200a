"""The one thread that writes a database: groups operations into durable commits.

Everything submitted before an operation is committed before it or with it (where the database is `ordered`), and
waiting callers are told in the order of the commits. What is told as done has been synced to the disk.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
from msgspec import Struct

from sidecar.errors import StorageError
from sidecar.storage.sqlite import Database, free_bytes, sync_directory

log = logging.getLogger(__name__)

GROUP_S = 0.02
GROUP_ROWS = 100
_COMMIT_ROWS = 1000
_COMMIT_BYTES = 8 * 2**20  # an urgent row never waits for more than this to reach the disk, where it may jump the queue
_WAL_PAGES = 1000
# Nothing reached the disk and nothing is half there: later writes may succeed.
_REFUSED_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_SYNC_ERRORS = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]
"""What one operation does inside the transaction. It may be run again, after a rollback: it keeps no state."""


class DiskFullError(StorageError):
    """There was no room on the disk; nothing of the operation was kept."""


class QueueFullError(StorageError):
    """More is waiting for the disk than the queue holds; nothing of the operation was kept."""


class Ballast:
    """A file of reserved blocks that is given up when a pause meets a full disk.

    Args:
        size_bytes: 0 keeps no reserve: then there is nothing to give up.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path, self._size_bytes = path, size_bytes
        self.held = self._reserved_bytes() == size_bytes or self.restore()

    def release(self) -> bool:
        """Gives the blocks back to the disk; False when there are none."""
        if self._size_bytes == 0 or not self.held:
            return False
        self._path.unlink(missing_ok=True)
        self.held = False
        return True

    def restore(self) -> bool:
        """Reserves the blocks again when the disk has room for them twice; whether they are held."""
        try:
            if free_bytes(self._path.parent) + self._reserved_bytes() < 2 * self._size_bytes:
                return False
            self._path.unlink(missing_ok=True)
            if self._size_bytes:
                self._reserve()
        except OSError:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return False
        self.held = True
        return True

    def _reserve(self) -> None:
        fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(self._path.parent)

    def _reserved_bytes(self) -> int:
        """What is on the disk under that name: blocks, not only a length."""
        try:
            status = self._path.lstat()
        except OSError:
            return 0
        return min(status.st_size, status.st_blocks * 512)


class _Operation(Struct, gc=False):
    work: Work[Any]
    future: asyncio.Future[Any] | None
    vital: bool
    urgent: bool
    size_bytes: int
    at_s: float


class _Outcome(Struct):
    operation: _Operation
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Commits operations in groups, each `synchronous=FULL`, in a thread of its own.

    An urgent operation is committed at once together with whatever is queued. Others wait for company, at most
    `GROUP_S` or until `GROUP_ROWS` are there. An `eager` writer rests only as long as its last commit took: it is quick
    while there is little to do, and its groups grow by themselves with the load and with the slowness of the disk.

    An operation that fails of itself fails alone: its group is rolled back and each is run in a transaction of its own.
    A failed fsync, or any I/O error of which we cannot know what reached the disk, ends the service: `failed` is set,
    everything waiting and everything later gets a `StorageError`. It is not tried again, since after a failed fsync the
    kernel may call pages clean that never reached the disk.

    Memory: at most `capacity_rows` operations and `capacity_bytes` of content wait (urgent ones may use as much again).

    Attributes:
        failed: Set once, on the event loop, when the database is out of service.
        lost: Operations nobody waited for that could not be committed.
        checkpoints_refused: Times the log could not be moved into the file (no room); the log grows meanwhile.
        wal_pages: Size of the write-ahead log at the last commit, pages; grows while a reader is stuck.
        timed: Is told how long each group took to commit, seconds, on the writer's thread; must not raise.
    """

    def __init__(
        self,
        database: Database,
        *,
        ordered: bool = True,
        eager: bool = False,
        group_s: float = GROUP_S,
        ballast: Ballast | None = None,
        capacity_rows: int = 10_000,
        capacity_bytes: int = 64 * 2**20,
    ) -> None:
        self._database, self._ballast = database, ballast
        self._ordered, self._eager, self._group_s = ordered, eager, group_s
        self._capacity_rows, self._capacity_bytes = capacity_rows, capacity_bytes
        self._changed = threading.Condition()
        self._queue: deque[_Operation] = deque()
        self._first: deque[_Operation] = deque()  # urgent ones that need not keep their place; unused when ordered
        self._queued_bytes = self._urgent = 0
        self._closing = False
        self._rest_until_s = 0.0
        self._wal_moved = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure = ""
        self.failed = asyncio.Event()
        self.timed: Callable[[float], None] = lambda seconds: None
        self.lost = self.checkpoints_refused = self.wal_pages = 0
        database.connection.set_wal_hook(self._note_wal)
        self._thread = threading.Thread(target=self._run, name=f"writer {database.path.name}", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why the database is out of service, "" while it is not."""
        return self._failure

    @property
    def is_low(self) -> bool:
        """Whether the ballast is gone, so that only pauses are stored."""
        return self._ballast is not None and not self._ballast.held

    def has_room(self, size_bytes: int) -> bool:
        """Whether an operation of that content would be taken now."""
        return len(self._queue) + len(self._first) < self._capacity_rows and (
            not self._queued_bytes or self._queued_bytes + size_bytes <= self._capacity_bytes
        )

    def submit(
        self, work: Work[T], *, urgent: bool = False, vital: bool = False, size_bytes: int = 0
    ) -> asyncio.Future[T]:
        """Queues `work`; the future has its result once it is durable.

        Args:
            urgent: Commit at once.
            vital: May use the ballast when the disk is full.
            size_bytes: Content it carries, for the bound of the queue.

        Raises:
            StorageError: The database is out of service or closed, or the queue is full.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Operation(work, future, vital, urgent, size_bytes, time.monotonic()), loop)
        return future

    def post(self, work: Work[Any], *, vital: bool = False, size_bytes: int = 0) -> None:
        """Queues `work` for the next group, for nobody to wait for; counted in `lost` when it fails.

        Raises:
            StorageError: The database is out of service or closed, or the queue is full.
        """
        self._put(_Operation(work, None, vital, False, size_bytes, time.monotonic()), asyncio.get_running_loop())

    async def close(self) -> None:
        """Commits what is queued, moves the log into the file, closes it and lets go of the lock."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """`close`, for callers without an event loop; blocks until done."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._database.close(checkpoint=not self._failure)

    def _put(self, operation: _Operation, loop: asyncio.AbstractEventLoop) -> None:
        with self._changed:
            if self._failure or self._closing:
                raise StorageError(self._failure or f"{self._database.path.name} is closed")
            if self._loop is not loop:
                if self._loop is not None and not self._loop.is_closed():
                    raise RuntimeError("a writer belongs to the event loop that first used it")
                self._loop = loop
            waiting = len(self._queue) + len(self._first)
            factor = 2 if operation.urgent else 1
            held = self._queued_bytes + operation.size_bytes
            if waiting >= factor * self._capacity_rows or (waiting and held > factor * self._capacity_bytes):
                raise QueueFullError(f"{self._database.path.name}: too much is waiting for the disk")
            (self._first if operation.urgent and not self._ordered else self._queue).append(operation)
            self._queued_bytes += operation.size_bytes
            self._urgent += operation.urgent
            # Waking the thread for each row would cost more than the row.
            if operation.urgent or waiting == 0 or waiting + 1 == GROUP_ROWS:
                self._changed.notify()

    def _run(self) -> None:
        batch: list[_Operation] = []
        try:
            while batch := self._next():
                started_s = time.monotonic()
                self._commit(batch)
                ended_s = time.monotonic()
                self.timed(ended_s - started_s)
                self._rest_until_s = ended_s + min(self._group_s, ended_s - started_s)
                if self._failure:
                    return
                self._move_wal()
        except BaseException as error:  # a dead thread would look like a slow disk
            log.exception("writer of %s ended", self._database.path.name)
            self._fail(self._words(error), batch)

    def _next(self) -> list[_Operation]:
        """Waits for the next group; empty once closed and all is done."""
        with self._changed:
            while True:
                waiting = len(self._queue) + len(self._first)
                if not waiting and self._closing:
                    return []
                if not waiting:
                    self._changed.wait()
                    continue
                if self._urgent or self._closing or waiting >= GROUP_ROWS:
                    break
                due_s = self._rest_until_s if self._eager else self._queue[0].at_s + self._group_s
                if (rest_s := due_s - time.monotonic()) <= 0:
                    break
                self._changed.wait(rest_s)
            batch: list[_Operation] = []
            size_bytes = 0
            while (self._first or self._queue) and len(batch) < _COMMIT_ROWS and size_bytes < _COMMIT_BYTES:
                operation = (self._first or self._queue).popleft()
                batch.append(operation)
                size_bytes += operation.size_bytes
                self._urgent -= operation.urgent
            self._queued_bytes -= size_bytes
            return batch

    def _commit(self, batch: list[_Operation]) -> None:
        try:
            if self._is_reserve_spent() and not all(operation.vital for operation in batch):
                raise DiskFullError("the reserve is spent")
            results = self._transact(batch)
        except Exception as error:
            if self._is_fatal(error):
                self._fail(self._words(error), batch)
                return
        else:
            self._tell([_Outcome(operation, result) for operation, result in zip(batch, results, strict=True)])
            return
        outcomes: list[_Outcome] = []
        for number, operation in enumerate(batch):
            try:
                outcomes.append(self._commit_alone(operation))
            except Exception as error:
                self._tell(outcomes)
                self._fail(self._words(error), batch[number:])
                return
        self._tell(outcomes)

    def _commit_alone(self, operation: _Operation) -> _Outcome:
        """Commits one operation, on the ballast if need be; raises only what is fatal."""
        if self._is_reserve_spent() and not operation.vital:
            return _Outcome(operation, error=DiskFullError(self._words("the disk is full; only pauses are stored")))
        while True:
            try:
                return _Outcome(operation, self._transact([operation])[0])
            except Exception as error:
                if self._is_fatal(error):
                    raise
                full = self._is_full(error)
                if full and operation.vital and self._ballast is not None and self._ballast.release():
                    log.warning("%s", self._words("the disk is full; gave up the ballast for a pause"))
                    continue
                if full:
                    return _Outcome(operation, error=DiskFullError(self._words(error)))
                if isinstance(error, apsw.Error):
                    return _Outcome(operation, error=StorageError(self._words(error)))
                return _Outcome(operation, error=error)

    def _is_reserve_spent(self) -> bool:
        """Whether what is left of the disk is for pauses alone; takes the ballast back as soon as there is room."""
        return self._ballast is not None and not self._ballast.held and not self._ballast.restore()

    def _transact(self, operations: list[_Operation]) -> list[Any]:
        connection = self._database.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [operation.work(connection) for operation in operations]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # some errors have rolled back already
                connection.execute("ROLLBACK")
            raise
        if self._database.is_moved():
            raise _MovedError("the file or its log was removed or replaced while in use")
        return results

    def _is_fatal(self, error: Exception) -> bool:
        """Whether we can no longer know what is on the disk."""
        if isinstance(error, _MovedError | apsw.CorruptError | apsw.NotADBError):
            return True
        if self._database.connection.in_transaction:
            return True
        if not isinstance(error, apsw.IOError):
            return False
        return getattr(error, "extendedresult", 0) in _SYNC_ERRORS or not self._was_refused(error, _REFUSED_ERRNOS)

    def _is_full(self, error: Exception) -> bool:
        return isinstance(error, apsw.FullError) or self._was_refused(error, _FULL_ERRNOS)

    def _was_refused(self, error: Exception, errnos: frozenset[int]) -> bool:
        """Whether the system said no before anything was written, with one of `errnos`."""
        return isinstance(error, apsw.IOError) and self._database.connection.system_errno in errnos

    def _words(self, error: object) -> str:
        return f"{self._database.path.name}: {error}"

    def _fail(self, failure: str, batch: list[_Operation]) -> None:
        """Takes the database out of service and tells everyone who waits."""
        with self._changed:
            self._failure = failure
            waiting = [*batch, *self._first, *self._queue]
            self._first.clear()
            self._queue.clear()
            self._queued_bytes = self._urgent = 0
        log.critical("out of service: %s", failure)
        self._tell([_Outcome(operation, error=StorageError(failure)) for operation in waiting], failed=True)

    def _tell(self, outcomes: list[_Outcome], *, failed: bool = False) -> None:
        waited = [outcome for outcome in outcomes if outcome.operation.future is not None]
        lost = [outcome for outcome in outcomes if outcome.operation.future is None and outcome.error is not None]
        if lost:
            self.lost += len(lost)
            log.error("lost %d writes that nobody waited for: %s", len(lost), lost[0].error)
        if self._loop is None or not (waited or failed):
            return
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_resolve, waited, self.failed if failed else None)

    def _note_wal(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def _move_wal(self) -> None:
        """Moves a long log into the file; after the callers were told, since they need not wait for it."""
        if self.wal_pages < self._wal_moved:
            self._wal_moved = 0  # the log began anew
        if self.wal_pages - self._wal_moved < _WAL_PAGES:
            return
        try:
            _, self._wal_moved = self._database.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            if self._is_fatal(error):
                self._fail(self._words(error), [])
            else:
                self.checkpoints_refused += 1


class _MovedError(Exception):
    pass


def _resolve(outcomes: list[_Outcome], failed: asyncio.Event | None) -> None:
    if failed is not None:
        failed.set()
    for outcome in outcomes:
        future = outcome.operation.future
        if future is None or future.done():
            continue
        if outcome.error is None:
            future.set_result(outcome.result)
        else:
            future.set_exception(outcome.error)
