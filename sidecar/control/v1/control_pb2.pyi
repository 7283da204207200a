import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_TERMINATED: _ClassVar[RunState]

class Observed(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBSERVED_UNSPECIFIED: _ClassVar[Observed]
    OBSERVED_RUNNING: _ClassVar[Observed]
    OBSERVED_REQUESTED: _ClassVar[Observed]
    OBSERVED_ACKNOWLEDGED: _ClassVar[Observed]
    OBSERVED_QUIESCED: _ClassVar[Observed]
    OBSERVED_UNCONFIRMED: _ClassVar[Observed]
    OBSERVED_UNENFORCED: _ClassVar[Observed]

class Answer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_UNSPECIFIED: _ClassVar[Answer]
    ANSWER_ALLOWED: _ClassVar[Answer]
    ANSWER_WAIT: _ClassVar[Answer]
    ANSWER_REFUSED: _ClassVar[Answer]
    ANSWER_PAUSED: _ClassVar[Answer]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_TERMINATED: RunState
OBSERVED_UNSPECIFIED: Observed
OBSERVED_RUNNING: Observed
OBSERVED_REQUESTED: Observed
OBSERVED_ACKNOWLEDGED: Observed
OBSERVED_QUIESCED: Observed
OBSERVED_UNCONFIRMED: Observed
OBSERVED_UNENFORCED: Observed
ANSWER_UNSPECIFIED: Answer
ANSWER_ALLOWED: Answer
ANSWER_WAIT: Answer
ANSWER_REFUSED: Answer
ANSWER_PAUSED: Answer

class AgentIdentity(_message.Message):
    __slots__ = ("name", "id", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    version: str
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "description", "schema_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    schema_json: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., schema_json: _Optional[str] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("session_id", "agent", "parent_session_id", "task_key", "instance_id", "tools")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_KEY_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    agent: AgentIdentity
    parent_session_id: str
    task_key: str
    instance_id: str
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    def __init__(self, session_id: _Optional[str] = ..., agent: _Optional[_Union[AgentIdentity, _Mapping]] = ..., parent_session_id: _Optional[str] = ..., task_key: _Optional[str] = ..., instance_id: _Optional[str] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ...) -> None: ...

class ToolEffect(_message.Message):
    __slots__ = ("reversible", "known")
    REVERSIBLE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    reversible: bool
    known: bool
    def __init__(self, reversible: bool = ..., known: bool = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("state", "tools", "deadline_ms", "lease_ms")
    class ToolsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ToolEffect
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ToolEffect, _Mapping]] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    state: SessionState
    tools: _containers.MessageMap[str, ToolEffect]
    deadline_ms: int
    lease_ms: int
    def __init__(self, state: _Optional[_Union[SessionState, _Mapping]] = ..., tools: _Optional[_Mapping[str, ToolEffect]] = ..., deadline_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class SessionState(_message.Message):
    __slots__ = ("session_id", "state", "epoch", "pause_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PAUSE_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: RunState
    epoch: int
    pause_id: str
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., epoch: _Optional[int] = ..., pause_id: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("instance_id", "known", "dropped_spans")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    DROPPED_SPANS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    known: _containers.RepeatedCompositeFieldContainer[SessionState]
    dropped_spans: int
    def __init__(self, instance_id: _Optional[str] = ..., known: _Optional[_Iterable[_Union[SessionState, _Mapping]]] = ..., dropped_spans: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("states", "lease_ms")
    STATES_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[SessionState]
    lease_ms: int
    def __init__(self, states: _Optional[_Iterable[_Union[SessionState, _Mapping]]] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class AuthorizeRequest(_message.Message):
    __slots__ = ("session_id", "instance_id", "tool", "arguments_json", "call_id", "carried", "pending", "agent", "asked_at")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    instance_id: str
    tool: str
    arguments_json: str
    call_id: str
    carried: _containers.RepeatedScalarFieldContainer[bytes]
    pending: _containers.RepeatedScalarFieldContainer[str]
    agent: AgentIdentity
    asked_at: _timestamp_pb2.Timestamp
    def __init__(self, session_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., tool: _Optional[str] = ..., arguments_json: _Optional[str] = ..., call_id: _Optional[str] = ..., carried: _Optional[_Iterable[bytes]] = ..., pending: _Optional[_Iterable[str]] = ..., agent: _Optional[_Union[AgentIdentity, _Mapping]] = ..., asked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AuthorizeResponse(_message.Message):
    __slots__ = ("answer", "decision_id", "retry_after_ms", "state", "grant", "judged", "call_id")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    answer: Answer
    decision_id: str
    retry_after_ms: int
    state: SessionState
    grant: Grant
    judged: bool
    call_id: str
    def __init__(self, answer: _Optional[_Union[Answer, str]] = ..., decision_id: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., state: _Optional[_Union[SessionState, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., judged: bool = ..., call_id: _Optional[str] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("grant_id", "digest", "expires_at", "signature")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    digest: bytes
    expires_at: _timestamp_pb2.Timestamp
    signature: bytes
    def __init__(self, grant_id: _Optional[str] = ..., digest: _Optional[bytes] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class AwaitDecisionRequest(_message.Message):
    __slots__ = ("decision_id", "timeout_ms")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    timeout_ms: int
    def __init__(self, decision_id: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class AwaitDecisionResponse(_message.Message):
    __slots__ = ("answer", "state", "grant")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    answer: Answer
    state: SessionState
    grant: Grant
    def __init__(self, answer: _Optional[_Union[Answer, str]] = ..., state: _Optional[_Union[SessionState, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ...) -> None: ...

class RedeemGrantRequest(_message.Message):
    __slots__ = ("grant", "session_id", "tool", "arguments_json")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    grant: Grant
    session_id: str
    tool: str
    arguments_json: str
    def __init__(self, grant: _Optional[_Union[Grant, _Mapping]] = ..., session_id: _Optional[str] = ..., tool: _Optional[str] = ..., arguments_json: _Optional[str] = ...) -> None: ...

class RedeemGrantResponse(_message.Message):
    __slots__ = ("redeemed",)
    REDEEMED_FIELD_NUMBER: _ClassVar[int]
    redeemed: bool
    def __init__(self, redeemed: bool = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("session_id", "call_id", "decision_id", "failed", "ungated", "tool")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    UNGATED_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    call_id: str
    decision_id: str
    failed: bool
    ungated: bool
    tool: str
    def __init__(self, session_id: _Optional[str] = ..., call_id: _Optional[str] = ..., decision_id: _Optional[str] = ..., failed: bool = ..., ungated: bool = ..., tool: _Optional[str] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("session_id", "epoch", "observed", "in_flight")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    observed: Observed
    in_flight: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., observed: _Optional[_Union[Observed, str]] = ..., in_flight: _Optional[_Iterable[str]] = ...) -> None: ...

class AcknowledgeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EscalateRequest(_message.Message):
    __slots__ = ("session_id", "reason", "at_least_ms", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reason: str
    at_least_ms: int
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., reason: _Optional[str] = ..., at_least_ms: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class EscalateResponse(_message.Message):
    __slots__ = ("decision_id", "state")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    state: SessionState
    def __init__(self, decision_id: _Optional[str] = ..., state: _Optional[_Union[SessionState, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "policy_digest", "ready", "degraded", "sessions", "held", "held_scopes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    HELD_SCOPES_FIELD_NUMBER: _ClassVar[int]
    version: str
    policy_digest: str
    ready: bool
    degraded: _containers.RepeatedScalarFieldContainer[str]
    sessions: int
    held: int
    held_scopes: _containers.RepeatedCompositeFieldContainer[HeldScope]
    def __init__(self, version: _Optional[str] = ..., policy_digest: _Optional[str] = ..., ready: bool = ..., degraded: _Optional[_Iterable[str]] = ..., sessions: _Optional[int] = ..., held: _Optional[int] = ..., held_scopes: _Optional[_Iterable[_Union[HeldScope, _Mapping]]] = ...) -> None: ...

class HeldScope(_message.Message):
    __slots__ = ("scope", "causes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    scope: str
    causes: _containers.RepeatedCompositeFieldContainer[Cause]
    def __init__(self, scope: _Optional[str] = ..., causes: _Optional[_Iterable[_Union[Cause, _Mapping]]] = ...) -> None: ...

class Cause(_message.Message):
    __slots__ = ("pause_id", "by", "actor", "reason", "finding_ids", "at")
    PAUSE_ID_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINDING_IDS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    pause_id: str
    by: str
    actor: str
    reason: str
    finding_ids: _containers.RepeatedScalarFieldContainer[str]
    at: _timestamp_pb2.Timestamp
    def __init__(self, pause_id: _Optional[str] = ..., by: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., finding_ids: _Optional[_Iterable[str]] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SessionView(_message.Message):
    __slots__ = ("realm", "session_id", "agent", "agent_version", "grade", "state", "observed", "epoch", "pause_id", "causes", "risk", "peak_severity", "unscored", "acts", "last_seen", "in_flight", "stressors", "parent_session_id", "tier")
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    GRADE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PAUSE_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    PEAK_SEVERITY_FIELD_NUMBER: _ClassVar[int]
    UNSCORED_FIELD_NUMBER: _ClassVar[int]
    ACTS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    STRESSORS_FIELD_NUMBER: _ClassVar[int]
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    realm: str
    session_id: str
    agent: str
    agent_version: str
    grade: str
    state: RunState
    observed: Observed
    epoch: int
    pause_id: str
    causes: _containers.RepeatedCompositeFieldContainer[Cause]
    risk: float
    peak_severity: str
    unscored: _containers.RepeatedScalarFieldContainer[str]
    acts: int
    last_seen: _timestamp_pb2.Timestamp
    in_flight: _containers.RepeatedScalarFieldContainer[str]
    stressors: _containers.RepeatedScalarFieldContainer[str]
    parent_session_id: str
    tier: str
    def __init__(self, realm: _Optional[str] = ..., session_id: _Optional[str] = ..., agent: _Optional[str] = ..., agent_version: _Optional[str] = ..., grade: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., observed: _Optional[_Union[Observed, str]] = ..., epoch: _Optional[int] = ..., pause_id: _Optional[str] = ..., causes: _Optional[_Iterable[_Union[Cause, _Mapping]]] = ..., risk: _Optional[float] = ..., peak_severity: _Optional[str] = ..., unscored: _Optional[_Iterable[str]] = ..., acts: _Optional[int] = ..., last_seen: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., in_flight: _Optional[_Iterable[str]] = ..., stressors: _Optional[_Iterable[str]] = ..., parent_session_id: _Optional[str] = ..., tier: _Optional[str] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("realm", "session_id", "states", "limit")
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    realm: str
    session_id: str
    states: _containers.RepeatedScalarFieldContainer[RunState]
    limit: int
    def __init__(self, realm: _Optional[str] = ..., session_id: _Optional[str] = ..., states: _Optional[_Iterable[_Union[RunState, str]]] = ..., limit: _Optional[int] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionView]
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionView, _Mapping]]] = ...) -> None: ...

class ReasonView(_message.Message):
    __slots__ = ("detector", "family", "severity", "score", "text")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    detector: str
    family: str
    severity: str
    score: float
    text: str
    def __init__(self, detector: _Optional[str] = ..., family: _Optional[str] = ..., severity: _Optional[str] = ..., score: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class AlertView(_message.Message):
    __slots__ = ("fingerprint", "detector", "family", "severity", "realm", "session_id", "agent", "state", "action", "text", "count", "opened_at", "last_at", "resolved_at", "verdict", "score")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_AT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    detector: str
    family: str
    severity: str
    realm: str
    session_id: str
    agent: str
    state: str
    action: str
    text: str
    count: int
    opened_at: _timestamp_pb2.Timestamp
    last_at: _timestamp_pb2.Timestamp
    resolved_at: _timestamp_pb2.Timestamp
    verdict: str
    score: float
    def __init__(self, fingerprint: _Optional[str] = ..., detector: _Optional[str] = ..., family: _Optional[str] = ..., severity: _Optional[str] = ..., realm: _Optional[str] = ..., session_id: _Optional[str] = ..., agent: _Optional[str] = ..., state: _Optional[str] = ..., action: _Optional[str] = ..., text: _Optional[str] = ..., count: _Optional[int] = ..., opened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resolved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., verdict: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class ListAlertsRequest(_message.Message):
    __slots__ = ("realm", "session_id", "all", "limit")
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    realm: str
    session_id: str
    all: bool
    limit: int
    def __init__(self, realm: _Optional[str] = ..., session_id: _Optional[str] = ..., all: bool = ..., limit: _Optional[int] = ...) -> None: ...

class ListAlertsResponse(_message.Message):
    __slots__ = ("alerts",)
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    alerts: _containers.RepeatedCompositeFieldContainer[AlertView]
    def __init__(self, alerts: _Optional[_Iterable[_Union[AlertView, _Mapping]]] = ...) -> None: ...

class GetEvidenceRequest(_message.Message):
    __slots__ = ("fingerprint",)
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    def __init__(self, fingerprint: _Optional[str] = ...) -> None: ...

class EvidenceView(_message.Message):
    __slots__ = ("finding_id", "text", "span_id", "field", "start", "end", "excerpt", "digest", "at")
    FINDING_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    EXCERPT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    finding_id: str
    text: str
    span_id: str
    field: str
    start: int
    end: int
    excerpt: str
    digest: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, finding_id: _Optional[str] = ..., text: _Optional[str] = ..., span_id: _Optional[str] = ..., field: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., excerpt: _Optional[str] = ..., digest: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetEvidenceResponse(_message.Message):
    __slots__ = ("alert", "evidence")
    ALERT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    alert: AlertView
    evidence: _containers.RepeatedCompositeFieldContainer[EvidenceView]
    def __init__(self, alert: _Optional[_Union[AlertView, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[EvidenceView, _Mapping]]] = ...) -> None: ...

class Scope(_message.Message):
    __slots__ = ("session", "tree", "role", "fleet")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    session: SessionScope
    tree: SessionScope
    role: str
    fleet: bool
    def __init__(self, session: _Optional[_Union[SessionScope, _Mapping]] = ..., tree: _Optional[_Union[SessionScope, _Mapping]] = ..., role: _Optional[str] = ..., fleet: bool = ...) -> None: ...

class SessionScope(_message.Message):
    __slots__ = ("realm", "session_id")
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    realm: str
    session_id: str
    def __init__(self, realm: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("request_id", "scope", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    scope: Scope
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., scope: _Optional[_Union[Scope, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("request_id", "scope", "pause_id", "epoch", "clears", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PAUSE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CLEARS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    scope: Scope
    pause_id: str
    epoch: int
    clears: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., scope: _Optional[_Union[Scope, _Mapping]] = ..., pause_id: _Optional[str] = ..., epoch: _Optional[int] = ..., clears: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class TerminateRequest(_message.Message):
    __slots__ = ("request_id", "scope", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    scope: Scope
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., scope: _Optional[_Union[Scope, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ChangeResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionView]
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionView, _Mapping]]] = ...) -> None: ...

class ApprovalView(_message.Message):
    __slots__ = ("decision_id", "realm", "session_id", "agent", "tool", "arguments", "reasons", "asked_at", "deadline", "state", "independence")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INDEPENDENCE_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    realm: str
    session_id: str
    agent: str
    tool: str
    arguments: str
    reasons: _containers.RepeatedCompositeFieldContainer[ReasonView]
    asked_at: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    state: str
    independence: str
    def __init__(self, decision_id: _Optional[str] = ..., realm: _Optional[str] = ..., session_id: _Optional[str] = ..., agent: _Optional[str] = ..., tool: _Optional[str] = ..., arguments: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[ReasonView, _Mapping]]] = ..., asked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[str] = ..., independence: _Optional[str] = ...) -> None: ...

class ListApprovalsRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: bool = ...) -> None: ...

class ListApprovalsResponse(_message.Message):
    __slots__ = ("approvals",)
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    approvals: _containers.RepeatedCompositeFieldContainer[ApprovalView]
    def __init__(self, approvals: _Optional[_Iterable[_Union[ApprovalView, _Mapping]]] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("request_id", "decision_id", "approve", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    APPROVE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    decision_id: str
    approve: bool
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., decision_id: _Optional[str] = ..., approve: bool = ..., reason: _Optional[str] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("approval",)
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    approval: ApprovalView
    def __init__(self, approval: _Optional[_Union[ApprovalView, _Mapping]] = ...) -> None: ...

class ReviewRequest(_message.Message):
    __slots__ = ("request_id", "fingerprint", "verdict", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    fingerprint: str
    verdict: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., fingerprint: _Optional[str] = ..., verdict: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReviewResponse(_message.Message):
    __slots__ = ("alert",)
    ALERT_FIELD_NUMBER: _ClassVar[int]
    alert: AlertView
    def __init__(self, alert: _Optional[_Union[AlertView, _Mapping]] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("after_seq", "limit")
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after_seq: int
    limit: int
    def __init__(self, after_seq: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class AuditView(_message.Message):
    __slots__ = ("seq", "at", "actor", "action", "realm", "session_id", "epoch", "request_id", "detail_json", "hash")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REALM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_JSON_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    seq: int
    at: _timestamp_pb2.Timestamp
    actor: str
    action: str
    realm: str
    session_id: str
    epoch: int
    request_id: str
    detail_json: str
    hash: str
    def __init__(self, seq: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., action: _Optional[str] = ..., realm: _Optional[str] = ..., session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., request_id: _Optional[str] = ..., detail_json: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditView]
    def __init__(self, records: _Optional[_Iterable[_Union[AuditView, _Mapping]]] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("alert", "session", "approval")
    ALERT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    alert: AlertView
    session: SessionView
    approval: ApprovalView
    def __init__(self, alert: _Optional[_Union[AlertView, _Mapping]] = ..., session: _Optional[_Union[SessionView, _Mapping]] = ..., approval: _Optional[_Union[ApprovalView, _Mapping]] = ...) -> None: ...
