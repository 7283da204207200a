"""Opening database files so that nothing is trusted, shared or created by accident.

Whatever is wrong with a file is the operator's to mend, so all of it is a `ConfigError` that names the file; nothing
is repaired, replaced or created beside it in silence.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
from msgspec import Struct

from sidecar.errors import ConfigError

log = logging.getLogger(__name__)

_SAFE_SQLITE = (3, 51, 3)
_NETWORK_FILESYSTEMS = {  # f_type of statfs(2); locks and shared memory of WAL do not hold there
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x73757245: "Coda",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
}


class Schema(Struct, frozen=True):
    """What a database file holds.

    Attributes:
        application_id: In the file's header; says whose database it is.
        migrations: SQL scripts, each from one `user_version` to the next; the newest schema is their number.
    """

    name: str
    application_id: int
    migrations: tuple[str, ...]

    @property
    def version(self) -> int:
        return len(self.migrations)


class Lock:
    """Holds a database for this process; the kernel lets go of it however the process ends.

    Raises:
        ConfigError: Another instance holds it; says which.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot be locked: {error.strerror}", file=str(path)) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 64, 0).decode("ascii", "replace")
            os.close(self._fd)
            if error.errno != errno.EWOULDBLOCK:
                raise ConfigError(f"cannot be locked: {error.strerror}", file=str(path)) from error
            raise ConfigError(f"another instance uses it: {_holder(holder)}", file=str(database)) from error
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {started}\n".encode(), 0)

    def release(self) -> None:
        """Lets go. The file stays: removing it would let two instances lock two files of one name."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


class Database:
    """A database file that this process owns: the lock and the one connection that writes."""

    def __init__(self, path: Path, connection: apsw.Connection, lock: Lock) -> None:
        self.path, self.connection, self._lock = path, connection, lock
        self._files = {file: _identity(file) for file in (path, path.with_name(path.name + "-wal"))}

    def is_moved(self) -> bool:
        """Whether the file or its log was removed or replaced under us: what we commit then is lost."""
        return any(_identity(file) != identity for file, identity in self._files.items())

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes and unlocks. After a failed write nothing more may be moved into the file: `checkpoint` is False."""
        if not checkpoint:
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.connection.close(force=True)
        self._lock.release()


def sqlite_warning() -> str:
    """Says that the SQLite in use has a known corruption bug; "" when it has not.

    Source: sqlite.org/wal.html#walresetbug, 3.7.0 to 3.51.2.
    """
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) >= _SAFE_SQLITE:
        return ""
    return f"SQLite {version} can corrupt a database in WAL mode (WAL-reset bug); use apsw with 3.51.3 or newer"


def prepare_directory(directory: Path, *, create: bool = False) -> None:
    """Checks that a data directory is there, local, writable and closed to other users.

    Args:
        create: Make it, with its parents, when it is missing.

    Raises:
        ConfigError: It is not fit; the message says what to do.
    """
    where = str(directory)
    try:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except FileNotFoundError as error:
        raise ConfigError("there is no such directory; create it with mode 0700", file=where) from error
    except OSError as error:
        raise ConfigError(f"not a directory we can use: {error.strerror}", file=where) from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError("is not a directory", file=where)
    _check_owner(directory, status, wanted=0o700)
    if name := _NETWORK_FILESYSTEMS.get(filesystem_type(directory)):
        raise ConfigError(f"lies on a network file system ({name}); use a local disk", file=where)
    if os.statvfs(directory).f_flag & os.ST_RDONLY or not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError("is read-only", file=where)


