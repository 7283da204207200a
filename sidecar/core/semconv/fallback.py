"""Telemetry of no known convention, read by what its keys and values mean: unseen frameworks, home-made spans and logs.

Asked last, about what no other mapper reads. Nothing here knows a library; `words.meaning` says what a key means by its
words, and evidence is added up, for each key's field once:

=====  =========================================================================================================
3      a kind (``span.kind``, ``event``, ``type``, a log's name or text) of value tool_call, llm, agent_run, …
3      a span or a log's text that is named for it: ``execute_tool x``, ``tool: x``, ``Calling tool x``
3      a list of messages with roles and content; ``role`` beside ``content``; ``action_input``
2      ``tool.name``, ``tool.args``, ``llm.prompt``, ``prompt``, ``completion``, ``question``, ``answer``, ``thought``,
       ``user_input``, ``agent.input``; a kind of one common word in a plain key (``type``: tool); a name with `llm`
1      ``function.name``, ``args``, ``tool.result``, ``observation``, ``call_id``, ``model``, tokens; arguments that
       are an object; input with output where a name speaks of a tool, a model or an agent; a span's name ``run x``
0      ``input``, ``output``, ``action``, ``name``, ``text``: content where something else says whose
=====  =========================================================================================================

Three are enough; the most for a tool, a model or an agent is what the span is (the first at a draw), and a kind of 3
decides alone. So ``tool.name`` with ``tool.args`` is an act; ``tool.name`` by itself (a linter's), ``action`` with
``params`` (a web request's) and ``function_name`` by itself (a function's log) are not. An act whose arguments are not
there is an act with arguments withheld. Kinds such as chain, workflow and task are no acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from sidecar.core.digests import bare
from sidecar.core.semconv.content import arguments_of, is_marker, literal, result_of, structured, unquoted
from sidecar.core.semconv.facts import Facts, Part, Turn, plain_text
from sidecar.core.semconv.genai import count, failure, offered
from sidecar.core.semconv.logtext import MAX_TEXT, REACT, fields_of, object_in, opened
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import IDENTITY
from sidecar.core.semconv.words import FORMS, NOTHING, OWNED, known, meaning, words_of
from sidecar.core.span import Span

ENOUGH = 3
"""Points of evidence from which a span is an act."""
NAMED = 4
"""Rank from which a name's key is a tool's own."""
MAX_FIELDS = 256
"""Values looked at in one span or record, nested ones included."""
MAX_DEPTH = 4
MAX_PATH = 8
MAX_EVENTS = 64
"""Events of a span that are read as records of their own."""

_ACTS = (
    "tool_call tool_use tool_execution execute_tool tool_invocation tool_invoke tool_start tool_started tool_run "
    "tool_called call_tool calling_tool invoke_tool run_tool mcp_tool_call function_call function_tool tools_call "
    "tool_v2 tool_executed tool_call_start tool_call_started tool_call_message function_calling tool_request "
    "tool_dispatch tool_calling call_function"
)
_RESULTS = (
    "tool_result tool_response tool_output tool_return tool_end tool_ended tool_finished tool_completed tool_error "
    "tool_failed function_call_output function_result function_response tool_call_result tool_call_completed "
    "tool_call_finished tool_return_message tool_call_response tool_call_end tool_call_output"
)
_MODELS = (
    "llm llm_call llm_request llm_response llm_generation llm_completion model_call model_request model_response "
    "model_generation chat_model chat_completion chat_completions text_completion llm_chat llm_invoke call_llm lm_call"
)
_AGENTS = "agent_run agent_call invoke_agent run_agent agent_execution agent_invocation agent_turn agent_request"
_USERS = "user_message user_input user_query user_prompt human_message user_question"
_FINALS = (
    "assistant_message assistant_response agent_response final_answer final_response final_output agent_message "
    "bot_message bot_response ai_message agent_answer agent_output agent_reply"
)
_STEPS = (
    "chain workflow task embedding embeddings reranker guardrail evaluator flow workflow_run workflow_step parser "
    "prompt model_step model_chunk"
)

KINDS: Final[dict[str, tuple[str, int]]] = {
    **dict.fromkeys(_ACTS.split(), ("tool", 3)),
    **dict.fromkeys(_RESULTS.split(), ("result", 3)),
    **dict.fromkeys(_MODELS.split(), ("model", 3)),
    **dict.fromkeys(_AGENTS.split(), ("agent", 3)),
    **dict.fromkeys(_USERS.split(), ("user", 2)),
    **dict.fromkeys(_FINALS.split(), ("final", 2)),
    "tool": ("tool", 2), "model": ("model", 2), "chat": ("model", 2), "completion": ("model", 2),
    "generation": ("model", 2), "agent": ("agent", 2), "user": ("user", 2), "bot": ("final", 2),
    "chat_client": ("agent", 2),
    **dict.fromkeys(_STEPS.split(), ("context", 2)),
    "retriever": ("retrieval", 2), "retrieval": ("retrieval", 2),
}  # fmt: skip
"""What a kind's value says, words joined by underscores, and how much on its own; one common word says 3 in a key that
is evidently a step's kind (``span.kind``) and 2 elsewhere."""

