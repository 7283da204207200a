"""telemetry.db: the inbox, the checkpoints of the engine's state, and how long both are kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import zstandard
from msgspec import Struct

from sidecar import __version__
from sidecar.core.span import Speaker
from sidecar.errors import StorageError
from sidecar.sources import InboxFullError, Row
from sidecar.storage import sealed
from sidecar.storage.settings import StorageSettings
from sidecar.storage.sqlite import Database, Schema, free_bytes, open_reader, open_writer
from sidecar.storage.writer import DiskFullError, QueueFullError, Writer

FILE = "telemetry.db"
KEY_FILE = "checkpoint.key"
CURSOR = "cursor"  # the name under which the cursor is sealed
KEPT_REFUSED = 64
_REFUSED_BYTES = 2**20
_READ_BYTES = 32 * 2**20
_PURGE_ROWS = 256
_PURGE_BYTES = 32 * 2**20
_PAGE_BYTES = 4096
_RETRY_FULL_S = 5.0
_RETRY_BUSY_S = 1.0
_MAX_BODY_BYTES = 256 * 2**20
_MAX_INT = 2**63 - 1

SCHEMA = Schema(
    name="telemetry",
    application_id=0x53435454,  # "SCTT"
    migrations=(
        """
        CREATE TABLE inbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- a number is never given twice, also after the row is purged
            kind TEXT NOT NULL,
            encoding TEXT NOT NULL,
            arrived_ns INTEGER NOT NULL,
            speaker TEXT NOT NULL,                  -- JSON
            after_row INTEGER NOT NULL,
            after_index INTEGER NOT NULL,
            size INTEGER NOT NULL,                  -- of the body as it arrived, bytes
            packed INTEGER NOT NULL,                -- 1: body is zstd
            body BLOB NOT NULL
        ) STRICT;
        CREATE TABLE pins (
            holder TEXT NOT NULL,                   -- fingerprint of an open alert
            seq INTEGER NOT NULL,
            PRIMARY KEY (holder, seq)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX pins_by_row ON pins (seq);
        CREATE TABLE checkpoint (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            cursor BLOB NOT NULL                    -- sealed
        ) STRICT;
        CREATE TABLE blobs (
            name TEXT PRIMARY KEY,
            blob BLOB NOT NULL                      -- sealed
        ) STRICT;
        CREATE TABLE refused_blobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL,
            reason TEXT NOT NULL,
            refused_ns INTEGER NOT NULL,
            size INTEGER NOT NULL,
            blob BLOB NOT NULL                      -- its first MiB
        ) STRICT;
        """,
    ),
)


class Checkpoint(Struct, frozen=True):
    """The engine's state as last saved.

    Attributes:
        cursor: Where to read on; its ``row`` is the last row of the inbox that the state holds whole, 0 at the start.
        refused: Blobs that were damaged, foreign or of another sidecar, with the reason; they were set aside, and what
            they held starts cold. A refused cursor (name `CURSOR`) refuses all of them: the inbox is read from its
            oldest row.
        policy, created_ns: Of the cursor; "" and 0 when there is none.
    """

    cursor: dict[str, Any]
    blobs: dict[str, bytes]
    refused: list[tuple[str, str]]
    policy: str = ""
    created_ns: int = 0


class Purged(Struct, frozen=True):
    """What retention removed: rows, and the bytes of their bodies."""

    rows: int = 0
    size_bytes: int = 0


class TelemetryStore:
    """The inbox and the checkpoints. Writes belong to one event loop; reads may come from any thread.

    Attributes:
        policy: Digest of the policy in force, noted in checkpoints.
        purged_rows, purged_bytes: What retention has removed since the start.
    """

    def __init__(
        self, database: Database, key: bytes, settings: StorageSettings, tenant: str, clock: Callable[[], int]
    ) -> None:
        self.policy = ""
        self.purged_rows = self.purged_bytes = 0
        self._settings, self._key, self._tenant, self._clock = settings, key, tenant, clock
        self._directory = database.path.parent
        self._free_bytes = self._unlooked_bytes = 0
        self._look_again_s = 0.0
        self._reader = open_reader(database.path, SCHEMA)
        self._reading = threading.Lock()
        self._used_bytes = _used_bytes(self._reader)
        self._last_row = _one(self._reader, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'inbox'")
        self._kept_after = 0  # rows up to here are part of the last checkpoint
        self._compressor = zstandard.ZstdCompressor(level=1) if settings.telemetry_zstd else None  # writer's alone
        self._purging: asyncio.Future[tuple[Purged, int]] | None = None
        self._saving = asyncio.Lock()
        self._writer = Writer(database, ordered=False, eager=True)

    @classmethod
    def open(
        cls,
        settings: StorageSettings,
        *,
        tenant: str = "local",
        create: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> TelemetryStore:
        """Opens or makes ``telemetry.db`` in the data directory.

        Args:
            tenant: Whose state it is; a checkpoint of another tenant is refused.
            create: Make a missing data directory.

        Raises:
            ConfigError: See `sqlite.open_writer`.
        """
        path = settings.data_dir / FILE
        database = open_writer(path, SCHEMA, create=create)
        try:
            return cls(database, sealed.load_key(path.with_name(KEY_FILE)), settings, tenant, clock)
        except BaseException:
            database.close()
            raise

    @property
    def writer(self) -> Writer:
        """For its `failed` event and its counters."""
        return self._writer

    @property
    def used_bytes(self) -> int:
        """Pages in use in the file, bytes (freed pages are used again; the file itself does not shrink)."""
        return self._used_bytes

    async def close(self) -> None:
        """Commits what is queued and lets go of the file."""
        with self._reading:
            self._reader.close()
        await self._writer.close()

    async def append(self, row: Row) -> int:
        """See `sources.Inbox.append`. Rows of the gate (`asked`, `command`) are committed at once, before others.

        Raises:
            InboxFullError: The disk is below its low-water mark, the database at its size with nothing that may be
                removed, or more is waiting for the disk than memory should hold.
            StorageError: The commit failed, or the database is out of service.
        """
        size_bytes = len(row.body)
        self._refuse_when_full(size_bytes)
        work = partial(_insert, row, self._compressor)
        try:
            seq = await self._writer.submit(work, urgent=row.kind in ("asked", "command"), size_bytes=size_bytes)
        except QueueFullError as error:
            raise InboxFullError(_RETRY_BUSY_S) from error
        except DiskFullError as error:
            raise InboxFullError(_RETRY_FULL_S) from error
        self._last_row = max(self._last_row, seq)
        self._used_bytes += _pages_bytes(size_bytes)  # at most; each purge measures it
        if self._used_bytes > self._settings.telemetry_max_bytes:
            self._purge_soon()
        return seq

    def read(self, after: int, limit: int = 64) -> list[tuple[int, Row]]:
        """See `sources.Inbox.read`. Stops early at 32 MiB of bodies; empty only when there is nothing.

        Raises:
            StorageError: A row cannot be read.
        """
        rows: list[tuple[int, Row]] = []
        size_bytes = 0
        with self._reading:
            try:
                cursor = self._reader.execute(
                    "SELECT seq, kind, encoding, arrived_ns, speaker, after_row, after_index, size, packed, body"
                    " FROM inbox WHERE seq > ? ORDER BY seq LIMIT ?",
                    (after, limit),
                )
                try:
                    for values in cursor:
                        rows.append(_row(values))
                        size_bytes += len(rows[-1][1].body)
                        if size_bytes >= _READ_BYTES:
                            break
                finally:
                    cursor.close(force=True)  # ends the read transaction, else the log could not be moved
            except (apsw.Error, msgspec.MsgspecError, zstandard.ZstdError) as error:
                raise StorageError(f"{FILE}: rows after {after} cannot be read: {error}") from error
        if rows:  # a row whose sender gave up waiting is durable all the same
            self._last_row = max(self._last_row, rows[-1][0])
        return rows

    def backlog(self, cursor: int) -> int:
        """Number of durable rows after `cursor`."""
        return max(0, self._last_row - cursor)

    async def pin(self, holder: str, rows: Iterable[int]) -> int:
        """Keeps `rows` from being removed for as long as `holder` (an alert's fingerprint) pins them.

        Returns:
            How many of them are still there.
        """
        return await self._writer.submit(partial(_pin, holder, sorted(set(rows))), urgent=True)

    async def unpin(self, holder: str) -> None:
        """Lets go of all rows that `holder` pinned."""
        await self._writer.submit(partial(_unpin, holder))

    async def retain(self, now_ns: int) -> Purged:
        """Removes rows over the age and size limits: the oldest first, none that is pinned or not in a checkpoint."""
        total = Purged()
        while True:
            purged = await self._purge(now_ns - int(self._settings.telemetry_max_age_s * 1e9))
            if not purged.rows:
                return total
            total = Purged(total.rows + purged.rows, total.size_bytes + purged.size_bytes)

    async def save_checkpoint(
        self, cursor: Mapping[str, Any], upserts: Mapping[str, bytes], deletes: Iterable[str] = ()
    ) -> None:
        """Stores the engine's state and how far it has read, in one transaction.

        Args:
            cursor: Plain data; its ``row`` is the last row of the inbox that the state holds whole.
            upserts: Blobs that changed since the last checkpoint, by name.
            deletes: Names of blobs that are gone.

        Raises:
            DiskFullError: No room; the last checkpoint stands.
            StorageError: The commit failed.
        """
        row = cursor["row"]
        if not isinstance(row, int) or not 0 <= row <= self._last_row:
            raise ValueError(f"the cursor's row must be one of the inbox, not {row!r}")
        if CURSOR in upserts:
            raise ValueError(f"no blob may be named {CURSOR!r}")
        async with self._saving:
            blobs, sealed_cursor = await asyncio.to_thread(self._seal, dict(cursor), dict(upserts))
            size_bytes = sum(len(blob) for _, blob in blobs)
            work = partial(_save, sealed_cursor, blobs, [(name,) for name in deletes])
            self._used_bytes = await self._writer.submit(work, size_bytes=size_bytes)
            self._kept_after = row
        if self._used_bytes > self._settings.telemetry_max_bytes:
            self._purge_soon()

    async def load_checkpoint(self) -> Checkpoint:
        """The last checkpoint, as far as it can be believed; what cannot is set aside in ``refused_blobs``."""
        checkpoint = await asyncio.to_thread(self._load)
        if checkpoint.refused:
            await self._writer.submit(partial(_set_aside, checkpoint.refused, self._clock()), urgent=True)
        self._kept_after = checkpoint.cursor.get("row", 0)
        return checkpoint

    def _refuse_when_full(self, size_bytes: int) -> None:
        if size_bytes > _MAX_BODY_BYTES:
            raise StorageError(f"a row holds at most {_MAX_BODY_BYTES} bytes")
        most = self._settings.telemetry_max_bytes
        if self._used_bytes > most + most // 16 or self._is_disk_low(size_bytes):
            raise InboxFullError(_RETRY_FULL_S)
        if not self._writer.has_room(size_bytes):
            raise InboxFullError(_RETRY_BUSY_S)

    def _is_disk_low(self, size_bytes: int) -> bool:
        """Whether the disk is below its mark. Looks again each quarter second, or when much has been written since."""
        mark_bytes = self._settings.low_water_bytes
        now_s = time.monotonic()
        self._unlooked_bytes += size_bytes
        if now_s >= self._look_again_s or self._unlooked_bytes > mark_bytes // 16:
            self._free_bytes = free_bytes(self._directory)
            self._look_again_s, self._unlooked_bytes = now_s + 0.25, 0
        return self._free_bytes < mark_bytes

    def _purge_soon(self) -> None:
        """Makes room in the background, one step after the other until the size is right or nothing may go."""
        if self._purging is not None and not self._purging.done():
            return
        try:
            self._purging = self._writer.submit(self._purge_work(before_ns=0))
        except StorageError:
            return  # full or out of service; the next append says so
        self._purging.add_done_callback(self._purged)

    def _purged(self, future: asyncio.Future[tuple[Purged, int]]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        if self._note(*future.result()).rows and self._used_bytes > self._settings.telemetry_max_bytes:
            self._purge_soon()

    async def _purge(self, before_ns: int) -> Purged:
        return self._note(*await self._writer.submit(self._purge_work(before_ns)))

    def _purge_work(self, before_ns: int) -> Callable[[apsw.Connection], tuple[Purged, int]]:
        return partial(_purge, self._kept_after, before_ns, self._settings.telemetry_max_bytes)

    def _note(self, purged: Purged, used_bytes: int) -> Purged:
        self.purged_rows += purged.rows
        self.purged_bytes += purged.size_bytes
        self._used_bytes = used_bytes
        return purged

    def _seal(self, cursor: dict[str, Any], upserts: dict[str, bytes]) -> tuple[list[tuple[str, bytes]], bytes]:
        seal = partial(
            sealed.seal,
            key=self._key,
            tenant=self._tenant,
            policy=self.policy,
            code=__version__,
            created_ns=self._clock(),
        )
        blobs = [(name, seal("blob:" + name, payload)) for name, payload in upserts.items()]
        return blobs, seal(CURSOR, msgspec.msgpack.encode(cursor))

    def _load(self) -> Checkpoint:
        with self._reading:
            try:
                # One statement, one snapshot: cursor and blobs of the same checkpoint. The cursor's name is NULL.
                stored = self._reader.execute(
                    "SELECT NULL, cursor FROM checkpoint UNION ALL SELECT name, blob FROM blobs ORDER BY 1"
                ).fetchall()
            except apsw.Error as error:
                raise StorageError(f"{FILE}: the checkpoint cannot be read: {error}") from error
        if not stored:
            return Checkpoint({}, {}, [])
        name, blob = stored[0]
        cursor: dict[str, Any] = {}
        header = None
        refused: list[tuple[str, str]] = []
        if name is None:
            try:
                header, payload = sealed.unseal(CURSOR, _bytes(blob), key=self._key, tenant=self._tenant)
                cursor = msgspec.msgpack.decode(payload, type=dict[str, Any])
            except sealed.RefusedError as error:
                refused.append((CURSOR, error.reason))
        blobs: dict[str, bytes] = {}
        for name, blob in stored:
            if name is None:
                continue
            key = str(name)
            try:
                if header is None:
                    raise sealed.RefusedError("no cursor")
                blobs[key] = sealed.unseal("blob:" + key, _bytes(blob), key=self._key, tenant=self._tenant)[1]
            except sealed.RefusedError as error:
                refused.append((key, error.reason))
        if header is None:
            return Checkpoint({}, {}, refused)
        return Checkpoint(cursor, blobs, refused, header.policy, header.created_ns)


def _insert(row: Row, compressor: zstandard.ZstdCompressor | None, connection: apsw.Connection) -> int:
    body, packed = row.body, False
    if compressor is not None and len(body) > 512:
        smaller = compressor.compress(body)
        if len(smaller) < len(body) * 9 // 10:
            body, packed = smaller, True
    connection.execute(
        "INSERT INTO inbox (kind, encoding, arrived_ns, speaker, after_row, after_index, size, packed, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.kind,
            row.encoding,
            max(0, min(row.arrived_ns, _MAX_INT)),
            _speaker_text(row.speaker),
            *row.after,
            len(row.body),
            packed,
            body,
        ),
    )
    return connection.last_insert_rowid()


def _row(values: tuple[Any, ...]) -> tuple[int, Row]:
    seq, kind, encoding, arrived_ns, speaker, after_row, after_index, size, packed, body = values
    if packed:
        body = zstandard.ZstdDecompressor().decompress(body, max_output_size=min(size, _MAX_BODY_BYTES))
    return seq, Row(kind, body, arrived_ns, encoding, _speaker(speaker), (after_row, after_index))


@lru_cache(maxsize=1024)
def _speaker_text(speaker: Speaker) -> str:
    return msgspec.json.encode(speaker).decode()


@lru_cache(maxsize=1024)
def _speaker(text: str) -> Speaker:
    return msgspec.json.decode(text, type=Speaker)


def _pin(holder: str, rows: list[int], connection: apsw.Connection) -> int:
    there = 0
    for seq in rows:
        connection.execute("INSERT OR IGNORE INTO pins SELECT ?, seq FROM inbox WHERE seq = ?", (holder, seq))
        there += _one(connection, "SELECT count(*) FROM pins WHERE holder = ? AND seq = ?", (holder, seq))
    return there


def _unpin(holder: str, connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM pins WHERE holder = ?", (holder,))


def _purge(upto: int, before_ns: int, max_bytes: int, connection: apsw.Connection) -> tuple[Purged, int]:
    """One short step of retention; the pages in use after it."""
    used_bytes = _used_bytes(connection)
    # Somewhat below the limit, so that not every row above it purges one.
    excess_bytes = used_bytes - max_bytes * 31 // 32 if used_bytes > max_bytes else 0
    doomed: list[tuple[int]] = []
    size_bytes = freed_bytes = 0
    candidates = connection.execute(
        "SELECT seq, arrived_ns, length(body) FROM inbox"
        " WHERE seq <= ? AND NOT EXISTS (SELECT 1 FROM pins WHERE pins.seq = inbox.seq) ORDER BY seq LIMIT ?",
        (upto, _PURGE_ROWS),
    ).fetchall()
    for seq, arrived_ns, length in candidates:
        assert isinstance(seq, int)
        assert isinstance(arrived_ns, int)
        assert isinstance(length, int)
        if (arrived_ns < before_ns or freed_bytes < excess_bytes) and size_bytes < _PURGE_BYTES:
            doomed.append((seq,))
            size_bytes += length
            freed_bytes += _pages_bytes(length)
    connection.executemany("DELETE FROM inbox WHERE seq = ?", doomed)
    return Purged(len(doomed), size_bytes), _used_bytes(connection)


def _save(cursor: bytes, blobs: list[tuple[str, bytes]], deletes: list[tuple[str]], connection: apsw.Connection) -> int:
    connection.executemany("DELETE FROM blobs WHERE name = ?", deletes)
    connection.executemany("INSERT OR REPLACE INTO blobs (name, blob) VALUES (?, ?)", blobs)
    connection.execute("INSERT OR REPLACE INTO checkpoint (one, cursor) VALUES (1, ?)", (cursor,))
    return _used_bytes(connection)


def _set_aside(refused: list[tuple[str, str]], now_ns: int, connection: apsw.Connection) -> None:
    for name, reason in refused:
        if name == CURSOR:
            taken = connection.execute("DELETE FROM checkpoint RETURNING cursor").get
        else:
            taken = connection.execute("DELETE FROM blobs WHERE name = ? RETURNING blob", (name,)).get
        blob = _bytes(taken)
        connection.execute(
            "INSERT INTO refused_blobs (name, reason, refused_ns, size, blob) VALUES (?, ?, ?, ?, ?)",
            (name, reason, now_ns, len(blob), blob[:_REFUSED_BYTES]),
        )
    connection.execute("DELETE FROM refused_blobs WHERE id <= (SELECT max(id) FROM refused_blobs) - ?", (KEPT_REFUSED,))


def _used_bytes(connection: apsw.Connection) -> int:
    pages, free, size = (connection.pragma(name) for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def _pages_bytes(length: int) -> int:
    """What a body of that length takes in the file, at most."""
    return (length // _PAGE_BYTES + 1) * _PAGE_BYTES


def _one(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> int:
    return int(connection.execute(sql, values).get)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def rows_since(directory: Path, since_ns: int) -> Iterator[tuple[int, Row]]:
    """Rows of the inbox in `directory` that arrived since then, ascending, while another process may be writing it.

    Raises:
        ConfigError: There is no inbox that this program can read.
        StorageError: A row cannot be read.
    """
    reader = open_reader(directory / FILE, SCHEMA)
    try:
        last_before = "SELECT seq FROM inbox WHERE arrived_ns < ? ORDER BY seq DESC LIMIT 1"
        after = _one(reader, f"SELECT coalesce(({last_before}), 0)", (since_ns,))
        while True:
            found = reader.execute(
                "SELECT seq, kind, encoding, arrived_ns, speaker, after_row, after_index, size, packed, body"
                " FROM inbox WHERE seq > ? ORDER BY seq LIMIT 16",
                (after,),
            ).fetchall()
            if not found:
                return
            for values in found:
                after, row = _row(values)
                yield after, row
    except (apsw.Error, msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise StorageError(f"{FILE}: cannot be read: {error}") from error
    finally:
        reader.close()
