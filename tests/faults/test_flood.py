"""P7: under flood memory is bounded, and what is dropped is counted by agent and reason, and announced.

Agents send in processes of their own and count what they were answered. For each of them what it sent must be what is
stored (plain SQL) and what the sidecar says it refused, exactly; the sidecar runs under a limit on its memory.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import apsw
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.control.v1 import control_pb2 as pb
from sidecar.sources.feeder import MAX_BYTES
from tests.faults.cgroup import MemoryGroup, memory_limited
from tests.faults.exporter import PATH
from tests.faults.flood import Flood
from tests.faults.inbox import stored_by_realm
from tests.faults.process import Sidecar
from tests.faults.report import Report
from tests.shells.control.kit import Raw, asked, opened, write_tokens
from tests.shells.otlp.kit import field, span

RATED_SPANS_PER_S = 50
"""What one agent may send here; the flood is twenty times that."""
LIMIT_BYTES = 144 * 2**20
"""What it may take over what it has after its start: `intake.in_flight`, what waits for the core, and some more."""
ANNOUNCED_S = 5.0
"""Promised from the first drop to the alert; the short form, on a machine that does other things, only asks for one."""
MANY = ("amy", "ben", "cleo")

Make = Callable[..., Sidecar]
Tell = Callable[[Report], None]


class Fleet:
    """A sidecar that knows a flooder and others by their tokens, under a limit on its memory."""

    def __init__(self, sidecar: Sidecar, tokens: dict[str, str], group: MemoryGroup) -> None:
        self.sidecar, self.tokens, self._group = sidecar, tokens, group

    def start(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.sidecar.start(group=self._group)
        with self.sidecar.people() as people:
            self.sidecar.until(lambda: people.status().ready)
        rss_bytes = self.sidecar.rss_bytes()
        self.limit_bytes = rss_bytes + limit_bytes
        self._group.limit(self.sidecar.pid, self.limit_bytes * 11 // 10 - rss_bytes)

    def flood(self, name: str, times: float, seconds: float, *, spans: int, **more: int) -> Flood:
        """An agent that sends so many times what it may."""
        return Flood(
            self.sidecar.ports["grpc"], self.tokens[name], name,
            spans_per_s=times * RATED_SPANS_PER_S, seconds=seconds, spans=spans, **more,
        )  # fmt: skip

    def raw(self, name: str) -> Raw:
        return Raw(self.sidecar.address("agents"), self.tokens[name])

    def unbalanced(self, floods: list[Flood]) -> Counter[str]:
        """Where what was sent is not what was stored and refused, by agent; nothing may be being sent.

        What was refused unread is counted in requests: nobody knows how many spans it had but its sender.
        """
        found: Counter[str] = Counter()
        stored = stored_by_realm(self.sidecar.data / "telemetry.db")
        for flood in floods:
            realm, counts = f"agent:{flood.name}", flood.counts
            refused = flood.spans * int(self.sidecar.count("identity_requests_refused_total", identity=realm))
            found["stored is not what was taken"] += abs(stored[realm] - counts["taken"])
            found["not counted as refused"] += abs(refused - counts["refused"])
            found["neither stored nor refused"] += abs(counts["sent"] - stored[realm] - refused)
        return found

    def refused(self, name: str) -> dict[str, int]:
        """Requests of an agent that were refused, by reason."""
        wanted = ("identity", f"agent:{name}")
        return {
            dict(has)["reason"]: int(value)
            for (metric, has), value in self.sidecar.metrics().items()
            if metric == "sidecar_identity_requests_refused_total" and wanted in has
        }

    def announced(self, name: str) -> bool:
        """Whether an alert says that telemetry of an agent was dropped."""
        with self.sidecar.people() as people:
            return any(
                alert.detector == "telemetry_dropped" and alert.realm == f"agent:{name}" for alert in people.alerts()
            )

    def memory(self) -> Counter[str]:
        """Whether its memory has kept to the limit."""
        if not self.sidecar.is_alive:
            return Counter({"killed for its memory": 1})
        return Counter({"over the limit": int(self.sidecar.rss_bytes(peak=True) > self.limit_bytes * 1.1)})


@pytest.fixture
def fleet(sidecar: Make) -> Iterator[Callable[..., Fleet]]:
    with ExitStack() as stack:

        def make(name: str, **options: Any) -> Fleet:
            made = sidecar(name, **({"intake": {"rates": RATES, "in_flight": "16MiB"}} | options))
            tokens = write_tokens(made.folder / "tokens", **{who: {"role": "agent"} for who in ("flooder", *MANY)})
            made.set("control", credentials={"file": str(made.folder / "tokens")})
            group = stack.enter_context(memory_limited())
            stack.callback(made.kill)
            return Fleet(made, tokens, group)

        yield make


RATES = {"spans_per_s": RATED_SPANS_PER_S, "burst": 1, "bytes_per_s": "1GiB", "sessions_per_s": 10_000}


@contextmanager
def asking(raw: Raw, session: str, into: list[float]) -> Iterator[None]:
    """Asks at the gate twenty times a second, and notes the seconds each answer took."""
    ending = threading.Event()
    opened(raw, session)

    def ask() -> None:
        while not ending.wait(0.05):
            began_s = time.monotonic()
            asked(raw, session, "search_documents", {"query": "order"})
            into.append(time.monotonic() - began_s)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def flooded(fleet: Fleet, seconds: float, *, within_s: float = ANNOUNCED_S) -> Report:
    """One agent sends twenty times what it may, others a quarter of it; what of the promise does not hold."""
    report = Report(promise="P7", runs=1, of="Authorize of another agent during the flood, s")
    found = report.violations
    fleet.start()
    flooder = fleet.flood("flooder", 20, seconds, spans=50)
    others = [fleet.flood(name, 0.25, seconds, spans=2) for name in MANY]
    announced_ns = 0
    with fleet.raw("flooder") as raw, fleet.raw("amy") as amy, ExitStack() as stack:
        opened(raw, "acting")
        stack.enter_context(asking(amy, "asking", report.samples))
        for flood in (flooder, *others):
            stack.enter_context(flood)
        while not flooder.is_over:
            if not announced_ns and fleet.announced("flooder"):
                announced_ns = time.monotonic_ns()
                found["an irreversible act of the flooder was allowed"] += is_allowed(raw, "acting")
                found["an irreversible act of another agent was not"] += not is_allowed(amy, "asking")
            time.sleep(0.1)
        found["an irreversible act of the flooder was allowed"] += not announced_ns and is_allowed(raw, "acting")
        fleet.sidecar.until(lambda: all(flood.is_over for flood in others))
    delay_s = (announced_ns - flooder.first_ns) / 1e9 if announced_ns else float("inf")
    found["not announced in time"] += not announced_ns or delay_s > within_s
    found["other agents' loss"] += sum(other.counts["refused"] for other in others)
    found += fleet.memory()
    found += fleet.unbalanced([flooder, *others])
    report.violations = found
    report.armed = int(flooder.counts["refused"] > 0)
    report.figures |= {
        "flood_times_rated": round(flooder.counts["sent"] / seconds / RATED_SPANS_PER_S, 1), "seconds": seconds,
        "sent": flooder.counts["sent"], "stored": flooder.counts["taken"], "refused": flooder.counts["refused"],
        "refused_requests": fleet.refused("flooder"),
        "others_sent": sum(other.counts["sent"] for other in others), "first_drop_to_alert_s": round(delay_s, 2),
        "peak_rss_mb": round(fleet.sidecar.rss_bytes(peak=True) / 1e6), "limit_mb": round(fleet.limit_bytes / 1e6),
    }  # fmt: skip
    fleet.sidecar.kill()
    return report


def is_allowed(raw: Raw, session: str) -> bool:
    return bool(asked(raw, session, "send_email", {"to": "amy@corp.example"}).answer == pb.ANSWER_ALLOWED)


def test_flood_of_one_agent_is_counted_and_announced_and_harms_no_other(
    fleet: Callable[..., Fleet], tell: Tell, full: bool
) -> None:
    report = flooded(fleet("flooded"), 600 if full else 5, within_s=ANNOUNCED_S if full else float("inf"))
    control = flooded(fleet("control", without="counting"), 10 if full else 4)
    report.control_runs, report.control = control.runs, control.violations
    report.figures["fault"] = "20 times the rated load from one agent beside three; control: refusals not counted"
    tell(report)
    assert report.violations.total() == 0, report.violations
    assert report.armed
    assert report.figures["flood_times_rated"] > 10
    assert {"not announced in time", "not counted as refused"} <= (+report.control).keys()


def behind(fleet: Fleet, requests: int) -> Report:
    """The core is slower than what comes, and what comes is large: it must wait on the disk, not in memory."""
    report = Report(promise="P7", runs=1)
    fleet.start()
    flood = fleet.flood("flooder", 1000, 300, spans=10, requests=requests, pad=100_000, in_flight=8)
    waiting = 0.0
    with flood:
        while not flood.is_over and fleet.sidecar.is_alive:
            waiting = max(waiting, rows_waiting(fleet))
            time.sleep(0.1)
    report.violations += fleet.memory()
    if fleet.sidecar.is_alive:
        report.violations += fleet.unbalanced([flood])
        report.figures["peak_rss_mb"] = round(fleet.sidecar.rss_bytes(peak=True) / 1e6)
    report.armed = int(waiting * 10 * 100_000 > MAX_BYTES)  # more than is kept in memory
    report.figures |= {"limit_mb": round(fleet.limit_bytes / 1e6), "waiting_mb": int(waiting), **flood.counts}
    fleet.sidecar.kill()
    return report


def rows_waiting(fleet: Fleet) -> float:
    try:
        return fleet.sidecar.count("inbox_rows")
    except OSError:  # it has been killed
        return 0.0


def test_what_a_slow_core_has_not_seen_waits_on_the_disk(fleet: Callable[..., Fleet], tell: Tell, full: bool) -> None:
    report = behind(fleet("slow", fault="slow_core", **UNLIMITED), 1000 if full else 120)
    control = behind(fleet("control", fault="slow_core", without="bounded_feeder", **UNLIMITED), 230)
    report.control_runs, report.control = control.runs, control.violations
    report.figures["fault"] = "requests of 1 MB faster than a slow core reads them; control: all of them kept in memory"
    tell(report)
    assert report.violations.total() == 0, report.violations
    assert report.armed
    assert control.violations["killed for its memory"] + control.violations["over the limit"] > 0


UNLIMITED = {"intake": {"rates": {"bytes_per_s": "1GiB", "spans_per_s": 10**6}, "in_flight": "16MiB"}}


def test_locked_database_delays_and_loses_nothing_that_was_acknowledged(
    fleet: Callable[..., Fleet], tell: Tell, full: bool
) -> None:
    report = Report(promise="P7")
    flooded = fleet("locked")
    flooded.start()
    total = flooded.flood("flooder", 0.9, 7, spans=5)
    for _ in range(10 if full else 1):
        with flooded.flood("flooder", 0.9, 7, spans=5) as flood:
            time.sleep(1)
            report.armed += locked(flooded.sidecar, 5.0)
            flooded.sidecar.until(lambda: flood.is_over, 60)
        report.runs += 1
        total.counts += flood.counts
    report.figures |= total.counts
    report.violations += flooded.unbalanced([total])
    report.violations += flooded.memory()
    report.figures |= {"fault": "telemetry.db locked by another process for 5 s under load"}
    tell(report)
    assert report.violations.total() == 0, report.violations
    assert report.armed == report.runs


def locked(sidecar: Sidecar, seconds: float) -> bool:
    """Keeps the sidecar from writing telemetry for a while; whether nothing was stored meanwhile."""
    connection = apsw.Connection(str(sidecar.data / "telemetry.db"))
    connection.set_busy_timeout(5000)
    connection.execute("BEGIN IMMEDIATE")
    before = connection.execute("SELECT max(seq) FROM inbox").get
    time.sleep(seconds)
    after = connection.execute("SELECT max(seq) FROM inbox").get
    connection.execute("ROLLBACK")
    connection.close()
    return bool(before == after)


def test_span_of_a_million_attributes_is_refused_and_announced(fleet: Callable[..., Fleet], tell: Tell) -> None:
    report = Report(promise="P7", runs=3)
    wide = fleet("wide")
    wide.start()
    body = field(1, field(2, field(2, span().SerializeToString() + field(9, b"") * 1_000_000)))
    call = grpc.insecure_channel(wide.sidecar.address("grpc")).unary_unary(PATH)
    for _ in range(report.runs):
        answer = call(body, timeout=60, metadata=(("authorization", f"Bearer {wide.tokens['flooder']}"),))
        report.armed += ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans == 1
    report.violations += wide.memory()
    wide.sidecar.until(lambda: wide.announced("flooder"), ANNOUNCED_S + 5)
    report.figures |= {
        "refused": wide.sidecar.count("identity_spans_refused_total", identity="agent:flooder"),
        "peak_rss_mb": round(wide.sidecar.rss_bytes(peak=True) / 1e6), "limit_mb": round(wide.limit_bytes / 1e6),
        "fault": "spans of 1,000,000 attributes",
    }  # fmt: skip
    tell(report)
    assert report.violations.total() == 0
    assert report.armed == report.figures["refused"] == report.runs
