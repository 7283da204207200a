"""The operators' client, for commands and scripts: one blocking call for each method."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import grpc

from sidecar.control import sockets
from sidecar.control.v1 import control_pb2 as pb
from sidecar.control.v1 import control_pb2_grpc
from sidecar.errors import ConfigError, ControlError
from sidecar.storage.settings import default_data_dir

ENVIRONMENT = "SIDECAR_OPERATORS"
TOKEN_ENVIRONMENT = "SIDECAR_OPERATOR_TOKEN"  # noqa: S105  # the name of a variable
CA_ENVIRONMENT = "SIDECAR_CA"
TIMEOUT_S = 10.0


class UnreachableError(ControlError):
    """No sidecar is there, or it does not answer."""

    retriable = True


def default_target() -> str:
    """``SIDECAR_OPERATORS`` where it is set, else the socket in the default data directory."""
    told = os.environ.get(ENVIRONMENT, "")
    if told.startswith("/"):
        return f"unix:{told}"
    return told or f"unix:{default_data_dir() / sockets.OPERATORS}"


class Operators:
    """A connection to the operators' door; close it, or use it within ``with``.

    Every method raises `ControlError` with the code and words of the sidecar's refusal, `UnreachableError` where nobody
    answers. Those that change something take a `request_id`: with the same one again nothing happens twice.

    Args:
        target: ``unix:/path`` or ``host:port``; `default_target` where left out.
        token: For a door that asks for one; from ``SIDECAR_OPERATOR_TOKEN`` where left out.
        ca: PEM file of the authority that signed the door's certificate; from ``SIDECAR_CA`` where left out, else the
            machine's own authorities. For ``host:port``.
    """

    def __init__(
        self, target: str | None = None, *, token: str | None = None, ca: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        self.target = target or default_target()
        path = self.target.removeprefix("unix:")
        if path != self.target:
            sockets.checked(Path(path))
        token = os.environ.get(TOKEN_ENVIRONMENT, "") if token is None else token
        ca = os.environ.get(CA_ENVIRONMENT, "") if ca is None else ca
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 * 2**20))
        if path != self.target:
            self._channel = grpc.insecure_channel(self.target, options)
        else:
            pem = None
            try:
                pem = Path(ca).read_bytes() if ca else None
            except OSError as error:
                raise ConfigError(f"cannot be read: {error.strerror}", file=ca or "") from error
            self._channel = grpc.secure_channel(self.target, grpc.ssl_channel_credentials(pem), options)
        self._stub: Any = control_pb2_grpc.OperatorServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnects."""
        self._channel.close()

    # ------------------------------------------------------------ looking

    def status(self) -> pb.GetStatusResponse:
        """How the sidecar is."""
        answer: pb.GetStatusResponse = self._call("GetStatus", pb.GetStatusRequest())
        return answer

    def sessions(
        self, *, session_id: str = "", realm: str = "", states: Sequence[pb.RunState] = (), limit: int = 0
    ) -> list[pb.SessionView]:
        """Sessions: held ones first, then those seen last first."""
        request = pb.ListSessionsRequest(realm=realm, session_id=session_id, states=states, limit=limit)
        return list(self._call("ListSessions", request).sessions)

    def alerts(
        self, *, session_id: str = "", realm: str = "", resolved: bool = False, limit: int = 0
    ) -> list[pb.AlertView]:
        """Alerts, the newest first; firing ones, or with `resolved` all."""
        request = pb.ListAlertsRequest(realm=realm, session_id=session_id, all=resolved, limit=limit)
        return list(self._call("ListAlerts", request).alerts)

    def evidence(self, fingerprint: str) -> pb.GetEvidenceResponse:
        """What an alert rests on."""
        answer: pb.GetEvidenceResponse = self._call("GetEvidence", pb.GetEvidenceRequest(fingerprint=fingerprint))
        return answer

    def approvals(self, *, decided: bool = False) -> list[pb.ApprovalView]:
        """Held acts and escalations; open ones, or with `decided` all."""
        return list(self._call("ListApprovals", pb.ListApprovalsRequest(all=decided)).approvals)

    def audit(self, *, after_seq: int = 0, limit: int = 0) -> list[pb.AuditView]:
        """Records of the audit log, ascending."""
        return list(self._call("ListAudit", pb.ListAuditRequest(after_seq=after_seq, limit=limit)).records)

    def follow(self) -> Iterator[pb.FollowResponse]:
        """What happens from now on; the caller may look at the present state once this has come back."""
        call = self._stub.Follow(pb.FollowRequest(), metadata=self._metadata)
        with _translated():
            call.initial_metadata()

        def happenings() -> Iterator[pb.FollowResponse]:
            with _translated():
                try:
                    yield from call
                finally:
                    call.cancel()

        return happenings()

    # ------------------------------------------------------------ changing

    def pause(self, scope: pb.Scope, reason: str, *, request_id: str = "") -> list[pb.SessionView]:
        """Holds sessions before their next act."""
        request = pb.PauseRequest(request_id=request_id or new_id(), scope=scope, reason=reason)
        return list(self._call("Pause", request).sessions)

    def resume(
        self, scope: pb.Scope, reason: str, *, pause_id: str, epoch: int = 0, clears: Sequence[str] = (),
        request_id: str = "",
    ) -> list[pb.SessionView]:  # fmt: skip
        """Lets sessions go on.

        Args:
            pause_id, epoch: Of the session as it was looked at; a scope has no epoch.
            clears: Ids of all findings that hold it (`finding_ids` of its causes).
        """
        request = pb.ResumeRequest(
            request_id=request_id or new_id(), scope=scope, pause_id=pause_id, epoch=epoch, clears=clears, reason=reason
        )
        return list(self._call("Resume", request).sessions)

    def terminate(self, scope: pb.Scope, reason: str, *, request_id: str = "") -> list[pb.SessionView]:
        """Ends sessions for good."""
        request = pb.TerminateRequest(request_id=request_id or new_id(), scope=scope, reason=reason)
        return list(self._call("Terminate", request).sessions)

    def decide(self, decision_id: str, *, approve: bool, reason: str, request_id: str = "") -> pb.ApprovalView:
        """Decides about a held act, or an escalation."""
        request = pb.DecideRequest(
            request_id=request_id or new_id(), decision_id=decision_id, approve=approve, reason=reason
        )
        view: pb.ApprovalView = self._call("Decide", request).approval
        return view

    def review(self, fingerprint: str, verdict: str, *, reason: str = "", request_id: str = "") -> pb.AlertView:
        """Closes an alert with a verdict: true_positive, false_positive or benign_expected."""
        request = pb.ReviewRequest(
            request_id=request_id or new_id(), fingerprint=fingerprint, verdict=verdict, reason=reason
        )
        view: pb.AlertView = self._call("Review", request).alert
        return view

    def _call(self, method: str, request: Any) -> Any:
        with _translated():
            return getattr(self._stub, method)(request, timeout=self._timeout_s, metadata=self._metadata)


def session(session_id: str, *, realm: str = "") -> pb.Scope:
    """One session."""
    return pb.Scope(session=pb.SessionScope(realm=realm, session_id=session_id))


def tree(session_id: str, *, realm: str = "") -> pb.Scope:
    """A session and all that it started."""
    return pb.Scope(tree=pb.SessionScope(realm=realm, session_id=session_id))


def role(name: str) -> pb.Scope:
    """All sessions of an agent role, those that open later, too."""
    return pb.Scope(role=name)


def fleet() -> pb.Scope:
    """All sessions, those that open later, too."""
    return pb.Scope(fleet=True)


def new_id() -> str:
    """A request id."""
    return uuid.uuid4().hex


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turns gRPC's errors into ours."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        name, words = (code.name, error.details() or "") if code else ("UNKNOWN", "")
        if name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            raise UnreachableError(name, words or "no answer") from None
        raise ControlError(name, words) from None
