"""The gRPC side: one channel, one Watch stream, and a keeper that sends reports in order behind the acts' backs.

`drive` and `adrive` perform the steps of a flow, the one blocking, the other in asyncio. Both use the same channel: a
call made in asyncio is a gRPC future whose end is told to the loop, so one client serves threads and any number of
event loops, and a loop that is busy elsewhere delays no heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import grpc

from sidecar.agent.errors import SidecarMisconfigured, SidecarUnavailable
from sidecar.agent.options import Credential, Options
from sidecar.agent.roster import Roster
from sidecar.agent.steps import Call, Changed, NoAnswer, Sleep, Step, Steps, T
from sidecar.control.v1 import control_pb2 as pb
from sidecar.control.v1 import control_pb2_grpc

log = logging.getLogger("sidecar.agent")

REPORT_S, MAX_REPORTS = 1.0, 4096
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.05, 2.0
GOODBYE_S = 0.2


class Owner(Protocol):
    """What the wire tells and asks its client."""

    def heard(self, response: pb.WatchResponse) -> None:
        """A message of Watch came."""

    def lost(self, now: float) -> None:
        """Watch is gone, or the lease ran out."""

    def watch_request(self, *, first: bool) -> pb.WatchRequest:
        """What to tell the sidecar on the stream."""

    def chores(self) -> None:
        """Called by the keeper three times a lease, and whenever it is woken."""


class Wire:
    """One process's connection. It connects at the first call, so a process may fork until then.

    Memory: `MAX_REPORTS` reports; beyond that the oldest are given up, and counted in `reports_lost`.
    """

    def __init__(self, options: Options, credential: Credential, roster: Roster, owner: Owner) -> None:
        self._options, self._credential, self._roster, self._owner = options, credential, roster, owner
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._reports: deque[tuple[str, Any]] = deque()
        self._stream: Any = None
        self._to_send: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._complained, self._is_away = "", False
        self._heard_at = self._told_at = time.monotonic()
        self.is_watching = False
        self.is_forked = False
        self.reports_lost = 0
        self._takes_reports = True

    @property
    def has_started(self) -> bool:
        """Whether anything of gRPC exists yet."""
        return self._channel is not None

    # ------------------------------------------------------------ performing steps

    def drive(self, steps: Steps[T]) -> T:
        """Performs a flow, blocking this thread."""
        self._check()
        result: Any = None
        error: NoAnswer | None = None
        while True:
            try:
                step = steps.throw(error) if error else steps.send(result)
            except StopIteration as done:
                value: T = done.value
                return value
            self._check()
            result = error = None
            try:
                result = self._perform(step)
            except NoAnswer as failed:
                error = failed

    async def adrive(self, steps: Steps[T]) -> T:
        """Performs a flow in asyncio; cancelling the task cancels the call under way."""
        self._check()
        result: Any = None
        error: NoAnswer | None = None
        while True:
            try:
                step = steps.throw(error) if error else steps.send(result)
            except StopIteration as done:
                value: T = done.value
                return value
            self._check()
            result = error = None
            try:
                result = await self._aperform(step)
            except NoAnswer as failed:
                error = failed

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Call):
            return self.call(step)
        if isinstance(step, Sleep):
            self._closing.wait(step.seconds)
        else:
            self._roster.wait(step.version, step.timeout_s)
        return None

    async def _aperform(self, step: Step) -> Any:
        if isinstance(step, Call):
            return await self._acall(step)
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
        else:
            await self._achanged(step)
        return None

    def call(self, step: Call) -> Any:
        """One unary call.

        Raises:
            NoAnswer: It failed, or took too long.
        """
        try:
            return self._method(step.method)(
                step.request, timeout=step.deadline_s, metadata=self._credential.metadata()
            )
        except grpc.RpcError as error:
            raise _no_answer(error) from None
        except ValueError:  # the channel was closed under our hands
            raise NoAnswer("CANCELLED") from None

    async def _acall(self, step: Call) -> Any:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits any more
                loop.call_soon_threadsafe(settle)

        try:
            call = self._method(step.method).future(
                step.request, timeout=step.deadline_s, metadata=self._credential.metadata()
            )
        except ValueError:
            raise NoAnswer("CANCELLED") from None
        call.add_done_callback(tell)
        try:
            await ended
        except asyncio.CancelledError:
            call.cancel()
            raise
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise NoAnswer("CANCELLED") from None
        except grpc.RpcError as error:
            raise _no_answer(error) from None

    async def _achanged(self, step: Changed) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        stop = self._roster.listen(tell)
        try:
            if self._roster.version == step.version:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), step.timeout_s)
        finally:
            stop()

    def _method(self, name: str) -> Any:
        return self._methods.get(name) or self._connect()[name]

    def _connect(self) -> dict[str, Any]:
        self._check()
        with self._lock:
            if self._channel is None:
                channel = self._options.channel(self._options.control)
                self._methods = vars(control_pb2_grpc.AgentServiceStub(channel))
                self._channel = channel
                for name, loop in (("watch", self._watch), ("keep", self._keep)):
                    thread = threading.Thread(target=loop, name=f"sidecar-{name}", daemon=True)
                    self._threads.append(thread)
                    thread.start()
            return self._methods

    def _check(self) -> None:
        if self.is_forked:
            raise SidecarUnavailable(
                "This process was forked from one that is connected to the sidecar, and a connection does not survive "
                "that: call sidecar.agent.connect() in the child. The act did not run."
            )
        if self._closing.is_set():
            raise SidecarUnavailable("This agent's connection to the sidecar has been closed. The act did not run.")

    # ------------------------------------------------------------ reports

    def report(self, method: str, request: Any, *, urgent: bool = False) -> None:
        """Sends `request` soon, after those before it (before them when `urgent`), again until it is taken."""
        if self.is_forked:
            return
        with self._lock:
            if urgent:
                self._reports.appendleft((method, request))
            else:
                self._reports.append((method, request))
            if len(self._reports) > MAX_REPORTS:
                self._reports.popleft()
                self.reports_lost += 1
        self.wake()

    def wake(self) -> None:
        """The keeper looks at its work now."""
        self._wake.set()

    def _send_reports(self) -> None:
        """Sends what there is, until nobody takes it."""
        while True:
            with self._lock:
                if not self._reports:
                    return
                method, request = self._reports.popleft()
            try:
                self.call(Call(method, request, REPORT_S))
            except NoAnswer as error:
                if error.is_lost or error.code == "RESOURCE_EXHAUSTED":
                    with self._lock:
                        self._reports.appendleft((method, request))
                    self._takes_reports = self.is_watching  # where nobody is, the next message of Watch says when
                    return
                self._complain(f"the sidecar does not take a report ({method}: {error.code})")
                self.reports_lost += 1

    def _keep(self) -> None:
        while not self._closing.is_set():
            try:
                self._beat()
            except SidecarMisconfigured as error:
                self._complain(str(error))
            except SidecarUnavailable:
                return
            except Exception:  # a fault of ours must not end the reports of this process
                log.exception("the keeper of the connection to the sidecar failed; it goes on")
            self._wake.wait(self._roster.lease_s / 3)
            self._wake.clear()

    def _beat(self) -> None:
        if self._takes_reports:
            self._send_reports()
        self._owner.chores()
        now, lease_s = time.monotonic(), self._roster.lease_s
        if now - self._heard_at > lease_s:  # a fresh stream, for a sidecar that came back elsewhere or lost this one
            self._heard_at = now
            self._away("no heartbeat; its sessions are on hold")
            self._owner.lost(now)
            if self._stream is not None:
                self._stream.cancel()
        elif now - self._told_at >= lease_s / 3:
            self._told_at = now
            self._to_send.put(self._owner.watch_request(first=False))

    # ------------------------------------------------------------ Watch

    def _watch(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                for response in self._open_stream():
                    failures, self._heard_at = 0, time.monotonic()
                    if not self.is_watching or not self._takes_reports:
                        self.is_watching = self._takes_reports = True
                        self._back()
                    self._owner.heard(response)
                words = "the sidecar closed the stream"
            except grpc.RpcError as error:
                failed = _no_answer(error)
                words = f"{failed.code}: {failed.details[:200]}"
            except (SidecarMisconfigured, ValueError) as error:
                words = str(error)
            except Exception as error:  # a fault of ours costs the stream and thereby a HOLD, never the watching
                log.exception("a message of the sidecar could not be taken in")
                words = type(error).__name__
            self.is_watching = False
            self._to_send.put(None)
            if self._closing.is_set():
                return
            self._away(words)
            self._owner.lost(time.monotonic())
            failures += 1
            wait_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 8))
            self._closing.wait(wait_s * random.uniform(0.5, 1.0))  # noqa: S311

    def _open_stream(self) -> Iterator[pb.WatchResponse]:
        self._heard_at = self._told_at = time.monotonic()
        to_send: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        to_send.put(self._owner.watch_request(first=True))
        self._to_send = to_send
        self._stream = self._methods["Watch"](iter(to_send.get, None), metadata=self._credential.metadata())
        if self._closing.is_set():
            self._stream.cancel()
        stream: Iterator[pb.WatchResponse] = self._stream
        return stream

    # ------------------------------------------------------------ the end

    def close(self, within_s: float) -> None:
        """Sends what reports it can within `within_s`, then disconnects."""
        until = time.monotonic() + within_s
        while self._reports and self._takes_reports and not self.is_forked and time.monotonic() < until:
            self.wake()
            time.sleep(0.01)
        self._closing.set()
        self._wake.set()
        if self.is_forked or self._channel is None:
            return
        self._say_goodbye()
        if self._stream is not None:
            self._stream.cancel()
        for thread in self._threads:
            thread.join(max(0.1, until - time.monotonic()))
        self._channel.close()
        if self._reports:
            log.warning("%d reports to the sidecar were not sent", len(self._reports))

    def _say_goodbye(self) -> None:
        """Ends our side of Watch, and waits a moment until it has been heard: else we would count as lost."""
        heard_at, until = self._heard_at, time.monotonic() + GOODBYE_S
        self._to_send.put(None)
        while self.is_watching and self._heard_at == heard_at and time.monotonic() < until:
            time.sleep(0.002)

    def _away(self, words: str) -> None:
        """Said once an outage; how it goes on is for those who debug."""
        level = logging.DEBUG if self._is_away else logging.WARNING
        log.log(level, "the sidecar at %s is out of reach (%s); trying again", self._options.control, words)
        self._is_away = True

    def _back(self) -> None:
        if self._is_away:
            log.warning("the sidecar at %s is back", self._options.control)
        self._is_away, self._complained = False, ""
        self.wake()

    def _complain(self, words: str) -> None:
        if words != self._complained and not self._closing.is_set():
            log.warning("%s", words)
        self._complained = words


def _no_answer(error: grpc.RpcError) -> NoAnswer:
    code = error.code() if callable(getattr(error, "code", None)) else None
    return NoAnswer(code.name if code else "UNKNOWN", (error.details() or "") if code else "")
