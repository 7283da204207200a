"""control.db: what the sidecar has decided, and the audit log; changed together or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec
from msgspec import Struct

from sidecar.core.alerts import Alert
from sidecar.core.commands import Cause
from sidecar.core.events import SessionKey
from sidecar.errors import StorageError
from sidecar.storage import audit
from sidecar.storage.audit import Entry, Head, Instant, Record, Verdict
from sidecar.storage.records import (
    Approval,
    ControlBatch,
    ControlState,
    Grant,
    Request,
    RequestExistsError,
    SavedRun,
    SavedScope,
    fit,
)
from sidecar.storage.settings import StorageSettings
from sidecar.storage.sqlite import Database, Schema, open_reader, open_writer
from sidecar.storage.writer import Ballast, Work, Writer

FILE = "control.db"
BALLAST_FILE = "control.ballast"
REQUEST_AGE_S = 86400.0
GRANT_AGE_S = 600.0
_PAGE = 1000

SCHEMA = Schema(
    name="control",
    application_id=0x53435443,  # "SCTC"
    migrations=(
        # A document is the whole value as JSON; the columns beside it are what is searched by.
        """
        CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
        INSERT INTO meta VALUES ('log', lower(hex(randomblob(16))));

        CREATE TABLE runs (                         -- run state of every session that was ever held
            realm TEXT NOT NULL,
            session TEXT NOT NULL,
            desired TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            pause_id TEXT NOT NULL,
            at_ns INTEGER NOT NULL,
            document TEXT NOT NULL,
            PRIMARY KEY (realm, session)
        ) STRICT;
        CREATE INDEX runs_by_state ON runs (desired, at_ns);
        CREATE TRIGGER runs_epoch BEFORE UPDATE ON runs WHEN new.epoch < old.epoch
            BEGIN SELECT RAISE(ABORT, 'an epoch never goes back'); END;
        CREATE TRIGGER runs_final BEFORE UPDATE ON runs
            WHEN old.desired = 'terminated' AND new.desired <> 'terminated'
            BEGIN SELECT RAISE(ABORT, 'a terminated session stays so'); END;

        CREATE TABLE scopes (                       -- pauses of a role or the fleet; they meet later sessions, too
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            desired TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            pause_id TEXT NOT NULL,
            at_ns INTEGER NOT NULL,
            document TEXT NOT NULL,
            PRIMARY KEY (kind, name)
        ) STRICT;
        CREATE TRIGGER scopes_epoch BEFORE UPDATE ON scopes WHEN new.epoch < old.epoch
            BEGIN SELECT RAISE(ABORT, 'an epoch never goes back'); END;

        CREATE TABLE alerts (
            fingerprint TEXT PRIMARY KEY,
            realm TEXT NOT NULL,
            session TEXT NOT NULL,
            state TEXT NOT NULL,
            opened_ns INTEGER NOT NULL,
            last_ns INTEGER NOT NULL,
            document TEXT NOT NULL
        ) STRICT;
        CREATE INDEX alerts_by_state ON alerts (state, opened_ns);
        CREATE INDEX alerts_by_age ON alerts (opened_ns);
        CREATE INDEX alerts_by_session ON alerts (realm, session, opened_ns);

        CREATE TABLE approvals (
            decision_id TEXT PRIMARY KEY,
            state TEXT NOT NULL,
            asked_ns INTEGER NOT NULL,
            document TEXT NOT NULL
        ) STRICT;
        CREATE INDEX approvals_by_state ON approvals (state, asked_ns);

        CREATE TABLE grants (
            grant_id TEXT PRIMARY KEY,
            digest BLOB NOT NULL,
            realm TEXT NOT NULL,
            session TEXT NOT NULL,
            role TEXT NOT NULL,
            decision_id TEXT NOT NULL,
            expires_ns INTEGER NOT NULL,            -- wall clock, for people and for pruning
            expires_boot_ns INTEGER NOT NULL,       -- what counts, with boot_id
            boot_id TEXT NOT NULL,
            consumed_ns INTEGER NOT NULL DEFAULT 0,
            void INTEGER NOT NULL DEFAULT 0         -- a pause came before it was redeemed
        ) STRICT;
        CREATE INDEX grants_by_session ON grants (realm, session);
        CREATE INDEX grants_by_expiry ON grants (expires_ns);

        CREATE TABLE requests (                     -- what was answered, for those who ask again
            actor TEXT NOT NULL,
            request_id TEXT NOT NULL,
            digest BLOB NOT NULL,
            answer BLOB NOT NULL,
            at_ns INTEGER NOT NULL,
            PRIMARY KEY (actor, request_id)
        ) STRICT;
        CREATE INDEX requests_by_age ON requests (at_ns);

        CREATE TABLE audit (
            seq INTEGER PRIMARY KEY,
            record BLOB NOT NULL,                   -- canonical JSON
            hash BLOB NOT NULL                      -- of this record and all before it
        ) STRICT;
        """,
    ),
)

_PUT_RUN = """
    INSERT INTO runs (realm, session, desired, epoch, pause_id, at_ns, document) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET desired = excluded.desired, epoch = excluded.epoch, pause_id = excluded.pause_id,
        at_ns = excluded.at_ns, document = excluded.document"""
_PUT_SCOPE = """
    INSERT INTO scopes (kind, name, desired, epoch, pause_id, at_ns, document) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET desired = excluded.desired, epoch = excluded.epoch, pause_id = excluded.pause_id,
        at_ns = excluded.at_ns, document = excluded.document"""
_PUT_ALERT = """
    INSERT INTO alerts (fingerprint, realm, session, state, opened_ns, last_ns, document) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET realm = excluded.realm, session = excluded.session, state = excluded.state,
        opened_ns = excluded.opened_ns, last_ns = excluded.last_ns, document = excluded.document"""
_PUT_APPROVAL = """
    INSERT INTO approvals (decision_id, state, asked_ns, document) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET state = excluded.state, asked_ns = excluded.asked_ns, document = excluded.document"""
_ADD_GRANT = """
    INSERT INTO grants (grant_id, digest, realm, session, role, decision_id, expires_ns, expires_boot_ns, boot_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_ADD_REQUEST = "INSERT INTO requests (actor, request_id, digest, answer, at_ns) VALUES (?, ?, ?, ?, ?)"
_REQUEST = "SELECT actor, request_id, digest, answer, at_ns FROM requests WHERE actor = ? AND request_id = ?"
_VOID_OF_SESSION = "UPDATE grants SET void = 1 WHERE realm = ? AND session = ? AND consumed_ns = 0"
_VOID_OF_ROLE = "UPDATE grants SET void = 1 WHERE role = ? AND consumed_ns = 0"
_VOID_ALL = "UPDATE grants SET void = 1 WHERE consumed_ns = 0"
_MOVE_GRANTS = "UPDATE grants SET realm = ?, session = ? WHERE realm = ? AND session = ?"
_CONSUME = """
    UPDATE grants SET consumed_ns = ?
    WHERE grant_id = ? AND consumed_ns = 0 AND void = 0 AND boot_id = ? AND expires_boot_ns > ?"""
_LIVE_GRANTS = """
    SELECT grant_id, digest, realm, session, role, decision_id, expires_ns, expires_boot_ns, boot_id FROM grants
    WHERE consumed_ns = 0 AND void = 0 AND boot_id = ? AND expires_boot_ns > ? ORDER BY grant_id"""
_ALERTS = """
    SELECT document FROM alerts WHERE (state = 'firing' OR ?1) ORDER BY opened_ns DESC, fingerprint LIMIT ?2"""
_ALERTS_OF_SESSION = """
    SELECT document FROM alerts WHERE realm = ?3 AND session = ?4 AND (state = 'firing' OR ?1)
    ORDER BY opened_ns DESC, fingerprint LIMIT ?2"""
_HEAD = """
    SELECT (SELECT value FROM meta WHERE name = 'log'), seq, hash FROM audit ORDER BY seq DESC LIMIT 1"""
_PRUNE = (  # statements that remove at most a page, and the age they go by
    ("DELETE FROM grants WHERE rowid IN (SELECT rowid FROM grants WHERE expires_ns < ? LIMIT ?)", "grant"),
    ("DELETE FROM requests WHERE rowid IN (SELECT rowid FROM requests WHERE at_ns < ? LIMIT ?)", "request"),
    (
        "DELETE FROM alerts WHERE rowid IN"
        " (SELECT rowid FROM alerts WHERE state = 'resolved' AND opened_ns < ?1 AND last_ns < ?1 LIMIT ?2)",
        "history",
    ),
    (
        "DELETE FROM approvals WHERE rowid IN"
        " (SELECT rowid FROM approvals WHERE state IN ('approved', 'denied', 'expired') AND asked_ns < ? LIMIT ?)",
        "history",
    ),
    (
        "DELETE FROM runs WHERE rowid IN (SELECT rowid FROM runs WHERE desired = 'running' AND at_ns < ? LIMIT ?)",
        "history",
    ),
)

T = TypeVar("T", bound=Struct)
Values = tuple[Any, ...]


class ControlReader:
    """Reads control.db, from any thread or process. Raises `StorageError` where the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._connection = open_reader(path, SCHEMA)
        self._reading = threading.Lock()

    def close_reader(self) -> None:
        """Ends reading."""
        with self._reading:
            self._connection.close()

    def load(self, now: Instant) -> ControlState:
        """What was in force when the sidecar stopped; `now` tells which grants still are."""
        with self._reading, _reporting():
            self._connection.execute("BEGIN")  # one snapshot for all of it
            try:
                return _load(self._connection, now)
            finally:
                self._connection.execute("COMMIT")

    def run(self, session: SessionKey) -> SavedRun | None:
        """The run state on record, None when the session was never held."""
        return self._one(
            "SELECT document FROM runs WHERE realm = ? AND session = ?", (session.realm, session.id), SavedRun
        )

    def alert(self, fingerprint: str) -> Alert | None:
        """One alert, None when there is none of that fingerprint."""
        return self._one("SELECT document FROM alerts WHERE fingerprint = ?", (fingerprint,), Alert)

    def alerts(self, *, session: SessionKey | None = None, resolved: bool = False, limit: int = 100) -> list[Alert]:
        """Alerts, the newest first; firing ones, or with `resolved` all."""
        if session is None:
            return self._all(_ALERTS, (resolved, limit), Alert)
        return self._all(_ALERTS_OF_SESSION, (resolved, limit, session.realm, session.id), Alert)

    def approval(self, decision_id: str) -> Approval | None:
        """One approval, None when there is none of that id."""
        return self._one("SELECT document FROM approvals WHERE decision_id = ?", (decision_id,), Approval)

    def approvals(self, *, decided: bool = False, limit: int = 100) -> list[Approval]:
        """Open approvals, the oldest first; with `decided` all, the newest first."""
        if decided:
            return self._all("SELECT document FROM approvals ORDER BY asked_ns DESC LIMIT ?", (limit,), Approval)
        sql = "SELECT document FROM approvals WHERE state = 'open' ORDER BY asked_ns LIMIT ?"
        return self._all(sql, (limit,), Approval)

    def request(self, actor: str, request_id: str) -> Request | None:
        """What was answered to that request, None when it is new."""
        rows = self._rows(_REQUEST, (actor, request_id))
        return Request(*rows[0]) if rows else None

    def audit_after(self, seq: int, limit: int = 100) -> list[Record]:
        """Audit records with a number above `seq`, ascending."""
        rows = self._rows("SELECT record, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
        with _reporting():
            return [audit.record(body, chain) for body, chain in rows]

    def head(self) -> Head:
        """Where the audit log ends now; what a witness is to keep."""
        if rows := self._rows(_HEAD):
            return Head(*rows[0])
        log = self._log()
        return Head(log, 0, audit.origin(log))

    def verify_audit(self, head: Head | None = None) -> Verdict:
        """Walks the audit log from its first record; reads a page at a time, so that writing goes on.

        Args:
            head: What a witness has seen; without one, a log cut off at its end looks whole.
        """
        try:
            return audit.verify(self._log(), self._audit_rows(), head)
        except StorageError as error:
            return Verdict("cannot tell", 0, str(error))

    def _log(self) -> str:
        rows = self._rows("SELECT value FROM meta WHERE name = 'log'")
        return str(rows[0][0]) if rows else ""

    def _audit_rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        rows: list[Any] = self._rows("SELECT seq, record, hash FROM audit ORDER BY seq LIMIT ?", (_PAGE,))
        while rows:
            yield from rows
            sql = "SELECT seq, record, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self._rows(sql, (rows[-1][0], _PAGE))

    def _one(self, sql: str, values: Values, type_: type[T]) -> T | None:
        found = self._all(sql, values, type_)
        return found[0] if found else None

    def _all(self, sql: str, values: Values, type_: type[T]) -> list[T]:
        rows = self._rows(sql, values)
        with _reporting():
            return [msgspec.json.decode(document, type=type_) for (document,) in rows]

    def _rows(self, sql: str, values: Values = ()) -> list[Values]:
        with self._reading, _reporting():
            return self._connection.execute(sql, values).fetchall()


class ControlStore(ControlReader):
    """Owns control.db. Writes belong to one event loop; reads may come from any thread."""

    def __init__(self, database: Database, settings: StorageSettings) -> None:
        super().__init__(database.path)
        self._settings = settings
        ballast = Ballast(database.path.with_name(BALLAST_FILE), settings.ballast_bytes)
        self._writer = Writer(database, ballast=ballast)

    @classmethod
    def open(cls, settings: StorageSettings, *, create: bool = False) -> ControlStore:
        """Opens or makes ``control.db`` in the data directory.

        Args:
            create: Make a missing data directory.

        Raises:
            ConfigError: See `sqlite.open_writer`.
        """
        database = open_writer(settings.data_dir / FILE, SCHEMA, create=create)
        try:
            return cls(database, settings)
        except BaseException:
            database.close()
            raise

    @property
    def writer(self) -> Writer:
        """For its `failed` event, its counters and `is_low` (the disk is full, only pauses are stored)."""
        return self._writer

    async def close(self) -> None:
        """Commits what is queued and lets go of the file."""
        self.close_reader()
        await self._writer.close()

    async def commit(self, batch: ControlBatch, *, durable: bool) -> None:
        """Stores `batch` in one transaction; batches are committed in the order of these calls.

        A session, role or fleet that is held or ended loses its grants that were not redeemed.

        Args:
            durable: Come back when it is on the disk. Else at once: it is committed within 20 ms, and if that fails
                it is counted in ``writer.lost``.

        Raises:
            RequestExistsError: One of its request ids was used before.
            DiskFullError: No room, and it is no pause, or the ballast is spent, too.
            StorageError: The commit failed, or the database is out of service.
            ValueError: It changes something that must be audited and has no audit entry.
        """
        if durable:
            await self._writer.submit(_work(batch), urgent=True, vital=batch.is_vital)
        else:
            self.post(batch)

    def post(self, batch: ControlBatch) -> None:
        """`commit`, not durable, for callers that cannot wait: its place in the order is taken now.

        Raises:
            As `commit`, as far as that is known at once.
        """
        self._writer.post(_work(batch), vital=batch.is_vital)

    async def consume_grant(self, grant_id: str, now: Instant, entry: Entry | None = None) -> bool:
        """Redeems a grant, durably; True for one caller at most, and only while it is in force.

        Args:
            entry: Put on record if, and only if, the grant was redeemed.
        """
        if entry is not None:
            entry = fit(entry)[0]
            audit.check(entry)
        return await self._writer.submit(partial(_consume, grant_id, now, entry), urgent=True)

    async def prune(self, now: Instant) -> int:
        """Removes what nobody can need: grants ten minutes after they expired, requests after a day, and after
        `control_max_age_s` resolved alerts, decided approvals and run states of running sessions. Run states of held
        and ended sessions stay, as does the audit log.

        Returns:
            Rows removed.
        """
        ages_s = {"grant": GRANT_AGE_S, "request": REQUEST_AGE_S, "history": self._settings.control_max_age_s}
        steps = [(sql, now.at_ns - int(ages_s[kind] * 1e9)) for sql, kind in _PRUNE]
        total = 0
        while removed := await self._writer.submit(partial(_prune, steps)):
            total += removed
        return total


def _work(batch: ControlBatch) -> Work[None]:
    return partial(_write, _statements(batch), [fit(request)[0] for request in batch.requests], _entries(batch))


def _entries(batch: ControlBatch) -> list[Entry]:
    decided = any(approval.state != "open" for approval in batch.approvals)
    if (batch.moves or batch.runs or batch.scopes or batch.grants or decided) and not batch.audit:
        raise ValueError("a change of run state, a grant or a decision needs an audit entry")
    entries = [fit(entry)[0] for entry in batch.audit]
    for entry in entries:
        audit.check(entry)
    return entries


def _statements(batch: ControlBatch) -> list[tuple[str, Values]]:
    """What `batch` means to SQLite; made before it waits for the disk, so that a mistake is the caller's at once."""
    made: list[tuple[str, Values]] = []
    for pair in batch.moves:
        old, new = (fit(session)[0] for session in pair)
        made.append(("DELETE FROM runs WHERE realm = ? AND session = ?", (old.realm, old.id)))
        made.append((_MOVE_GRANTS, (new.realm, new.id, old.realm, old.id)))
    voids: list[tuple[str, Values]] = []
    for run in batch.runs:
        run, document = fit(run)
        realm, id_ = run.session.realm, run.session.id
        made.append((_PUT_RUN, (realm, id_, run.desired, run.epoch, run.pause_id, run.at_ns, document)))
        if run.desired != "running":
            voids += [(_VOID_OF_SESSION, (realm, name)) for name in (id_, *run.aliases)]
    for scope in batch.scopes:
        scope, document = fit(scope)
        kind, name = scope.kind, scope.name
        made.append((_PUT_SCOPE, (kind, name, scope.desired, scope.epoch, scope.pause_id, scope.at_ns, document)))
        if scope.desired != "running":
            voids.append((_VOID_ALL, ()) if kind == "fleet" else (_VOID_OF_ROLE, (name,)))
    for alert in batch.alerts:
        alert, document = fit(alert)
        realm, id_ = alert.session.realm, alert.session.id
        values = (alert.fingerprint, realm, id_, alert.state, alert.opened_ns, alert.last_ns, document)
        made.append((_PUT_ALERT, values))
    for approval in batch.approvals:
        approval, document = fit(approval)
        made.append((_PUT_APPROVAL, (approval.decision_id, approval.state, approval.asked_ns, document)))
    for grant in batch.grants:
        grant = fit(grant)[0]
        whose = (grant.session.realm, grant.session.id, grant.role, grant.decision_id)
        until = (grant.expires.at_ns, grant.expires.boot_ns, grant.expires.boot_id)
        made.append((_ADD_GRANT, (grant.grant_id, grant.digest, *whose, *until)))
    return made + voids


def _write(
    statements: list[tuple[str, Values]], requests: list[Request], entries: list[Entry], connection: apsw.Connection
) -> None:
    for request in requests:
        there = connection.execute(_REQUEST, (request.actor, request.request_id)).fetchall()
        if there:
            raise RequestExistsError(_request(there[0]))
        values = (request.actor, request.request_id, request.digest, request.answer, request.at_ns)
        connection.execute(_ADD_REQUEST, values)
    for sql, values in statements:
        connection.execute(sql, values)
    _append_audit(entries, connection)


def _append_audit(entries: list[Entry], connection: apsw.Connection) -> None:
    """Gives each entry its number and its place in the chain.

    The end of the chain is read, not remembered, so that a transaction rolled back leaves no trace.
    """
    if not entries:
        return
    seq, chain = _end(connection)
    for entry in entries:
        seq += 1
        body = audit.body(seq, entry)
        chain = audit.link(chain, body)
        connection.execute("INSERT INTO audit (seq, record, hash) VALUES (?, ?, ?)", (seq, body, chain))


def _end(connection: apsw.Connection) -> tuple[int, bytes]:
    last: Values | None = connection.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").get
    if last is not None:
        return last[0], last[1]
    return 0, audit.origin(connection.execute("SELECT value FROM meta WHERE name = 'log'").get)


def _consume(grant_id: str, now: Instant, entry: Entry | None, connection: apsw.Connection) -> bool:
    connection.execute(_CONSUME, (max(1, now.at_ns), grant_id, now.boot_id, now.boot_ns))
    if connection.changes() != 1:
        return False
    if entry is not None:
        _append_audit([entry], connection)
    return True


def _prune(steps: list[tuple[str, int]], connection: apsw.Connection) -> int:
    removed = 0
    for sql, before_ns in steps:
        connection.execute(sql, (before_ns, _PAGE))
        removed += connection.changes()
    return removed


def _load(connection: apsw.Connection, now: Instant) -> ControlState:
    unreadable: list[str] = []

    def documents(table: str, sql: str, type_: type[T]) -> Iterator[tuple[Values, T | None]]:
        for *key, document in connection.execute(sql):
            try:
                yield tuple(key), msgspec.json.decode(str(document), type=type_)
            except msgspec.MsgspecError:
                unreadable.append("/".join((table, *map(str, key[:2]))))
                yield tuple(key), None

    sql = "SELECT realm, session, desired, epoch, pause_id, at_ns, document FROM runs WHERE desired <> 'running'"
    runs = [
        run or SavedRun(SessionKey(realm, id_), desired, epoch, at_ns, "requested", pause_id, (_lost(pause_id, at_ns),))
        for (realm, id_, desired, epoch, pause_id, at_ns), run in documents("runs", sql, SavedRun)
    ]
    sql = "SELECT kind, name, desired, epoch, pause_id, at_ns, document FROM scopes WHERE desired <> 'running'"
    scopes = [
        scope or SavedScope(kind, name, desired, epoch, at_ns, pause_id, (_lost(pause_id, at_ns),))
        for (kind, name, desired, epoch, pause_id, at_ns), scope in documents("scopes", sql, SavedScope)
    ]
    sql = "SELECT fingerprint, document FROM alerts WHERE state = 'firing' ORDER BY opened_ns, fingerprint"
    alerts = [alert for _, alert in documents("alerts", sql, Alert) if alert is not None]
    sql = "SELECT decision_id, document FROM approvals WHERE state = 'open' ORDER BY asked_ns, decision_id"
    approvals = [approval for _, approval in documents("approvals", sql, Approval) if approval is not None]
    epochs: list[Values] = connection.execute("SELECT realm, session, epoch FROM runs").fetchall()
    grants: list[Values] = connection.execute(_LIVE_GRANTS, (now.boot_id, now.boot_ns)).fetchall()
    return ControlState(
        runs=runs,
        epochs={SessionKey(realm, id_): epoch for realm, id_, epoch in epochs},
        scopes=scopes,
        alerts=alerts,
        approvals=approvals,
        grants=[_grant(values) for values in grants],
        unreadable=unreadable,
    )


def _lost(pause_id: str, at_ns: int) -> Cause:
    return Cause(pause_id, "policy", "storage", "the causes on record cannot be read", at_ns)


def _grant(values: Values) -> Grant:
    grant_id, digest, realm, id_, role, decision_id, at_ns, boot_ns, boot_id = values
    return Grant(grant_id, digest, SessionKey(realm, id_), Instant(at_ns, boot_ns, boot_id), role, decision_id)


def _request(values: Values) -> Request:
    return Request(*values)


@contextmanager
def _reporting() -> Iterator[None]:
    """Turns what goes wrong while reading into a `StorageError`."""
    try:
        yield
    except (apsw.Error, msgspec.MsgspecError) as error:
        raise StorageError(f"{FILE} cannot be read: {error}") from error