_SAYINGS = ("execute_tool", "execute tool", "executing tool", "call_tool", "call tool", "calling tool", "tool_call",
            "tool call", "invoke_tool", "invoke tool", "invoking tool", "run_tool", "run tool", "running tool",
            "tool_use", "using tool", "tools/call", "function_call", "function call", "calling function",
            "tool_execution", "agent.tool_call", "agent.tool", "tool")  # fmt: skip
_HEADS = frozenset(saying[:4] for saying in _SAYINGS)
_GENERIC = frozenset(("run", "call", "calls", "execute", "execution", "start", "end", "invoke", "invocation", "started",
                      "finished", "completed", "result", "results", "error", "failed", "name", "output", "input",
                      "response", "use", "loop", "calling", "version", "list", "args", "arguments"))  # fmt: skip
"""Words after `tool` that are no tool's name."""
_RUNS = ("run ", "running ", "call ", "calling ", "invoke ", "execute ")
_RUNNERS = frozenset(("invoker", "executor", "node", "runner", "manager", "dispatcher", "caller", "broker"))
_SPEAKERS = frozenset(("system", "user", "assistant", "tool", "developer", "human", "ai", "function", "model", "bot"))
_SPEAKERS_ALONE = frozenset(("user", "bot"))
"""Kinds that say who speaks only where they are a record's own, not those of somebody it is about."""
_PARTIES = frozenset(("user", "assistant", "human", "ai", "bot"))
_SPEAKER_KEYS = {
    "role": _SPEAKERS, "type": frozenset(("human", "ai")),
    "sender": _PARTIES, "author": _PARTIES, "from": _PARTIES, "speaker": _PARTIES,
}  # fmt: skip
"""Keys that say who speaks, and the values which say it beyond doubt."""
_SAID = ("content", "parts", "text", "tool_calls", "toolCalls", "function_call", "tool_call_id", "toolCallId", "name")
_HINTS = ("tool", "Tool", "TOOL", "role", "function", "action_input", "prompt", "llm", "LLM", "completion", "user_",
          "assistant_", "agent_", "question", "Action", "_message")  # fmt: skip
_ENVELOPES = ("messages", "message", "choices", "candidates", "replies", "generations", "outputs", "output", "response",
              "contents", "content")  # fmt: skip
_TEXTS = ("text", "content", "question", "query", "prompt", "input", "user_input", "message", "answer", "output",
          "response", "completion", "result")  # fmt: skip
_WRONG = frozenset(("error", "failed", "failure", "err", "fail"))
_TYPES = ("string", "integer", "number", "boolean", "object", "array", "any", "null", "str", "int")
_RIGHT = frozenset(("", "false", "none", "null", "0", "ok"))
_OWNERS = {
    **{name: field for field, names in IDENTITY.items() for name in names if "." not in name},
    **dict.fromkeys(("session", "sessionId", "conversationId", "threadId", "chat_id", "chatId"), "session"),
    "agentName": "agent_name", "agentId": "agent_id", "userId": "user",
}  # fmt: skip
"""Last parts of the keys in a log's body that say whose it is."""


class Found(Struct):
    """What the fields of a record say, before anything is decided.

    Attributes:
        values: Field of `words.Meaning` → (rank, value) of the best key.
        weights: Field → its evidence.
        pieces: Arguments that are told one by one.
        numbered: Messages that are told part by part, by their path.
        flat: All values by their path.
        said: Kind → how much a value says for it.
    """

    values: dict[str, tuple[int, Any]] = {}
    weights: dict[str, int] = {}
    pieces: dict[str, Any] = {}
    numbered: dict[str, Any] = {}
    flat: dict[str, Any] = {}
    said: dict[str, int] = {}

    def best(self, *fields: str) -> Any:
        """The value of the first of `fields` that is told, None when none is."""
        for field in fields:
            if field in self.values:
                return self.values[field][1]
        return None

    def weight(self, *fields: str) -> int:
        """Evidence of `fields` together."""
        return sum(self.weights.get(field, 0) for field in fields)


