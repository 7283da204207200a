"""What was acknowledged is there after kill -9 (promises P1 and P6, short form).

Each round runs `child`, kills it after a number of acknowledgements drawn from the round's seed, and compares what it
said with what is in the file. A round is armed when something was on its way at the moment of the kill.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from msgspec import Struct

from sidecar.sources import Row
from sidecar.storage import ControlStore, Instant, StorageSettings, TelemetryStore

from .child import body

ROUNDS = 10
NOW = Instant(1, 1, "boot")


class Ledger(Struct):
    """What the child said before it died."""

    sent: list[str] = []
    stored: list[str] = []

    @property
    def on_its_way(self) -> int:
        return len(self.sent) - len(self.stored)


def kill_in_mid_work(kind: str, directory: Path, seed: int) -> Ledger:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.shells.storage.child", kind, directory, str(seed)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    ledger, enough = Ledger(), random.Random(seed).randrange(5, 300)
    for line in child.stdout:
        word, name = line.decode().split()
        (ledger.sent if word == "sent" else ledger.stored).append(name)
        if len(ledger.stored) == enough:
            child.kill()
    assert child.wait() == -9, "the child ended by itself"
    return ledger


def integrity(file: Path) -> str:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return str(connection.pragma("integrity_check"))
    finally:
        connection.close()


@pytest.mark.faults
async def test_no_acknowledged_row_is_lost(settings: StorageSettings, data: Path) -> None:
    stored: list[str] = []
    armed = 0
    for seed in range(ROUNDS):
        ledger = kill_in_mid_work("telemetry", data, seed)
        armed += ledger.on_its_way > 0
        stored += ledger.stored
        store = TelemetryStore.open(settings)
        rows = [row.body for _, row in read_all(store)]
        names = [row.partition(b"\n")[0].decode() for row in rows]
        assert set(stored) <= set(names), f"lost: {sorted(set(stored) - set(names))}"
        assert len(names) == len(set(names))
        assert all(row.partition(b"\n")[2] == body(name) for row, name in zip(rows, names, strict=True))
        checkpoint = await store.load_checkpoint()
        assert checkpoint.refused == []
        if checkpoint.cursor:  # the state and how far it reaches are of one moment
            assert checkpoint.blobs["row"] == str(checkpoint.cursor["row"]).encode()
        await store.close()
        assert integrity(data / "telemetry.db") == "ok"
    print(f"rounds={ROUNDS} armed={armed} acknowledged={len(stored)} lost=0")
    assert armed >= ROUNDS // 2


def read_all(store: TelemetryStore) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    while page := store.read(rows[-1][0] if rows else 0, 500):
        rows += page
    return rows


@pytest.mark.faults
def test_acknowledging_before_the_commit_loses_rows(settings: StorageSettings, data: Path) -> None:
    """The control: the same test, with the protecting line off, finds loss."""
    lost = 0
    for seed in range(ROUNDS):
        ledger = kill_in_mid_work("early", data, seed)
        store = TelemetryStore.open(settings)
        names = {row.body.partition(b"\n")[0].decode() for _, row in read_all(store)}
        lost += len(set(ledger.stored) - names)
        store.writer.stop()
    print(f"control: lost={lost}")
    assert lost > 0


@pytest.mark.faults
async def test_no_acknowledged_pause_is_lost_and_none_is_without_its_record(
    settings: StorageSettings, data: Path
) -> None:
    stored: list[str] = []
    armed = 0
    for seed in range(ROUNDS):
        ledger = kill_in_mid_work("control", data, seed)
        armed += ledger.on_its_way > 0
        stored += ledger.stored
        store = ControlStore.open(settings)
        held = {run.session.id for run in store.load(NOW).runs}
        assert set(stored) <= held, f"lost: {sorted(set(stored) - held)}"
        assert {record.entry.session for record in store.audit_after(0, 10**6)} == held
        assert store.verify_audit().state == "ok"
        await store.close()
        assert integrity(data / "control.db") == "ok"
    print(f"rounds={ROUNDS} armed={armed} acknowledged={len(stored)} lost=0")
    assert armed >= ROUNDS // 2
