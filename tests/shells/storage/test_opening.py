"""What is refused before a database is opened, and what opening leaves behind (bad inputs 85 and 86)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from sidecar.errors import ConfigError
from sidecar.storage import ControlStore, StorageSettings, TelemetryStore, sqlite
from sidecar.storage.control import SCHEMA as CONTROL
from sidecar.storage.sqlite import Schema, open_reader, open_writer

from .conftest import NOTES


def refusal(path: Path, schema: Schema = NOTES) -> str:
    """What is said when `path` is refused; nothing may have been made or changed by trying."""
    before = listing(path.parent)
    with pytest.raises(ConfigError) as caught:
        open_writer(path, schema).close()
    assert str(caught.value).startswith(caught.value.file)
    assert Path(caught.value.file).is_absolute()
    assert listing(path.parent) == before
    return caught.value.message


def listing(directory: Path) -> dict[str, bytes | None]:
    if not directory.is_dir():
        return {}
    files = (file for file in directory.iterdir() if file.suffix != ".lock")
    return {file.name: file.read_bytes() if stat.S_ISREG(file.lstat().st_mode) else None for file in files}


def test_a_new_database_is_closed_to_others_and_set_up_as_documented(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    for file in data.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    pragma = database.connection.pragma
    names = "journal_mode synchronous foreign_keys trusted_schema cell_size_check mmap_size temp_store secure_delete"
    assert [pragma(name) for name in names.split()] == ["wal", 2, 1, 0, 1, 0, 2, 2]
    assert (pragma("user_version"), pragma("application_id")) == (1, NOTES.application_id)
    assert pragma("journal_size_limit") == 64 * 2**20
    assert (pragma("busy_timeout"), pragma("wal_autocheckpoint")) == (5000, 0)
    database.close()
    assert sorted(file.name for file in data.iterdir()) == ["notes.db", "notes.db.lock"]


def test_what_was_written_is_there_after_opening_again(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    database.connection.execute("INSERT INTO notes VALUES (1, 'a')")
    database.close()
    database = open_writer(data / "notes.db", NOTES)
    assert database.connection.execute("SELECT text FROM notes").get == "a"
    database.close()


def test_a_missing_directory_is_made_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "notes.db"
    assert "no such directory" in refusal(path)
    assert not path.parent.exists()
    open_writer(path, NOTES, create=True).close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def overwrite(content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(0o600)

    return spoil


def other_program(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    path.chmod(0o600)


def newer(path: Path) -> None:
    database = open_writer(path, NOTES)
    database.connection.pragma("user_version", 7)
    database.close()


def damaged(path: Path) -> None:
    database = open_writer(path, NOTES)
    for number in range(2000):
        database.connection.execute("INSERT INTO notes VALUES (?, ?)", (number, "x" * 50 + str(number)))
    database.close()
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = bytes(64)
    path.write_bytes(content)


def log_without_database(path: Path) -> None:
    overwrite(b"x" * 4096)(path.with_name(path.name + "-wal"))


def journal_without_database(path: Path) -> None:
    overwrite(b"x" * 4096)(path.with_name(path.name + "-journal"))


def linked(path: Path) -> None:
    overwrite(b"")(path)
    path.with_name("second").hardlink_to(path)


def open_to_all(path: Path) -> None:
    open_writer(path, NOTES).close()
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (overwrite(b""), "not a database"),
        (overwrite(b"hello"), "not a database"),
        (overwrite(os.urandom(8192)), "not a database"),
        (overwrite(b"SQLite format 3\0" + bytes(50)), "not a database"),
        (overwrite(b"SQLite format 3\0" + bytes(8176)), "not a notes database"),
        (other_program, "not a notes database"),
        (newer, "schema 7, newer than this program's 1"),
        (damaged, "is damaged"),
        (log_without_database, "notes.db-wal is there"),
        (journal_without_database, "notes.db-journal is there"),
        (linked, "second name"),
        (open_to_all, "open to other users (mode 0644); chmod 600"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path, 0o600), "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "not a regular file"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_our_sound_database_is_refused_and_left_alone(
    data: Path, spoil: Callable[[Path], None], says: str
) -> None:
    path = data / "notes.db"
    spoil(path)
    assert says in refusal(path)


def test_a_database_of_another_of_our_kinds_is_refused(data: Path) -> None:
    open_writer(data / "notes.db", NOTES).close()
    assert "not a control database" in refusal(data / "notes.db", CONTROL)


def test_a_directory_open_to_others_is_refused(data: Path) -> None:
    data.chmod(0o750)
    assert "mode 0750" in refusal(data / "notes.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="chown: needs root")
@pytest.mark.parametrize("which", ["directory", "file"])
def test_what_belongs_to_another_user_is_refused(data: Path, which: str) -> None:
    path = data / "notes.db"
    open_writer(path, NOTES).close()
    os.chown(data if which == "directory" else path, 12345, -1)
    assert "belongs to user 12345" in refusal(path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert "not a directory" in refusal(tmp_path / "data" / "notes.db")
    with pytest.raises(ConfigError, match="not a directory"):
        open_writer(tmp_path / "data" / "notes.db", NOTES, create=True)


def test_a_network_file_system_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "filesystem_type", lambda path: 0x6969)
    assert "NFS" in refusal(data / "notes.db")


def test_the_file_system_type_is_what_the_system_says(data: Path) -> None:
    said = subprocess.run(["stat", "-f", "-c", "%t", data], capture_output=True, text=True, check=True).stdout
    assert sqlite.filesystem_type(data) == int(said, 16)


def test_a_read_only_directory_is_refused(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk.parent], check=True)
    assert "read-only" in refusal(small_disk / "notes.db")


def test_a_second_instance_is_refused_and_told_who_holds_it(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    said = refusal(data / "notes.db")
    assert f"process {os.getpid()}, started 20" in said
    database.close()
    open_writer(data / "notes.db", NOTES).close()


def test_a_lock_file_with_hostile_content_is_not_repeated(data: Path) -> None:
    database = open_writer(data / "notes.db", NOTES)
    (data / "notes.db.lock").write_text("\x1b[31m 1; rm -rf")
    assert refusal(data / "notes.db") == "another instance uses it: an unnamed process"
    database.close()


def test_a_killed_instance_leaves_no_lock(data: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from sidecar.storage import ControlStore, StorageSettings\n"
        "store = ControlStore.open(StorageSettings(data_dir=pathlib.Path(sys.argv[1])))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, data], stdin=-1, stdout=-1)
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n"
    with pytest.raises(ConfigError, match=f"process {child.pid}, started"):
        ControlStore.open(StorageSettings(data_dir=data))
    child.kill()
    child.communicate()
    ControlStore.open(StorageSettings(data_dir=data)).writer.stop()


def test_creation_that_was_cut_off_is_begun_again(data: Path) -> None:
    (data / "notes.db.new").write_bytes(b"half")
    open_writer(data / "notes.db", NOTES).close()
    assert not (data / "notes.db.new").exists()


TWO = Schema("notes", NOTES.application_id, (*NOTES.migrations, "ALTER TABLE notes ADD COLUMN size INTEGER"))


def test_an_older_schema_is_migrated(data: Path) -> None:
    open_writer(data / "notes.db", NOTES).close()
    database = open_writer(data / "notes.db", TWO)
    assert database.connection.pragma("user_version") == 2
    database.connection.execute("INSERT INTO notes VALUES (1, 'a', 5)")
    database.close()
    assert "newer" in refusal(data / "notes.db", NOTES)


def test_a_migration_that_fails_changes_nothing(data: Path) -> None:
    open_writer(data / "notes.db", NOTES).close()
    broken = Schema("notes", NOTES.application_id, (*TWO.migrations, "CREATE TABLE notes (again INTEGER)"))
    assert "already exists" in refusal(data / "notes.db", broken)
    database = open_writer(data / "notes.db", NOTES)
    assert [row[1] for row in database.connection.execute("PRAGMA table_info(notes)")] == ["id", "text"]
    database.close()


def test_a_reader_reads_beside_the_writer_and_cannot_write(data: Path) -> None:
    with pytest.raises(ConfigError, match="no such database"):
        open_reader(data / "notes.db", NOTES)
    database = open_writer(data / "notes.db", NOTES)
    reader = open_reader(data / "notes.db", NOTES)
    database.connection.execute("INSERT INTO notes VALUES (1, 'a')")
    assert reader.execute("SELECT count(*) FROM notes").get == 1
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("DELETE FROM notes")
    with pytest.raises(ConfigError, match="schema 1, this program reads 2"):
        open_reader(data / "notes.db", TWO)
    reader.close()
    database.close()


def test_an_old_sqlite_is_warned_of(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert sqlite.sqlite_warning() == ""
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    open_writer(data / "notes.db", NOTES).close()
    assert "3.51.2 can corrupt" in caplog.text


@pytest.mark.parametrize("store", [ControlStore, TelemetryStore])
def test_both_stores_refuse_a_damaged_file_by_name(
    data: Path, settings: StorageSettings, store: type[ControlStore | TelemetryStore]
) -> None:
    path = data / ("control.db" if store is ControlStore else "telemetry.db")
    overwrite(b"junk" * 1000)(path)
    with pytest.raises(ConfigError, match=f"{path.name}: is not a database"):
        store.open(settings)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_that_is_none_is_refused(settings: StorageSettings, content: bytes) -> None:
    overwrite(content)(settings.data_dir / "checkpoint.key")
    with pytest.raises(ConfigError, match=r"checkpoint\.key: is not a key"):
        TelemetryStore.open(settings)
    overwrite(b"x" * 32)(settings.data_dir / "checkpoint.key")
    TelemetryStore.open(settings).writer.stop()  # the refused start let go of the lock


def test_a_key_that_others_can_read_is_refused(settings: StorageSettings) -> None:
    TelemetryStore.open(settings).writer.stop()
    (settings.data_dir / "checkpoint.key").chmod(0o640)
    with pytest.raises(ConfigError, match=r"checkpoint\.key: is open to other users"):
        TelemetryStore.open(settings)


def test_the_data_directory_follows_the_xdg_state_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert StorageSettings().data_dir == tmp_path / "agent-sidecar"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert StorageSettings().data_dir == Path("/home/someone/.local/state/agent-sidecar")


def test_a_mark_below_the_ballast_is_refused() -> None:
    with pytest.raises(ValueError, match="eat the reserve"):
        StorageSettings(low_water_bytes=1, ballast_bytes=2)