def claims(span: Span) -> bool:
    """Whether there may be enough evidence: no value is opened for this, and most spans of a fleet end here."""
    if span.signal == "log" and span.name.startswith("gen_ai."):
        return False  # an event of the conventions, which they know all about
    points = 0
    told_here = span.attributes.items()
    for key, value in told_here if len(told_here) <= MAX_FIELDS else islice(told_here, MAX_FIELDS):
        told = known(key) or meaning(key)
        if type(value) is dict:
            return True  # a group of further keys
        if told is NOTHING:
            continue
        if told.field == "kind":
            if type(value) is str and len(value) <= 64:
                points += _kind(value, told.weight)[1]
        elif told.field in _HOLDERS and (type(value) is not str or value[:1] in ("{", "[")):
            points += told.weight if isinstance(value, (int, float)) else ENOUGH
        else:
            points += told.weight or (told.field in ("in", "out"))
    if points >= ENOUGH:
        return True
    name = span.name
    if name and points + _hinted(name) >= ENOUGH:
        return True
    if span.events and any(_kind(event.name, 0)[1] for event in span.events[:MAX_EVENTS] if "ool" in event.name):
        return True
    return span.signal == "log" and _may_speak(span.body)


def _hinted(name: str) -> int:
    """At most how much a name may be evidence of."""
    low = name[:128].lower()
    if low[:4] in _HEADS or ".tool" in low or low in KINDS:
        return 3
    if "agent" in low or "chat" in low or "llm" in low or "completion" in low:
        return 3 if "_".join(words_of(low)) in KINDS else 2
    return 1 if low.startswith(_RUNS) else 0


def _may_speak(body: Any) -> bool:
    if isinstance(body, str):
        if body[:1] in ("{", "[") or "=" in body:
            return len(body) <= MAX_TEXT * 16 and any(hint in body for hint in _HINTS)
        return body[:4].lower() in _HEADS or body.startswith(REACT) or (len(body) <= 32 and body.lower() in KINDS)
    return isinstance(body, (dict, list))


def overrules(span: Span) -> Facts | None:
    """Facts of a span that a convention takes for context, where a kind names an act and its name or content is told.

    A convention mostly knows its wrappers; it does not know the steps of a framework that borrows its keys.
    """
    found = _gathered(span, named=False)
    if max(found.said.values(), default=0) < ENOUGH or (facts := read(span)) is None:
        return None
    named = found.values.get("name", (0, ""))[0] >= NAMED
    content = (facts.arguments, facts.inputs, facts.outputs)
    return facts if named or any(one is not None for one in content) else None


def read(span: Span) -> Facts | None:
    """Facts of a span or record that has enough evidence of an act, else None."""
    found = _gathered(span)
    if (message := _spoken(found)) is not None:
        return _whose(_one_message(message, found, span), found, span)
    named, points, called = _named(span)
    kind = _decided(found, span, named, points)
    match kind:
        case "tool" | "result" | "retrieval":
            facts = _tool(found, span, kind, called)
        case "model":
            facts = _model(found, span)
        case "agent" | "user" | "final":
            facts = _agent(found, span, kind)
        case _:
            facts = _of_events(span) if span.events else None
    return _whose(facts, found, span)


def filled(facts: Facts, span: Span) -> None:
    """Takes content of a tool call that its convention's names do not tell from other keys of the span."""
    if any(key.partition(".")[0] in OWNED for key in span.attributes):
        return
    other = read(span)
    if other is None or other.kind != "tool" or (facts.tool and other.tool and bare(facts.tool) != bare(other.tool)):
        return
    if other.arguments is not None:
        facts.arguments, facts.cut = other.arguments, tuple({**dict.fromkeys(facts.cut), **dict.fromkeys(other.cut)})
    if facts.result is None:
        facts.result = other.result
    if not facts.call_id:
        facts.tool = facts.tool or other.tool
    facts.withheld = tuple(field for field in facts.withheld if getattr(facts, field) is None)


