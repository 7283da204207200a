"""The exact switch that makes an instrumentation tell what it keeps to itself, and what to do where there is none.

A library is told by the name of its instrumentation scope, and only to choose the advice: what is read goes by keys and
values alone (`semconv`). Spellings are those of the libraries' own documentation as of November 2026 and of the
versions whose telemetry was recorded (docs/coverage.md); `since` is the lowest version known to have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from sidecar.core.coverage import INPUTS, AgentReport

CONTENT = ("arguments", "results", "user_texts", "answers", "system_prompt", "reasoning")


class Library(Struct, frozen=True):
    """One instrumentation and its switches.

    Attributes:
        name: For people.
        scopes: Names of its scopes, or what they begin with up to a dot; the longest that fits decides.
        content: What makes it tell arguments, results and texts: lines of environment or code.
        by_default: Whether it tells content unless told otherwise.
        since: Lowest version that is known to have these switches, "" where that is not known.
        more: Input → what makes it tell that; before `content`.
        never: Input → what to do instead, where the library cannot tell it at all.
    """

    name: str
    scopes: tuple[str, ...]
    content: str = ""
    by_default: bool = False
    since: str = ""
    more: Mapping[str, str] = {}
    never: Mapping[str, str] = {}


GATE = (
    "gate the tools with the sidecar's own library, `send_mail = agent.tool(send_mail)`: each call is then told with "
    "its arguments and its result, before it runs"
)
ANY_SESSION = (
    'run the agent within `with agent.session("ID"):` of the sidecar\'s library, which names it on every span; '
    "or put `gen_ai.conversation.id` into OpenTelemetry baggage and add "
    '`BaggageSpanProcessor(lambda key: key == "gen_ai.conversation.id")` (`opentelemetry-processor-baggage`)'
)
ANY_USER = (
    "put `user.id` into OpenTelemetry baggage and add "
    '`BaggageSpanProcessor(lambda key: key == "user.id")` (`opentelemetry-processor-baggage`)'
)
ANY_NAME = "`OTEL_SERVICE_NAME=<the agent's name>`, or the attribute `gen_ai.agent.name` on its spans"
ANY_VERSION = "the attribute `gen_ai.agent.version` on its spans"
ANY_PARENT = (
    "the attribute `sidecar.session.parent_id` on one span of the child; the sidecar's library sets it for a session "
    "that is opened within another"
)
HAND_MADE = (
    "set `gen_ai.tool.call.arguments`, `gen_ai.tool.call.result`, `gen_ai.input.messages` and "
    "`gen_ai.output.messages` on its "
    "spans (docs/integrating.md)"
)

_NO_TOOLS = (
    "it instruments the model's client, which has no tools: acts are taken from the model's messages, so its content "
    "has to be on; or " + GATE
)
_OI_SESSION = '`with using_session("ID"):` around the run (`from openinference.instrumentation import using_session`)'
_OI_USER = '`with using_user("ID"):` around the run (`from openinference.instrumentation import using_user`)'
_OI_CONTENT = (
    "on by default: leave `OPENINFERENCE_HIDE_INPUTS`, `OPENINFERENCE_HIDE_OUTPUTS`, "
    "`OPENINFERENCE_HIDE_INPUT_MESSAGES`, `OPENINFERENCE_HIDE_OUTPUT_MESSAGES`, `OPENINFERENCE_HIDE_INPUT_TEXT` and "
    "`OPENINFERENCE_HIDE_OUTPUT_TEXT` unset or false, and give no `TraceConfig(hide_…=True)`"
)
_OI_CLIENT = "add the instrumentation of the model's client, e.g. `openinference-instrumentation-openai`"
_OI: dict[str, str] = {"session": _OI_SESSION, "user": _OI_USER}

_OTEL_CONTENT = (
    "`OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental` and "
    "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY` (or `SPAN_AND_EVENT`, for log records as well)"
)
_TL_CONTENT = "on by default: leave `TRACELOOP_TRACE_CONTENT` unset, or `TRACELOOP_TRACE_CONTENT=true`"
_TL: dict[str, str] = {
    "session": '`Traceloop.set_association_properties({"session_id": "ID"})` before the run (traceloop-sdk)',
    "user": '`Traceloop.set_association_properties({"user_id": "ID"})` before the run (traceloop-sdk)',
}
_LANGGRAPH_SESSION = 'give the run its conversation: `config={"configurable": {"thread_id": "ID"}}`'

LIBRARIES: tuple[Library, ...] = (
    Library("OpenInference", ("openinference.instrumentation",), _OI_CONTENT, by_default=True, more=_OI),
    Library(
        "OpenInference for LangChain and LangGraph", ("openinference.instrumentation.langchain",), _OI_CONTENT,
        by_default=True, more=_OI | {"session": f"{_LANGGRAPH_SESSION}; or {_OI_SESSION}"},
    ),
    Library(
        "OpenInference for CrewAI", ("openinference.instrumentation.crewai",), _OI_CONTENT, by_default=True,
        more=_OI | dict.fromkeys(("model_calls", "tokens", "call_ids", "reasoning"), _OI_CLIENT),
    ),
    Library(
        "OpenInference for a model's client",
        ("openinference.instrumentation.openai", "openinference.instrumentation.anthropic"),
        _OI_CONTENT, by_default=True, more=_OI, never={"acts": _NO_TOOLS},
    ),
    Library(
        "OpenInference for the OpenAI Agents SDK", ("openinference.instrumentation.openai_agents",), _OI_CONTENT,
        by_default=True, more=_OI,
    ),
    Library(
        "OpenInference for the Claude Agent SDK", ("openinference.instrumentation.claude_agent_sdk",), _OI_CONTENT,
        by_default=True, more=_OI,
        never={
            **dict.fromkeys(
                ("user_texts", "system_prompt", "reasoning", "model_calls", "tokens"),
                "it does not tell this; use Claude Code's own telemetry instead: `CLAUDE_CODE_ENABLE_TELEMETRY=1`, "
                "`CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1`, `OTEL_TRACES_EXPORTER=otlp`, `OTEL_LOGS_EXPORTER=otlp`, "
                "`OTEL_LOG_USER_PROMPTS=1`, `OTEL_LOG_TOOL_DETAILS=1`, `OTEL_LOG_TOOL_CONTENT=1`",
            )
        },
    ),
    Library(
        "OpenTelemetry GenAI", ("opentelemetry.instrumentation.genai",), _OTEL_CONTENT,
        since="opentelemetry-util-genai 0.2b0",
    ),
    Library(
        "OpenTelemetry GenAI for LangChain and LangGraph", ("opentelemetry.instrumentation.genai.langchain",),
        _OTEL_CONTENT, since="opentelemetry-util-genai 0.2b0",
        more={"session": f"{_LANGGRAPH_SESSION}; or {ANY_SESSION}"},
    ),
    Library(
        "OpenTelemetry GenAI for the OpenAI Agents SDK", ("opentelemetry.instrumentation.genai.openai_agents",),
        _OTEL_CONTENT, since="opentelemetry-util-genai 0.2b0",
        never=dict.fromkeys(
            ("user_texts", "answers", "system_prompt", "reasoning", "model_calls", "tokens", "call_ids"),
            "it makes no spans of model calls: install `opentelemetry-instrumentation-genai-openai` as well "
            f"(`OpenAIInstrumentor().instrument()`), and set {_OTEL_CONTENT}",
        ),
    ),
    Library(
        "OpenTelemetry GenAI for a model's client",
        ("opentelemetry.instrumentation.genai.openai", "opentelemetry.instrumentation.genai.anthropic"),
        _OTEL_CONTENT, since="opentelemetry-util-genai 0.2b0", never={"acts": _NO_TOOLS},
    ),
    Library(
        "OpenTelemetry GenAI for smolagents", ("opentelemetry.instrumentation.genai.smolagents",), _OTEL_CONTENT,
        since="opentelemetry-util-genai 0.2b0",
        never=dict.fromkeys(
            ("acts", "arguments", "results", "call_ids", "model_calls", "tokens", "reasoning"),
            "it tells only the whole run: use `openinference-instrumentation-smolagents` "
            f"(`SmolagentsInstrumentor().instrument()`), or {GATE}",
        ),
    ),
    Library(
        "opentelemetry-instrumentation-openai-v2", ("opentelemetry.instrumentation.openai_v2",),
        "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`; content comes in log records only: "
        "`OTEL_LOGS_EXPORTER=otlp`, or a LoggerProvider with an OTLP exporter",
        never={"acts": _NO_TOOLS},
    ),
    Library(
        "OpenLLMetry (traceloop)",
        ("opentelemetry.instrumentation.openai_agents", "traceloop"), _TL_CONTENT, by_default=True, more=_TL,
    ),
    Library(
        "OpenLLMetry for a model's client",
        ("opentelemetry.instrumentation.openai", "opentelemetry.instrumentation.anthropic"), _TL_CONTENT,
        by_default=True, more=_TL, never={"acts": _NO_TOOLS},
    ),
    Library(
        "OpenLLMetry for LangChain and LangGraph", ("opentelemetry.instrumentation.langchain",), _TL_CONTENT,
        by_default=True,
        more={"session": _LANGGRAPH_SESSION, "user": '`config={"metadata": {"user_id": "ID"}}`'},
    ),
    Library(
        "OpenLLMetry for CrewAI", ("opentelemetry.instrumentation.crewai",),
        "on, whatever `TRACELOOP_TRACE_CONTENT` says", by_default=True, more=_TL,
        never=dict.fromkeys(
            ("model_calls", "tokens", "reasoning"),
            "it makes no spans of model calls: add opentelemetry-instrumentation-openai, or that of your model",
        ),
    ),
    Library(
        "OpenLLMetry for MCP", ("opentelemetry.instrumentation.mcp",), _TL_CONTENT, by_default=True,
        since="opentelemetry-instrumentation-mcp 0.62, with mcp<2",
        never=dict.fromkeys(
            ("user_texts", "answers", "system_prompt", "reasoning", "model_calls", "tokens", "agent_name"),
            "a tool server knows only its tools: instrument the agent that calls it, too",
        ),
    ),
    Library(
        "MCP (the SDK's and FastMCP's own spans)", ("mcp-python-sdk", "fastmcp"),
        never={
            **dict.fromkeys(
                ("arguments", "results", "call_ids"),
                "it never tells these: instrument the agent that calls the server, with content on; or " + GATE,
            ),
            **dict.fromkeys(
                ("user_texts", "answers", "system_prompt", "reasoning", "model_calls", "tokens", "session"),
                "a tool server knows only its tools: instrument the agent that calls it, too",
            ),
        },
    ),
    Library(
        "Anthropic SDK's own spans", ("com.anthropic.sdk",),
        never=dict.fromkeys(
            CONTENT,
            "it never tells content: add `openinference-instrumentation-anthropic`, or "
            f"opentelemetry-instrumentation-genai-anthropic with {_OTEL_CONTENT}",
        ),
    ),
    Library(
        "Pydantic AI and Logfire", ("pydantic-ai", "pydantic_ai"),
        "on by default: `Agent.instrument_all(InstrumentationSettings(include_content=True))`, or "
        "`logfire.instrument_pydantic_ai(include_content=True)`",
        by_default=True,
        more={"session": '`agent.run(…, conversation_id="ID")`; else each run without a history is one of its own'},
    ),
    Library(
        "Google ADK", ("gcp.vertex.agent",),
        "`OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental`, "
        "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_AND_EVENT` and "
        "`ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=true` (google-adk 1.x has it on, and no switch)",
        more={"session": "it names its session by itself", "user": "it names the user in log records: export these"},
    ),
    Library(
        "OpenInference for Google ADK", ("openinference.instrumentation.google_adk",),
        f"{_OI_CONTENT}; ADK's own model spans need `ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=true` as well",
        by_default=True, more={"session": "it names ADK's session by itself", "user": "it names ADK's user by itself"},
    ),
    Library(
        "Microsoft Agent Framework", ("agent_framework",),
        "`ENABLE_INSTRUMENTATION=true` and `ENABLE_SENSITIVE_DATA=true`, or "
        "`enable_instrumentation(enable_sensitive_data=True)` (agent_framework.observability)",
    ),
    Library(
        "Semantic Kernel", ("semantic_kernel",),
        "`SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE=true`, before it is imported; user texts "
        "come in log records only: add a LoggerProvider with an OTLP exporter to Python's logging",
    ),
    Library(
        "AutoGen", ("autogen-core", "autogen"),
        never=dict.fromkeys(
            (*CONTENT, "tokens", "model_calls"),
            "it never tells content: add the instrumentation of the model's client, e.g. "
            f"`openinference-instrumentation-openai`, whose messages hold the calls; or {GATE}",
        ),
    ),
    Library(
        "Claude Code and the Claude Agent SDK", ("com.anthropic.claude_code",),
        "`CLAUDE_CODE_ENABLE_TELEMETRY=1`, `CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1`, `OTEL_TRACES_EXPORTER=otlp` and "
        "`OTEL_LOGS_EXPORTER=otlp`, then `OTEL_LOG_TOOL_DETAILS=1` (arguments, in log records), "
        "`OTEL_LOG_TOOL_CONTENT=1` (results, in spans), `OTEL_LOG_USER_PROMPTS=1` and "
        "`OTEL_LOG_ASSISTANT_RESPONSES=1` (texts)",
        since="Claude Code 2.1.193",
        more={"agent_name": "`OTEL_SERVICE_NAME=<the agent's name>`; else all of them are claude-code"},
        never={
            "system_prompt": "it tells instructions only in whole request bodies (`OTEL_LOG_RAW_API_BODIES=1`), which "
            "the sidecar does not read",
            "reasoning": "it never exports what the model thought",
        },
    ),
    Library(
        "Vercel AI SDK", ("ai",),
        "up to ai 6 `experimental_telemetry: { isEnabled: true, recordInputs: true, recordOutputs: true }` (the last "
        "two by default); from ai 7 `registerTelemetry(new OpenTelemetry())` of `@ai-sdk/otel`, and neither of the two "
        "false in `telemetry`",
        by_default=True,
        more={
            "session": 'up to ai 6 `experimental_telemetry: { metadata: { sessionId: "ID" } }`',
            "user": 'up to ai 6 `experimental_telemetry: { metadata: { userId: "ID" } }`',
            "agent_name": '`functionId: "NAME"` in `experimental_telemetry`, from ai 7 in `telemetry`',
        },
    ),
    Library(
        "LangSmith's OpenTelemetry export", ("langsmith",),
        "on by default: leave `LANGSMITH_HIDE_INPUTS` and `LANGSMITH_HIDE_OUTPUTS` unset or false "
        "(`LANGSMITH_TRACING=true` and `LANGSMITH_OTEL_ENABLED=true` send at all)",
        by_default=True,
        more={"session": _LANGGRAPH_SESSION, "user": '`config={"metadata": {"user_id": "ID"}}`'},
    ),
    Library(
        "the sidecar's own library", ("sidecar.agent",),
        "on; what it is not told it cannot tell: session.message, "
        "session.model_call and session.run tell the rest",
        by_default=True,
    ),
)  # fmt: skip
"""What is known; the order is that of the page. Other instrumentations get the advice for their conventions."""

FAULTS: dict[str, str] = {
    "dropped": "`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=10000` (the default of 128 drops the oldest, where identity stands)",
    "cut": "leave `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT` and `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT` unset",
    "opaque": "nothing: images and references cannot be read here",
    "markers": "switch the redaction off, in the library or in the Collector, for the route to the sidecar",
    "orphans": "`OTEL_TRACES_SAMPLER=always_on`, no tail sampling before us, and a larger `OTEL_BSP_MAX_QUEUE_SIZE`",
}
"""Fault of a span → what mends it."""

_ANYHOW: dict[str, str] = {
    "acts": GATE,
    "session": ANY_SESSION,
    "user": ANY_USER,
    "agent_name": ANY_NAME,
    "agent_version": ANY_VERSION,
    "parent_session": ANY_PARENT,
    "call_ids": GATE,
    "model_calls": "instrument the model's client as well",
    "tokens": "instrument the model's client as well",
}


class Advice(Struct, frozen=True):
    """What would make inputs visible.

    Attributes:
        library: Whose switch it is; "" where it is anybody's.
        inputs: What it turns on.
        switch: The switch, or what to do instead.
        possible: False where the library itself cannot tell it.
    """

    library: str
    inputs: tuple[str, ...]
    switch: str
    possible: bool = True


def library_of(scope: str) -> Library | None:
    """The instrumentation whose scope has that name, as far as it is known."""
    best, size = None, 0
    for library in LIBRARIES:
        for start in library.scopes:
            if f"{scope}.".startswith(f"{start}.") and len(start) > size:
                best, size = library, len(start)
    return best


def switches(report: AgentReport) -> tuple[Advice, ...]:
    """What to turn on for an agent, needed inputs first; the same switch for several inputs is named once."""
    libraries = _libraries(report.libraries)
    found: dict[tuple[str, str, bool], list[str]] = {}
    for name in sorted(INPUTS, key=lambda name: not INPUTS[name].needed):
        if report.has(name):
            continue
        for library, switch, possible in _ways(name, libraries):
            found.setdefault((library, switch, possible), []).append(name)
    return tuple(
        Advice(library, tuple(names), switch, possible) for (library, switch, possible), names in found.items()
    )


def _libraries(scopes: Iterable[str]) -> list[Library]:
    found: dict[str, Library] = {}
    for scope in sorted(scopes):
        if (library := library_of(scope)) is not None:
            found[library.name] = library
    return list(found.values())


def _ways(name: str, libraries: list[Library]) -> list[tuple[str, str, bool]]:
    """(library, switch, whether that library can) for one input; those that can come first and alone."""
    can, cannot = [], []
    for library in libraries:
        if name in library.never:
            cannot.append((library.name, library.never[name], False))
        elif name in library.more:
            can.append((library.name, library.more[name], True))
        elif library.content and name in (*CONTENT, "acts"):
            can.append((library.name, library.content, True))
    if can or cannot:
        return can or cannot
    return [("", _ANYHOW.get(name, HAND_MADE), True)]
