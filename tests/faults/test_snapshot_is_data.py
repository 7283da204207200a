"""P16: a start never runs data, and never takes a damaged or foreign snapshot for its own.

A real snapshot is damaged in every way that the promise names, and the sidecar started on it, with everything that
makes code of data forbidden in its process. Each damaged part must be refused, set aside under its name and told of by
an alert; the rest is used. The control believes blobs without their keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import grpc
import msgspec

from sidecar.storage import sealed
from sidecar.storage.sealed import RefusedError, unseal
from tests.faults.exporter import PATH
from tests.faults.flood import request
from tests.faults.process import Sidecar
from tests.faults.report import Report
from tests.faults.victim import without_a_keyed_hash

Make = Callable[..., Sidecar]
Tell = Callable[[Report], None]
Damage = Callable[[bytes, str, bytes], bytes]


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._file}",)


def forged(blob: bytes, name: str, key: bytes, payload: bytes | None = None, **header: Any) -> bytes:
    """A blob with other words in its header, or another payload, and a keyed hash that fits."""
    start = len(sealed._MAGIC) + 4
    end = start + int.from_bytes(blob[start - 4 : start], "big")
    told = msgspec.structs.replace(msgspec.msgpack.decode(blob[start:end], type=sealed.Header), **header)
    body = blob[end : -sealed._MAC_BYTES] if payload is None else payload
    words = msgspec.msgpack.encode(told)
    whole = sealed._MAGIC + len(words).to_bytes(4, "big") + words + body
    return whole + sealed._mac(key, name, whole)


def damages(canary: Path) -> dict[str, Damage]:
    """Name → what is done to (a blob, the name it is sealed under, the key)."""
    poison = pickle.dumps(Canary(canary))
    return {
        "flipped bit": lambda blob, name, key: flipped(blob, len(blob) // 2),
        "truncated": lambda blob, name, key: blob[:-10],
        "cut to nothing": lambda blob, name, key: b"",
        "older schema": lambda blob, name, key: forged(blob, name, key, schema=0),
        "newer schema": lambda blob, name, key: forged(blob, name, key, schema=sealed.SCHEMA + 1),
        "wrong key": lambda blob, name, key: forged(blob, name, bytes(32)),
        "other tenant": lambda blob, name, key: forged(blob, name, key, tenant="another"),
        "pickle": lambda blob, name, key: poison,
        "sealed pickle": lambda blob, name, key: forged(
            blob, name, key, poison, length=len(poison), sha256=hashlib.sha256(poison).digest()
        ),
        "payload of 10 GB": lambda blob, name, key: forged(blob, name, key, length=10 * 10**9),
        "header of 4 GB": lambda blob, name, key: blob[:8] + b"\xff\xff\xff\xff" + blob[12:],
        "other name": lambda blob, name, key: forged(blob, name + "x", key),
    }


def flipped(blob: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(blob)
    changed[place] ^= 1 << bit
    return bytes(changed)


def filled(sidecar: Sidecar, agents: int) -> None:
    """Lets so many agents work, and leaves a snapshot of it."""
    sidecar.start()
    call = grpc.insecure_channel(sidecar.address("grpc")).unary_unary(PATH)
    for number in range(agents):
        call(request(f"clerk-{number}", number, 20, 0), timeout=30)
    sidecar.until(lambda: sidecar.count("spans_fed_total") == 20 * agents)
    sidecar.stop()


def blobs(file: Path) -> dict[str, bytes]:
    """What is stored, by name."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return dict(connection.execute("SELECT name, blob FROM blobs").fetchall())  # type: ignore[arg-type]
    finally:
        connection.close()


def write(file: Path, sql: str, values: tuple[Any, ...]) -> None:
    connection = apsw.Connection(str(file))
    connection.execute(sql, values)
    connection.close()