def _of_events(span: Span) -> Facts | None:
    """What events of a span tell of calls: one is the span's act, several are calls that a model asked for."""
    told = []
    for event in span.events[:MAX_EVENTS]:
        if "ool" in event.name and _kind(event.name, 0)[1]:
            said = read(Span(signal="log", trace_id="", span_id="", parent_id="", name=event.name, start_ns=0,
                             end_ns=event.at_ns, attributes=event.attributes))  # fmt: skip
            if said is not None and said.kind == "tool":
                told.append(said)
    if len(told) < 2:
        return told[0] if told else None
    if len(told) == 2 and told[1].tool in ("", told[0].tool) and told[1].arguments is None:
        call, result = told[0], told[1]
        call.result, call.failed = result.result, result.failed
        call.withheld = tuple(field for field in call.withheld if getattr(call, field) is None)
        return call
    calls = tuple(Part("call", id=one.call_id, name=one.tool, value=one.arguments)
                  for one in told if one.tool and (one.arguments is not None or one.result is None))  # fmt: skip
    answers = tuple(Part("response", id=one.call_id, name=one.tool, value=one.result)
                    for one in told if one.result is not None)  # fmt: skip
    return Facts(kind="model", inputs=(Turn("tool", answers),) if answers else None,
                 outputs=(Turn("assistant", calls),) if calls else None)  # fmt: skip


def _whose(facts: Facts | None, found: Found, span: Span) -> Facts | None:
    """Facts with the session, the agent and the user that a log's body names."""
    if facts is not None and span.signal == "log":
        for path, value in found.flat.items():
            field = _OWNERS.get(path.rpartition(".")[2])
            if field and isinstance(value, str) and value and not getattr(facts, field):
                setattr(facts, field, value)
    return facts


# ---------------------------------------------------------------- gathering


def _gathered(span: Span, *, named: bool = True) -> Found:
    found = Found()
    _gather(found, span.attributes, "", 0)
    for field, tree in found.numbered.items():
        found.values.setdefault(field, (0, _listed(tree)))
    if named and span.signal == "span" and len(span.name) <= 64:
        kind, points = _kind(span.name, 2)
        if kind not in ("user", "final"):
            found.said[kind] = max(points, found.said.get(kind, 0))
    if span.signal == "log":
        body = span.body
        if isinstance(body, str):
            body = fields_of(body)
        if isinstance(body, dict):
            _gather(found, body, "", 0)
        elif isinstance(body, list):
            _take(found, "messages", body)
        for said in (span.name, span.body):
            if isinstance(said, str) and len(said) <= 64:
                _take_kind(found, said, 2)
    return found


def _gather(found: Found, told: Mapping[str, Any], path: str, depth: int) -> None:
    for key, value in told.items():
        if len(found.flat) >= MAX_FIELDS:
            return
        if isinstance(key, str) and value is not None:
            _take(found, f"{path}{key}", value, depth)


def _take(found: Found, path: str, value: Any, depth: int = 0) -> None:
    found.flat[path] = value
    told = meaning(path)
    field = told.field
    if field == "call":
        group = opened(value)
        if isinstance(group, dict):
            value = group
            found.weights["call"] = 2
        else:
            return
    if isinstance(value, dict) and depth < MAX_DEPTH and (field in _OPENED or (field == "in" and _is_call(value))):
        _gather(found, value, f"{path}.", depth + 1)
        return
    if field == "kind":
        if isinstance(value, str) and len(value) <= 64 and ("." not in path or value.lower() not in _SPEAKERS_ALONE):
            _take_kind(found, value, told.weight)
        return
    if not field or not _fits(field, value):
        if path.endswith((".content", ".text")):
            found.values.setdefault("text", (0, value))
        return
    if field == "numbered":
        _place(found.numbered, told.rest.split("."), value)
        return
    if field == "argument":
        found.pieces[told.rest] = value
        field = "arguments"
    known = found.values.get(field)
    if known is None or told.rank > known[0]:
        found.values[field] = (told.rank, value)
    found.weights[field] = max(found.weights.get(field, 0), told.weight)


def _is_call(value: Mapping[str, Any]) -> bool:
    """Whether an object is itself a call: a name and arguments."""
    return isinstance(value.get("name"), str) and not value.keys().isdisjoint(("arguments", "args", "input"))


