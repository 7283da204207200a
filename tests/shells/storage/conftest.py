"""A data directory, and a disk that fails on demand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from sidecar.storage import StorageSettings
from sidecar.storage.sqlite import Database, Lock, Schema, open_writer

MIB = 2**20
NOTES = Schema("notes", 0x4E4F5445, ("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE) STRICT",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def settings(data: Path) -> StorageSettings:
    return StorageSettings(data_dir=data, low_water_bytes=MIB, ballast_bytes=MIB)


class FailingDisk(apsw.VFS):
    """A file system whose syncs and writes fail while `error` is set (an extended result code)."""

    def __init__(self, name: str) -> None:
        self.sync_error = self.write_error = 0
        self.only = ""  # "" every file, else those whose name ends so
        self.errno = 0
        self.syncs = 0
        super().__init__(name, "")
        self.name = name

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        return _FailingFile(self, path, name, flags)

    def xGetLastError(self) -> tuple[int, str]:
        return self.errno, "on demand"


class _FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk, self._path = disk, path
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.sync_error and self._path.endswith(self._disk.only):
            raise apsw.exception_for(self._disk.sync_error)
        self._disk.syncs += 1
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.write_error and self._path.endswith(self._disk.only):
            raise apsw.exception_for(self._disk.write_error)
        super().xWrite(data, offset)


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    disk = FailingDisk("failing")
    yield disk
    disk.unregister()


def notes_on(disk: FailingDisk, directory: Path) -> Database:
    """The notes database, its writer's connection on `disk`."""
    path = directory / "notes.db"
    open_writer(path, NOTES).close()
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=disk.name)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.execute("SELECT count(*) FROM notes").get  # noqa: B018
    return Database(path, connection, Lock(path))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB, with a data directory on it."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", mount], capture_output=True)
    if made.returncode != 0:
        pytest.skip("mount: a small tmpfs needs root")
    try:
        directory = mount / "data"
        directory.mkdir(mode=0o700)
        yield directory
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
