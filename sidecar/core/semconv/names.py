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


ADK: Names = {
    "arguments": ("gcp.vertex.agent.tool_call_args",),
    "result": ("gcp.vertex.agent.tool_response",),
    "request": ("gcp.vertex.agent.llm_request",),
    "response": ("gcp.vertex.agent.llm_response",),
    "sent": ("gcp.vertex.agent.data",),  # what a live session sends to the model
}

VERCEL: Names = {
    "operation": ("ai.operationId",),
    "tool": ("ai.toolCall.name",),
    "call_id": ("ai.toolCall.id",),
    "arguments": ("ai.toolCall.args", "ai.toolCall.input"),
    "result": ("ai.toolCall.result", "ai.toolCall.output"),
    "prompt": ("ai.prompt",),
    "messages": ("ai.prompt.messages",),
    "tools": ("ai.prompt.tools",),
    "reasoning": ("ai.response.reasoning",),
    "text": ("ai.response.text", "ai.result.text"),
    "object": ("ai.response.object", "ai.result.object"),
    "calls": ("ai.response.toolCalls", "ai.result.toolCalls"),
    "finish": ("ai.response.finishReason", "ai.finishReason", "gen_ai.response.finish_reasons"),
    "model": ("ai.response.model", "gen_ai.response.model", "ai.model.id"),
    "input_tokens": ("ai.usage.inputTokens", "ai.usage.promptTokens", "gen_ai.usage.input_tokens"),
    "output_tokens": ("ai.usage.outputTokens", "ai.usage.completionTokens", "gen_ai.usage.output_tokens"),
}

CLAUDE_CODE: Names = {
    "kind": ("span.type",),
    "tool": ("tool_name", "function_name", "gen_ai.tool.name"),
    "call_id": ("tool_use_id", "call_id", "gen_ai.tool.call.id"),
    "parameters": ("tool_parameters",),
    "arguments": ("tool_input", "arguments", "function_args"),
    "result": ("tool_output", "output"),
    "error": ("error", "error_message"),
    "prompt": ("user_prompt", "prompt", "prompt_text"),
    "answer": ("response", "response_text"),
    "output": ("response.model_output",),
    "model": ("gen_ai.response.model", "gen_ai.request.model", "model"),
    "finish": ("gen_ai.response.finish_reasons", "stop_reason"),
    "input_tokens": ("gen_ai.usage.input_tokens", "input_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "output_tokens"),
}

MCP: Names = {
    "method": ("mcp.method.name", "mcp.method"),
    "tool": ("gen_ai.tool.name", "mcp.tool.name"),
    "call_id": ("gen_ai.tool.call.id",),
    "arguments": ("gen_ai.tool.call.arguments", "mcp.tool.arguments", "mcp.request.arguments"),
    "result": ("gen_ai.tool.call.result", "mcp.tool.result", "mcp.response.result"),
    "a2a": ("a2a.method.name", "a2a.task.id", "a2a.message.id"),
}

PYDANTIC_AI: Names = {
    "arguments": ("tool_arguments",),
    "result": ("tool_response",),
    "events": ("events",),  # of a model's span, before 1.0
    "all_messages": ("pydantic_ai.all_messages", "all_messages_events"),
    "final": ("final_result",),
    "model": ("gen_ai.response.model", "gen_ai.request.model", "model_name"),
}

SEMANTIC_KERNEL: Names = {
    "writer": ("code.function.name", "code.function"),
}


def event_name(span: Span) -> str:
    """The name of a log record's event: told as such, else in an attribute, else the body."""
    if span.name:
        return span.name
    if isinstance(told := span.attributes.get("event.name"), str) and told:
        return told
    return span.body if isinstance(span.body, str) and len(span.body) <= MAX_EVENT_NAME else ""


OPENINFERENCE: Names = {
    "tool": ("tool.name", "tool_call.function.name", "graph.node.name"),
    "description": ("tool.description",),
    "call_id": ("sidecar.call.id", "tool.id", "tool_call.id", "tool.call_id", "tool_call_id"),
    "inputs": ("input.value", "tool_call.function.arguments"),
    "outputs": ("output.value",),
    "model": ("llm.response.model_name", "llm.model_name", "llm.request.model_name"),
    "finish": ("llm.finish_reason",),
    "input_tokens": ("llm.token_count.prompt",),
    "output_tokens": ("llm.token_count.completion",),
}

TRACELOOP: Names = {
    # Of the SDK's decorators, of instrumentations up to 0.4x, and of earlier ones still (`llm.*`).
    "tool": ("gen_ai.tool.name", "tool.name", "traceloop.entity.name"),
    "description": ("gen_ai.tool.description", "tool.description"),
    "arguments": ("tool.arguments", "traceloop.entity.input", "gen_ai.tool.call.arguments"),
    "result": ("traceloop.entity.output", "gen_ai.tool.call.result"),
    "model": ("gen_ai.response.model", "gen_ai.request.model", "llm.response.model", "llm.request.model"),
    "finish": ("gen_ai.response.finish_reasons", "llm.response.finish_reason", "llm.response.stop_reason"),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens"),
    "tools": ("llm.request.functions", "gen_ai.tool.definitions"),
    "user": ("llm.user",),
}

CREWAI: Names = {
    "agent_name": ("gen_ai.agent.name", "crewai.task.agent", "crewai.agent.role"),
    "answer": ("traceloop.entity.output", "crewai.task.output"),
    "system": ("crewai.agent.goal", "crewai.agent.backstory"),
    "tools": ("crewai.agent.tools", "crewai.task.tools"),
}

LANGSMITH: Names = {
    "tool": ("gen_ai.tool.name", "langsmith.trace.name"),
    "call_id": ("gen_ai.tool.call.id", "langsmith.metadata.tool_call_id"),
    "input": ("gen_ai.prompt", "langsmith.span.inputs"),
    "output": ("gen_ai.completion", "langsmith.span.outputs"),
    "hidden_input": ("langsmith.metadata.LANGSMITH_HIDE_INPUTS", "langsmith.metadata.LANGCHAIN_HIDE_INPUTS"),
    "hidden_output": ("langsmith.metadata.LANGSMITH_HIDE_OUTPUTS", "langsmith.metadata.LANGCHAIN_HIDE_OUTPUTS"),
    "model": ("gen_ai.response.model", "gen_ai.request.model", "langsmith.metadata.ls_model_name"),
    "finish": ("gen_ai.response.finish_reasons",),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "tools": ("gen_ai.tool.definitions",),
}


def first(get: Callable[[str], Any], names: tuple[str, ...]) -> Any:
    """The value of the first of `names` that is there, None when none is."""
    for name in names:
        if (value := get(name)) is not None:
            return value
    return None


def text(value: Any) -> str:
    """A scalar as text, "" for None."""
    return value if isinstance(value, str) else "" if value is None else str(value)
