"""What every convention calls each field: a renamed attribute is a change of one line here.

A tuple is read from left to right; the first name that the span has wins, so the newest name stands first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.core.span import Span

Names = dict[str, tuple[str, ...]]

MAX_EVENT_NAME = 64
"""Longest body of a log record that is taken for the name of its event."""

IDENTITY: Names = {
    # Never `mcp.session.id` (a transport's, often new for every request) nor `thread.id` (an operating system's).
    "session": (
        "gen_ai.conversation.id", "session.id", "gcp.vertex.agent.session_id",
        "traceloop.association.properties.session_id", "traceloop.association.properties.conversation_id",
        "traceloop.association.properties.thread_id", "traceloop.association.properties.chat_id",
        "langsmith.metadata.session_id", "langsmith.metadata.conversation_id", "langsmith.metadata.thread_id",
        "ai.telemetry.metadata.sessionId", "ai.telemetry.metadata.session_id", "ai.telemetry.metadata.conversationId",
        "ai.telemetry.metadata.threadId", "ai.telemetry.metadata.thread_id", "ai.telemetry.metadata.chatId",
        "langfuse.session.id", "gen_ai.thread.id", "gen_ai.session.id", "conversation.id", "conversation_id",
        "session_id", "thread_id",
    ),
    "parent_session": ("sidecar.session.parent_id", "gen_ai.conversation.parent_id"),
    "agent_name": ("gen_ai.agent.name", "agent.name", "agent_name", "langsmith.metadata.lc_agent_name",
                   "ai.telemetry.functionId"),
    "agent_id": ("gen_ai.agent.id", "agent.id", "agent_id"),
    "agent_version": ("gen_ai.agent.version", "agent.version"),
    "user": ("user.id", "enduser.id", "gen_ai.user", "gen_ai.user.id", "traceloop.association.properties.user_id",
             "langsmith.metadata.user_id", "ai.telemetry.metadata.userId", "ai.telemetry.metadata.user_id",
             "langfuse.user.id", "user_id"),
}  # fmt: skip

GENAI: Names = {
    "operation": ("gen_ai.operation.name",),
    "tool": ("gen_ai.tool.name",),
    "description": ("gen_ai.tool.description",),
    "call_id": ("sidecar.call.id", "gen_ai.tool.call.id"),
    "arguments": ("gen_ai.tool.call.arguments",),
    "result": ("gen_ai.tool.call.result",),
    "inputs": ("gen_ai.input.messages",),
    "outputs": ("gen_ai.output.messages",),
    "system": ("gen_ai.system_instructions",),
    "tools": ("gen_ai.tool.definitions",),
    "model": ("gen_ai.response.model", "gen_ai.request.model"),
    "finish": ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason"),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "query": ("gen_ai.retrieval.query.text",),
    "documents": ("gen_ai.retrieval.documents",),
}


EVENTS: Names = {
    # Both older generations of OpenTelemetry GenAI: one event a message, and texts in attributes.
    "inputs": ("gen_ai.prompt",),
    "outputs": ("gen_ai.completion",),
    "whole": ("gen_ai.event.content",),  # of a span event: the whole message as JSON
    "content": ("content", "gen_ai.prompt", "gen_ai.completion", "message"),
}  # fmt: skip


def event_name(span: Span) -> str:
    """The name of a log record's event: told as such, else in an attribute, else the body."""
    if span.name:
        return span.name
    if isinstance(told := span.attributes.get("event.name"), str) and told:
        return told
    return span.body if isinstance(span.body, str) and len(span.body) <= MAX_EVENT_NAME else ""


def first(get: Callable[[str], Any], names: tuple[str, ...]) -> Any:
    """The value of the first of `names` that is there, None when none is."""
    for name in names:
        if (value := get(name)) is not None:
            return value
    return None


def text(value: Any) -> str:
    """A scalar as text, "" for None."""
    return value if isinstance(value, str) else "" if value is None else str(value)