def check_file(path: Path) -> bool:
    """Whether a file is there, and fit to be ours: regular, one name, our own, closed to other users.

    Raises:
        ConfigError: It is there and not fit.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError("is not a regular file", file=str(path))
    if status.st_nlink != 1:
        raise ConfigError("has a second name (hard link)", file=str(path))
    _check_owner(path, status, wanted=0o600)
    return True


def open_writer(path: Path, schema: Schema, *, create: bool = False) -> Database:
    """Opens a database for writing, made if it is missing and migrated if it is older.

    Args:
        create: Make a missing directory, too.

    Raises:
        ConfigError: The directory or file is not fit, in use, damaged, newer than this program, or not ours.
    """
    prepare_directory(path.parent, create=create)
    lock = Lock(path)
    try:
        if warning := sqlite_warning():
            log.warning("%s", warning)
        with _naming(path):
            _check_files(path, schema)
            if not path.exists():
                _create(path, schema)
            connection = _connect(path, schema)
            return Database(path, connection, lock)
    except BaseException:
        lock.release()
        raise


def open_reader(path: Path, schema: Schema) -> apsw.Connection:
    """Opens a database for reading only, also while another process writes it. Read with short transactions.

    Raises:
        ConfigError: The file is missing, not ours, or of another schema than this program's.
    """
    with _naming(path):
        if not check_file(path):
            raise ConfigError("there is no such database", file=str(path))
        _check_files(path, schema)
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            _configure(connection)
            connection.pragma("query_only", 1)
            version = connection.pragma("user_version")
            if version != schema.version:
                raise ConfigError(f"has schema {version}, this program reads {schema.version}", file=str(path))
        except BaseException:
            connection.close()
            raise
        return connection


def filesystem_type(path: Path) -> int:
    """`f_type` of the file system that holds `path`; 0 where the platform has none."""
    if not sys.platform.startswith("linux"):
        return 0
    buffer = ctypes.create_string_buffer(256)  # struct statfs, f_type first, a machine word
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        code = ctypes.get_errno()
        raise ConfigError(f"cannot be examined: {os.strerror(code)}", file=str(path))
    return int(struct.unpack_from("@l", buffer)[0]) & 0xFFFFFFFF


def free_bytes(directory: Path) -> int:
    """Space on the disk that this user can still fill."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def _holder(text: str) -> str:
    """The holder's name out of a lock file, which anyone of our user may have written."""
    words = text.split()
    if len(words) == 2 and words[0].isdecimal() and words[1].translate(str.maketrans("", "", "-:")).isalnum():
        return f"process {words[0]}, started {words[1]}"
    return "an unnamed process"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _check_owner(path: Path, status: os.stat_result, *, wanted: int) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(f"belongs to user {status.st_uid}, this process runs as {os.geteuid()}", file=str(path))
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"is open to other users (mode {mode:04o}); chmod {wanted:o} it", file=str(path))


def _check_files(path: Path, schema: Schema) -> None:
    """Refuses what SQLite would take in silence. The file is looked at, not opened: opening recovers its log."""
    there = check_file(path)
    for suffix in ("-wal", "-journal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if check_file(beside) and not there and suffix != "-shm":
            raise ConfigError(f"is missing, but {beside.name} is there; restore both or remove it", file=str(path))
    if not there:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise ConfigError("is not a database", file=str(path))
    application_id = int.from_bytes(header[68:72], "big")
    if application_id != schema.application_id:
        raise ConfigError(f"is not a {schema.name} database of this program", file=str(path))


def _create(path: Path, schema: Schema) -> None:
    """Makes an empty database of ours beside its place and moves it there whole."""
    new = path.with_name(path.name + ".new")
    for leftover in (new, new.with_name(new.name + "-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    connection = apsw.Connection(str(new), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.pragma("synchronous", "FULL")
    connection.pragma("application_id", schema.application_id)
    connection.close()
    new.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes a rename in `directory` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _configure(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(5000)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    for name, value in (
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("mmap_size", 0),
        ("temp_store", 2),
    ):
        connection.pragma(name, value)


def _connect(path: Path, schema: Schema) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _configure(connection)
        version = connection.pragma("user_version")
        if version > schema.version:
            raise ConfigError(
                f"has schema {version}, newer than this program's {schema.version}; use a newer program", file=str(path)
            )
        if (verdict := connection.pragma("quick_check", 1)) != "ok":
            raise ConfigError(f"is damaged: {verdict}", file=str(path))
        if connection.pragma("journal_mode", "WAL") != "wal":
            raise ConfigError("does not take write-ahead logging", file=str(path))
        connection.pragma("synchronous", "FULL")
        connection.pragma("secure_delete", "fast")
        connection.pragma("journal_size_limit", 64 * 2**20)
        # SQLite's own checkpoints swallow the errors of their fsync, and a later one may then succeed with pages
        # missing; so the writer thread makes them itself and sees each error (`writer.Writer`).
        connection.wal_autocheckpoint(0)
        _migrate(connection, schema, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: apsw.Connection, schema: Schema, version: int) -> None:
    """Brings the schema up to date, all steps in one transaction."""
    if version == schema.version:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in schema.migrations[version:]:
            connection.execute(script)
        connection.execute(f"PRAGMA user_version = {schema.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns what SQLite and the system say into the operator's terms."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise ConfigError(f"is damaged or not a database: {error}", file=str(path)) from error
    except apsw.Error as error:
        raise ConfigError(f"cannot be opened: {error}", file=str(path)) from error
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise ConfigError(f"cannot be opened: {reason}", file=str(path)) from error