def refused(file: Path) -> dict[str, str]:
    """What has been set aside, with the reason."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return dict(connection.execute("SELECT name, reason FROM refused_blobs").fetchall())  # type: ignore[arg-type]
    finally:
        connection.close()


def damaged(sidecar: Sidecar, folder: Path) -> Report:
    """Starts on a snapshot in which each agent's part is damaged in another way, then on one without a cursor."""
    report = Report(promise="P16", of="start to serving, s")
    found, canary, file = report.violations, folder / f"{sidecar.folder.name}.ran", sidecar.data / "telemetry.db"
    ways = damages(canary)
    filled(sidecar, len(ways) + 1)
    key = (sidecar.data / "checkpoint.key").read_bytes()
    models = {name: blob for name, blob in sorted(blobs(file).items()) if name.startswith("a/")}
    assert len(models) == len(ways) + 1
    hit = dict(zip(models, ways, strict=False))
    for name, way in hit.items():
        write(file, "UPDATE blobs SET blob = ? WHERE name = ?", (ways[way](models[name], "blob:" + name, key), name))
    found += started(report, sidecar, canary, hit)
    report.runs += len(ways)
    report.figures["reasons"] = dict(sorted(Counter(refused(file).values()).items()))
    sidecar.kill()
    cursor = flipped(stored_cursor(file), 100)
    write(file, "UPDATE checkpoint SET cursor = ?", (cursor,))
    found += started(report, sidecar, canary, dict.fromkeys(["cursor"], "cursor"))
    report.runs += 1
    report.armed = report.runs
    sidecar.kill()
    report.violations = +found
    return report


def stored_cursor(file: Path) -> bytes:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return bytes(connection.execute("SELECT cursor FROM checkpoint").get)  # type: ignore[arg-type]
    finally:
        connection.close()


def started(report: Report, sidecar: Sidecar, canary: Path, hit: dict[str, str]) -> Counter[str]:
    """Starts, and looks whether each damaged part was refused, set aside, named and told of."""
    found: Counter[str] = Counter()
    try:
        report.samples.append(sidecar.start())
    except RuntimeError:
        return Counter({"it did not start": 1})
    aside, log = refused(sidecar.data / "telemetry.db"), sidecar.log.read_text(errors="replace")
    for name in hit:
        # What only the key's owner can have written is found out when it is read, and not set aside.
        found["taken silently"] += name not in aside and hit[name] != "sealed pickle"
        found["not named in the log"] += name.rpartition("\0")[2] not in log
    with sidecar.people() as people:
        told = [alert for alert in people.alerts() if alert.detector == "cold_start"]
        found["no alert"] += not told
        found["an alert that counts fewer"] += sum(alert.count for alert in told) < len(hit)
    found["data was run"] += canary.exists()
    return found


def test_damaged_snapshot_is_refused_set_aside_and_told_of(sidecar: Make, tell: Tell, tmp_path: Path) -> None:
    report = damaged(sidecar("victim", fault="forbidding"), tmp_path)
    control = damaged(sidecar("control", without="keyed_hash"), tmp_path)
    report.control_runs, report.control = control.runs, control.violations
    report.figures["fault"] = "each agent's part of a real snapshot damaged another way; control: no keyed hash"
    tell(report)
    assert report.violations.total() == 0, report.violations
    assert report.control["taken silently"] > 0


def test_no_flipped_bit_and_no_length_of_a_real_snapshot_is_taken(sidecar: Make, tell: Tell, full: bool) -> None:
    filling = sidecar("filled")
    filled(filling, 2)
    key = (filling.data / "checkpoint.key").read_bytes()
    stored = {f"blob:{name}": blob for name, blob in blobs(filling.data / "telemetry.db").items()}
    stored["cursor"] = stored_cursor(filling.data / "telemetry.db")
    report = Report(promise="P16")
    for name, blob in stored.items():
        for changed in changes(blob, 1 if full else 64):
            report.runs += 1
            report.violations += taken(name, changed, key)
    report.armed = report.runs
    without_a_keyed_hash()
    try:
        for name, blob in stored.items():
            for changed in changes(blob, 64):
                report.control_runs += 1
                report.control += taken(name, changed, key)
    finally:
        sealed.hmac = hmac  # type: ignore[attr-defined]
    report.figures["fault"] = "bits flipped and lengths cut in each part of a real snapshot; control: no keyed hash"
    tell(report)
    assert report.violations.total() == 0
    assert report.control.total() > 0


def changes(blob: bytes, step: int) -> Iterator[bytes]:
    """The blob with one bit flipped in every `step`-th byte, and cut there."""
    for place in range(0, len(blob), step):
        yield flipped(blob, place, place // step % 8)
        yield blob[:place]


def taken(name: str, blob: bytes, key: bytes) -> Counter[str]:
    """Whether a changed blob is believed, or breaks the reader."""
    try:
        unseal(name, blob, key=key, tenant="local")
    except RefusedError:
        return Counter()
    except Exception as error:
        return Counter({f"broke the reader: {type(error).__name__}": 1})
    return Counter({"taken silently": 1})
