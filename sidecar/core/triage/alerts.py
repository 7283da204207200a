"""The book of alerts: findings grouped by session and detector, each group with a fingerprint and a life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from msgspec.structs import replace

from sidecar.core.alerts import Action, Alert, fingerprint
from sidecar.core.digests import remember
from sidecar.core.events import SessionKey
from sidecar.core.findings import Finding
from sidecar.core.triage.policy import stronger

KEPT_FINDINGS = 16
QUIET_NS = 3600 * 10**9
"""An alert resolves after an hour without a finding, unless its session is held."""
MAX_FIRING = 20_000


class AlertBook:
    """Alerts that are firing. Memory: `MAX_FIRING` alerts of `KEPT_FINDINGS` findings; the quietest resolves early."""

    def __init__(self) -> None:
        self._by_session: dict[SessionKey, dict[str, Alert]] = {}
        self._order: dict[tuple[SessionKey, str], None] = {}  # the quietest first

    def __iter__(self) -> Iterator[Alert]:
        for alerts in self._by_session.values():
            yield from alerts.values()

    def __len__(self) -> int:
        return len(self._order)

    def restore(self, alert: Alert) -> None:
        """Puts back a stored alert that was firing."""
        self._put(alert)

    def of(self, session: SessionKey) -> tuple[Alert, ...]:
        """Alerts of one session that are firing."""
        return tuple(self._by_session.get(session, {}).values())

    def add(self, finding: Finding, action: Action, now_ns: int) -> list[Alert]:
        """Takes in a finding that is to alert; the alerts that changed (a full book resolves its quietest).

        An alert's life goes by our clock: a sender that dates its spans back must not have its alerts resolve at once.
        """
        known = self._by_session.get(finding.session, {}).get(finding.detector)
        alert = _opened(finding, action, now_ns) if known is None else _joined(known, finding, action, now_ns)
        self._put(alert)
        if len(self._order) > MAX_FIRING:
            return [self._resolve(*next(iter(self._order)), now_ns), alert]
        return [alert]

    def quiet(self, now_ns: int, is_held: Callable[[SessionKey], bool]) -> list[Alert]:
        """Resolves what has been quiet for long; the alerts of a held session go on firing."""
        resolved: list[Alert] = []
        for session, detector in list(islice(self._order, 256)):
            alert = self._by_session[session][detector]
            if is_held(session) or alert.last_ns > now_ns:  # a clock that runs ahead must not keep the others firing
                self._put(alert)
            elif now_ns - alert.last_ns >= QUIET_NS:
                resolved.append(self._resolve(session, detector, now_ns))
            else:
                break
        return resolved

    def clear(self, session: SessionKey, findings: frozenset[str], now_ns: int) -> list[Alert]:
        """Resolves the alerts of a session all of whose findings a person has cleared."""
        return [
            self._resolve(session, alert.detector, now_ns)
            for alert in self.of(session)
            if all(finding.id in findings for finding in alert.findings)
        ]

    def close(self, alert: Alert, verdict: str, now_ns: int) -> Alert:
        """Resolves an alert with a reviewer's verdict; one that has resolved already only gets the verdict."""
        closed = self.closed(alert, verdict, now_ns)
        if self._is_firing(alert):
            self._drop(alert.session, alert.detector)
        return closed

    def closed(self, alert: Alert, verdict: str, now_ns: int) -> Alert:
        """What `close` would return, without closing it."""
        if self._is_firing(alert):
            firing = self._by_session[alert.session][alert.detector]
            alert = replace(firing, state="resolved", resolved_ns=now_ns)
        return replace(alert, verdict=verdict)

    def _is_firing(self, alert: Alert) -> bool:
        firing = self._by_session.get(alert.session, {}).get(alert.detector)
        return firing is not None and firing.fingerprint == alert.fingerprint

    def rename(self, old: SessionKey, new: SessionKey) -> list[Alert]:
        """Moves a session's alerts to its new id; their fingerprints stay."""
        changed: list[Alert] = []
        for alert in self.of(old):
            self._drop(old, alert.detector)
            moved = replace(alert, session=new)
            if (kept := self._by_session.get(new, {}).get(alert.detector)) is not None:  # both had been firing
                older, newer = sorted((kept, moved), key=lambda a: (a.opened_ns, a.fingerprint))
                changed.append(replace(newer, state="resolved", resolved_ns=newer.last_ns))
                moved = _merged(older, newer)
            self._put(moved)
            changed.append(moved)
        return changed

    def _put(self, alert: Alert) -> None:
        self._by_session.setdefault(alert.session, {})[alert.detector] = alert
        remember(self._order, (alert.session, alert.detector), None, 2 * MAX_FIRING)

    def _drop(self, session: SessionKey, detector: str) -> Alert:
        alerts = self._by_session[session]
        alert = alerts.pop(detector)
        if not alerts:
            del self._by_session[session]
        del self._order[(session, detector)]
        return alert

    def _resolve(self, session: SessionKey, detector: str, now_ns: int) -> Alert:
        return replace(self._drop(session, detector), state="resolved", resolved_ns=now_ns)


def _opened(finding: Finding, action: Action, now_ns: int) -> Alert:
    return Alert(
        fingerprint=fingerprint(finding.session.realm, finding.detector, finding.event_id),
        detector=finding.detector,
        family=finding.family,
        severity=finding.severity,
        session=finding.session,
        agent=finding.agent,
        opened_ns=now_ns,
        last_ns=now_ns,
        action=action,
        score=finding.score,
        text=finding.text,
        findings=(finding,),
    )


def _joined(alert: Alert, finding: Finding, action: Action, now_ns: int) -> Alert:
    if any(known.id == finding.id for known in alert.findings):
        return replace(alert, action=stronger(alert.action, action))
    graver = (finding.severity, finding.score) > (alert.severity, alert.score)
    kept = alert.findings
    if len(kept) < KEPT_FINDINGS:
        kept += (finding,)
    elif graver:
        kept = (*kept[:-1], finding)
    return replace(
        alert,
        severity=max(alert.severity, finding.severity),
        score=max(alert.score, finding.score),
        last_ns=max(alert.last_ns, now_ns),
        action=stronger(alert.action, action),
        text=finding.text if graver else alert.text,
        count=alert.count + 1,
        findings=kept,
    )


def _merged(older: Alert, newer: Alert) -> Alert:
    return replace(
        older,
        severity=max(older.severity, newer.severity),
        score=max(older.score, newer.score),
        last_ns=max(older.last_ns, newer.last_ns),
        count=older.count + newer.count,
        action=stronger(older.action, newer.action),
        findings=(older.findings + newer.findings)[:KEPT_FINDINGS],
    )