def _place(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Puts a value where its path says: ``inputs.0.tool_calls.1.name``."""
    for part in path[:-1][:MAX_PATH]:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree[path[-1]] = value


def _listed(tree: Any) -> Any:
    """The same with groups of numbered things as lists, in the order of their numbers."""
    if not isinstance(tree, dict):
        return tree
    if tree and all(key.isdecimal() for key in tree):
        return [_listed(tree[key]) for key in sorted(tree, key=int)]
    return {key: _listed(value) for key, value in tree.items()}


_OPENED = frozenset(("", "kind", "name", "call", "failed", "succeeded", "model", "call_id", "text", "role", "thought"))
"""Fields that are no content, so that an object under their key is a group of further keys."""
_LABELS = frozenset(("name", "call_id", "model", "role"))
_HOLDERS = frozenset(("in", "out", "inputs", "outputs", "calls", "arguments", "agent_in", "agent_out", "call"))
"""Fields whose structure may be evidence of its own."""
_WORDY = frozenset(("inputs", "outputs", "user", "final", "agent_in", "agent_out", "system", "thought", "text"))


def _fits(field: str, value: Any) -> bool:
    """Whether a value is of the type that its field has."""
    if field in _LABELS:
        return (isinstance(value, str) and 0 < len(value) <= 256) or (field == "call_id" and type(value) is int)
    if field in ("input_tokens", "output_tokens"):
        return isinstance(value, int)
    if field in _WORDY:
        return isinstance(value, (str, list, dict))
    return not isinstance(value, bool) or field in ("failed", "succeeded", "result", "out")


def _take_kind(found: Found, value: str, weight: int) -> None:
    kind, points = _kind(value, weight)
    if points > found.said.get(kind, 0):
        found.said[kind] = points


def _kind(value: str, weight: int) -> tuple[str, int]:
    """What a kind's value says and how much, ("", 0) for nothing; `weight` is the key's."""
    known = KINDS.get(value.lower())
    if known is None:
        words = words_of(value)
        if words[-1:] == ["event"]:
            words.pop()
        known = KINDS.get("_".join(words[1:] if words[:1] in (["agent"], ["on"]) and len(words) > 2 else words))
        if known is None:
            return _class_kind(value, weight)
    kind, points = known
    return (kind, 3) if points == 3 or (points == 2 and weight == 3) else (kind, min(points, weight))


def _class_kind(value: str, weight: int) -> tuple[str, int]:
    """The kind of a class or a node that is named for it: ``GmailTool``, ``OpenAIChatGenerator``."""
    if weight < 3 or " " in value:
        return "", 0
    words = words_of(value.rpartition(".")[2])
    if len(words) < 2:
        return KINDS.get(words[0], ("", 0)) if words else ("", 0)
    if "tool" in (words[0], words[-1]):
        return ("context", 3) if words[-1] in _RUNNERS else ("tool", 2)
    if "llm" in words or words[0] == "lm" or ("chat" in words and words[-1] in ("generator", "model")):
        return "model", 2
    return ("agent", 2) if words[-1] == "agent" else ("", 0)


# ---------------------------------------------------------------- deciding


def _named(span: Span) -> tuple[str, int, str]:
    """What a span's name says: the kind, how much, and the tool's name where it tells one.

    A log's text may say it in words: ``Calling tool send_email with {"to": …}``.
    """
    name = span.name
    if span.signal == "log" and isinstance(span.body, str) and len(span.body) <= MAX_TEXT:
        name = name if name[:4].lower() in _HEADS else span.body
    if not name:
        return "", 0, ""
    low = name[:128].lower()
    if low[:4] in _HEADS:
        for saying in _SAYINGS:
            if low.startswith(saying) and low[len(saying) : len(saying) + 1] in (":", ".", "/", " ", "("):
                called = _identifier(name[len(saying) :], log=span.signal == "log")
                return ("tool", ENOUGH, called) if called else ("tool", 1, "")
    if span.signal == "log":
        return "", 0, ""
    if ".tool." in low or ".tool:" in low:
        at = low.index(".tool") + 6
        if called := _identifier(name[at:]):
            return "tool", ENOUGH, called
    if low.endswith(".tool") and (called := _identifier(name[:-5])):
        return "tool", 2, called
    if low.startswith(_RUNS) and (called := _identifier(name.partition(" ")[2])):
        return "tool", 1, called
    words = words_of(name[:128])
    if "llm" in words or words[:1] in (["chat"], ["completion"]) or words[-2:] == ["chat", "completion"]:
        return "model", 2, ""
    if "agent" in words and len(words) <= 4:
        return "agent", 2, ""
    return "", 0, ""


def _identifier(text: str, *, log: bool = False) -> str:
    """The tool's name that `text` begins with, "" where it does not look like one."""
    marked = text[:1] in (":", "(") or text[1:2] in ("`", "'", '"')
    text = text[:200].strip(" :./()`'\"")
    end = next((at for at, letter in enumerate(text) if letter in " (`'\"{=,\n\t"), len(text))
    called, after = text[:end], text[end:].strip("`'\":)… .")
    if after and not log and after[:1] not in ("(", "{"):
        return ""
    if log and after and not (after[0] in "({[" or after.split(" ", 1)[0] in ("with", "args", "args:", "input", "→")):
        return ""
    called = called.strip(".:;")
    if log and not (after or marked or "_" in called):
        return ""
    return called if called[:1].isalpha() and called.lower() not in _GENERIC else ""


def _decided(found: Found, span: Span, named: str, points: int) -> str:
    """The kind that has enough evidence, "" when none has."""
    said = max(found.said, key=lambda kind: found.said[kind], default="")
    if said and found.said[said] >= ENOUGH:
        return said if said != "retrieval" or found.best("in", "out", "inputs", "outputs") is not None else ""
    if found.said.get("context", 0) >= ENOUGH:
        return ""
    talk = 3 if any(_has_turns(found.best(field)) for field in ("inputs", "in", "agent_in", "outputs", "out")) else 0
    talk = talk or (3 if isinstance(found.best("calls"), list) and found.best("calls") else 0)
    pair = 1 if "in" in found.values and "out" in found.values else 0
    arguments = found.best("arguments")
    if arguments is None and found.weights.get("name") == 2:  # {"tool": "send", "input": {…}}
        arguments = found.best("in")
    whole = 1 if isinstance(opened(arguments), dict) or (found.weights.get("name") == 2 and pair) else 0
    tool = found.weight("name", "arguments", "result", "call_id", "call", "thought") + whole
    usage = min(2, found.weight("model", "input_tokens", "output_tokens"))
    model = max(found.weight("inputs", "outputs"), talk) + usage
    agent = found.weight("user", "final", "agent_in", "agent_out")
    said_tool = max(found.said.get("tool", 0), found.said.get("result", 0))
    tool += max(said_tool, points if named == "tool" else 0)
    hint_model = max(found.said.get("model", 0), points if named == "model" else 0)
    hint_agent = max(found.said.get("agent", 0), points if named == "agent" else 0)
    model += hint_model + (pair if hint_model else 0)
    agent += hint_agent + (pair if hint_agent else 0)
    if agent and not hint_agent and model < ENOUGH:  # question beside a response, prompt beside an answer
        agent += min(1, found.weight("inputs", "outputs")) + ("out" in found.values)
    for kind in ("user", "final"):
        if found.said.get(kind):
            agent = max(agent, found.said[kind] + (found.best("text", kind, "in", "out") is not None))
    by_name = span.signal == "span" and found.weights.get("arguments", 0) >= 2 and " " not in span.name
    callable_ = (
        found.best("name") is not None or by_name or (named == "tool" and bool(found.best("arguments", "result", "in")))
    )
    if named == "tool" and points >= ENOUGH:
        callable_ = True
    scores = {"tool": tool if callable_ or said_tool else 0, "model": model, "agent": agent}
    kind = max(scores, key=lambda one: scores[one])
    if scores[kind] < ENOUGH:
        return ""
    if kind == "tool" and found.said.get("result", 0) > found.said.get("tool", 0):
        return "result"
    if kind == "agent" and not hint_agent:
        return next((one for one in ("user", "final") if found.said.get(one)), "agent")
    return kind


def _has_turns(value: Any) -> bool:
    """Whether a value is, or wraps, a list of messages with roles and content."""
    if isinstance(value, str):
        if value[:1] not in ("{", "[") or ("role" not in value and "lc" not in value):
            return False
        value = opened(value)
    for _ in range(4):
        if isinstance(value, dict):
            if _speaks(value):
                return True
            value = next((value[name] for name in _ENVELOPES if isinstance(value.get(name), (list, dict))), None)
        elif isinstance(value, list) and value:
            if _speaks(value[0]):
                return True
            value = value[0]
        else:
            return False
    return False


def _speaks(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    if isinstance(inner := item.get("message"), dict):
        item = inner
    role = item.get("role")
    if not isinstance(role, str) or role.lower() not in _SPEAKERS:
        return False
    return any(item.get(name) is not None for name in _SAID[:-1]) or "content" in item


# ---------------------------------------------------------------- a message by itself


def _spoken(found: Found) -> dict[str, Any] | None:
    """The message that a record holds: a role, and what was said beside it."""
    for path, value in found.flat.items():
        head, _, last = path.rpartition(".")
        who = _SPEAKER_KEYS.get(last)
        if who is not None and isinstance(value, str) and value.lower() in who and path.count(".") <= 1:
            head = f"{head}." if head else ""
            told = {name: found.flat[head + name] for name in _SAID if head + name in found.flat}
            if any(name in told for name in _SAID[:-2]):
                return {"role": value, **told}
    return None


def _one_message(message: dict[str, Any], found: Found, span: Span) -> Facts | None:
    """A user's words and an answer belong to the agent's run; calls are a model's output; a tool's words its result."""
    said, whole = turns([message], "user")
    if not said:
        return None
    turn = said[0]
    cut = () if whole else ("inputs" if turn.role == "user" else "outputs",)
    opaque = any(part.type == "opaque" for part in turn.parts)
    if turn.role == "assistant":
        if any(part.type == "call" for part in turn.parts):
            return Facts(kind="model", outputs=said, cut=cut, opaque=opaque, model=found.best("model") or "")
        if not turn.parts:
            return None
        return Facts(kind="agent", outputs=said, cut=cut, opaque=opaque)
    if turn.role == "user":
        return Facts(kind="agent", inputs=said, cut=cut, opaque=opaque) if turn.parts else None
    part = next((part for part in turn.parts if part.type == "response"), None)
    if part is not None and (part.id or part.name):
        withheld = ("arguments",) if part.value is not None else ("arguments", "result")
        return Facts(kind="tool", tool=part.name, call_id=part.id, result=part.value, withheld=withheld)
    return None


# ---------------------------------------------------------------- facts


def _tool(found: Found, span: Span, kind: str, called: str) -> Facts | None:
    facts = Facts(kind="tool", failed=_failed(found, span))
    facts.tool = _tool_name(found, span, called)
    call_id = found.values.get("call_id")
    if call_id is not None and (call_id[0] > 0 or span.signal == "log") and isinstance(call_id[1], (str, int)):
        facts.call_id = str(call_id[1]) if call_id[0] > 0 or isinstance(call_id[1], str) else ""
    if not facts.tool and not (facts.call_id and kind == "result"):
        return None
    arguments: Any = found.pieces
    if len(found.pieces) == 1 and (only := next(iter(found.pieces))) in FORMS:
        arguments = found.pieces[only]
    if not found.pieces or found.values["arguments"][0] > 0:
        arguments = found.best("arguments", "in" if kind != "result" else "arguments")
    if arguments is None and span.signal == "log" and isinstance(span.body, str):
        arguments = object_in(span.body)
    if arguments is None and kind == "retrieval":
        arguments = found.best("inputs", "user")
    told, cut = (None, False) if arguments is None or is_marker(arguments) else arguments_of(arguments)
    if told is None or _is_schema(told):
        facts.withheld += ("arguments",)
    else:
        facts.arguments = plain_text(told) if isinstance(told, (bool, int, float)) else told
        facts.cut += ("arguments",) if cut else ()
    result = found.best("result", "out")
    if result is None and kind != "tool":
        result = found.best("text", "outputs", "final")
    if result is None and facts.failed:
        told = found.flat.get("error", found.flat.get("tool.error"))
        result = told if isinstance(told, str) and told.lower() not in _RIGHT else failure(span)
    if is_marker(result) or (result is None and (span.signal == "span" or kind == "result")):
        facts.withheld += ("result",)
    elif result is not None:
        facts.result = result_of(literal(result))
    return facts


def _tool_name(found: Found, span: Span, called: str) -> str:
    """The tool's name: its own key, the span's name that says it, the span's name, a key that may be it."""
    rank, told = found.values.get("name", (0, ""))
    told = str(unquoted(told)) if isinstance(told, str) else ""
    told = told if told and len(told.split()) <= 6 and "\n" not in told and not is_marker(told) else ""
    if told and rank >= NAMED:
        return told
    if called:
        return called
    own = span.name if span.signal == "span" else ""
    said = "_".join(words_of(own[:128]))
    if found.said.get("tool", 0) >= ENOUGH and own and said not in KINDS and len(own.split()) <= 3 and rank < 5:
        return own[:128]
    return told or (own[:128] if own and said not in KINDS and len(own.split()) <= 6 else "")


def _is_schema(value: Any) -> bool:
    """Whether a value says what arguments a tool takes, not what it was given: a JSON Schema, or its properties."""
    if not isinstance(value, dict) or not value:
        return False
    if isinstance(value.get("properties"), dict) and ("type" in value or "required" in value or "title" in value):
        return True
    return all(isinstance(one, dict) and one.get("type") in _TYPES for one in value.values())


def _failed(found: Found, span: Span) -> bool:
    """Whether the record says that it went wrong: its status, `error`, `is_error`, `status`, `success`."""
    told, well = found.best("failed"), found.best("succeeded")
    wrong = told is True or (isinstance(told, str) and told.lower() in _WRONG)
    if isinstance(told := found.flat.get("error", found.flat.get("tool.error")), str):
        wrong |= told.lower() not in _RIGHT
    return span.status == 2 or wrong or well is False or (isinstance(well, str) and well.lower() == "false")


def _model(found: Found, span: Span) -> Facts:
    facts = Facts(kind="model", failed=span.status == 2)
    name = found.best("model")
    facts.model = name if isinstance(name, str) else ""
    facts.input_tokens, facts.output_tokens = count(found.best("input_tokens")), count(found.best("output_tokens"))
    inputs, outputs = found.best("inputs", "user", "agent_in", "in"), found.best("outputs", "final", "agent_out", "out")
    calls = found.best("calls")
    if calls is not None and isinstance(calls := opened(calls), list):
        outputs = [{"role": "assistant", "content": outputs if isinstance(outputs, str) else None, "tool_calls": calls}]
    _converse(facts, inputs, outputs)
    if isinstance(system := found.best("system"), str) and not is_marker(system):
        facts.system = (system,)
    wrapped = opened(inputs) if isinstance(inputs, (str, dict)) else None
    if isinstance(wrapped, dict) and isinstance(wrapped.get("tools"), list):
        facts.tools = offered(wrapped["tools"])
    return facts


def _agent(found: Found, span: Span, kind: str) -> Facts | None:
    facts = Facts(kind="agent", failed=span.status == 2)
    inputs = found.best("user", "agent_in", "inputs", "in")
    outputs = found.best("final", "agent_out", "outputs", "out")
    said = found.best("text")
    if kind == "user":
        inputs, outputs = said if inputs is None else inputs, None
    elif kind == "final":
        inputs, outputs = None, said if outputs is None else outputs
    _converse(facts, inputs, outputs)
    if kind in ("user", "final"):
        spoken = "inputs" if kind == "user" else "outputs"
        facts.withheld = tuple(field for field in facts.withheld if field == spoken)
    return facts


def _converse(facts: Facts, inputs: Any, outputs: Any) -> None:
    """Takes what went in and out; what is not there, or is a marker, is withheld."""
    for field, role, told in (("inputs", "user", inputs), ("outputs", "assistant", outputs)):
        if told is None or is_marker(told):
            facts.withheld += (field,)
            continue
        said, whole = _turns(told, role)
        facts.cut += () if whole else (field,)
        facts.opaque |= any(part.type == "opaque" for turn in said for part in turn.parts)
        setattr(facts, field, said)


def _turns(told: Any, role: str) -> tuple[tuple[Turn, ...], bool]:
    """What was said as turns: messages in whatever wrapping, else the one text of an object, else all of it as text."""
    value = opened(unquoted(told))
    if isinstance(value, str):
        said, whole = turns(value, role)
        return said, whole and structured(told)[1] is False
    value = arguments_of(value)[0]
    inner = value
    for _ in range(5):
        if isinstance(inner, dict):
            if "role" in inner or "parts" in inner:
                return turns([inner], role)
            if isinstance(inner.get("message"), dict) and "role" in inner["message"]:
                return turns([inner], role)
            inner = next((inner[name] for name in _ENVELOPES if isinstance(inner.get(name), (list, dict))), None)
        elif isinstance(inner, list) and inner:
            if all(isinstance(item, dict) and ("type" in item or "text" in item or _speaks(item)) for item in inner):
                return turns(inner, role)
            if isinstance(inner[0], dict) and ("message" in inner[0] or "content" in inner[0]) and _has_turns(inner):
                return turns([one.get("content", one) if isinstance(one.get("content"), dict) else one
                              for one in inner if isinstance(one, dict)], role)  # fmt: skip
            inner = inner[0] if len(inner) == 1 else None
        else:
            break
    if isinstance(value, dict):
        for name in _TEXTS:
            if isinstance(words := value.get(name), str) and words:
                return ((Turn(role, (Part("text", "" if is_marker(words) else words),)),)), True
    words = plain_text(value) if value not in ({}, []) else ""
    return ((Turn(role, (Part("text", words),)),) if words else ()), True
