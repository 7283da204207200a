"""What an attribute's name means by its words, for telemetry of no known convention: ``app.tool.args`` → a tool's
arguments, ``llm.response`` → a model's output, ``http.request.method`` → nothing.

A key is split at dots, colons, dashes, underscores and humps. Its last word says what the value is (`args`, `prompt`),
words before it whose (`tool`, `llm`); a last word that only tells the value's form (`text`, `value`, `json`) is passed
over. Keys of namespaces that OpenTelemetry has given to ordinary telemetry mean nothing here.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Meaning(Struct, frozen=True):
    """What a key says.

    Attributes:
        field: ``name``, ``call_id``, ``arguments``, ``argument`` (one of several, see `rest`), ``result``, ``call`` (an
            object that is a whole call), ``calls``, ``numbered`` (a part of one message of many), ``inputs``,
            ``outputs``, ``system``, ``user``, ``final``,
            ``agent_in``, ``agent_out``, ``in`` and ``out`` (of whatever it is), ``thought``, ``kind``, ``model``,
            ``input_tokens``, ``output_tokens``, ``role``, ``text``, ``failed``, ``succeeded``; "" says nothing.
        weight: How much the key alone is evidence of an agent's act, 0..3; for ``kind`` how much its value may be.
        rank: Which of several keys of one field is taken: the highest.
        rest: What remains of the key after the arguments' name: ``tool.args.to`` → ``to``; after the messages' name,
            with their field before it: ``llm.messages.0.role`` → ``inputs.0.role``.
    """

    field: str = ""
    weight: int = 0
    rank: int = 0
    rest: str = ""


NOTHING: Final = Meaning()
MAX_KEY = 128
"""Characters of a key that is looked at; longer ones mean nothing."""
MAX_KNOWN = 4096
"""Keys whose meaning is remembered, about 1 MB; then remembering begins anew."""

ORDINARY = frozenset((
    "android", "artifact", "aspnetcore", "aws", "az", "azure", "browser", "celery", "cicd", "client", "cloud",
    "cloudevents", "cloudfoundry", "code", "container", "cpu", "cpython", "db", "deployment", "destination", "device",
    "disk", "dns", "dotnet", "elasticsearch", "enduser", "error", "exception", "faas", "feature_flag", "file", "gcp",
    "geo", "go", "graphql", "grpc", "heroku", "host", "http", "hw", "ios", "jvm", "k8s", "kafka", "kestrel", "linux",
    "log", "messaging", "net", "network", "nodejs", "oci", "openshift", "opentracing", "os", "otel", "peer", "pool",
    "process", "profile", "rails", "redis", "rpc", "server", "service", "signalr", "source", "sql", "system",
    "telemetry", "test", "thread", "tls", "url", "user_agent", "v8js", "vcs", "webengine", "zos",
))  # fmt: skip
"""First parts of keys that OpenTelemetry's registry (and old habit) keeps for ordinary telemetry."""
OWNED = frozenset(("langsmith", "openinference", "traceloop"))
"""First parts of keys which a mapper of their own knows better."""

_TOOL = frozenset(("tool", "tools", "toolcall", "tooluse"))
_FUNCTION = frozenset(("function", "func", "skill", "plugin"))
_MODEL = frozenset(("llm", "lm", "model", "generation", "chat", "completion"))
_AGENT = frozenset(("agent", "assistant", "bot"))
_USER = frozenset(("user", "human", "customer"))
FORMS = frozenset(("value", "text", "json", "str", "string", "content", "data", "raw", "body", "preview"))
_ARGUMENTS = frozenset(("arguments", "args", "kwargs"))
_INPUTS = frozenset(("input", "inputs", "parameters", "params"))
_RESULTS = frozenset(("result", "results", "output", "outputs", "response", "return"))
_KINDS = frozenset(("kind", "type", "subtype", "event", "category", "method", "operation", "op", "message", "msg"))
_SAID = frozenset(("input", "message", "query", "question", "utterance", "text", "prompt", "request"))
_MEASURES = frozenset(("length", "len", "size", "hash", "bytes", "tokens", "mime", "chars", "digest", "truncated",
                       "schema"))  # fmt: skip
"""Last words that measure the content a key is about; after more than one word also those of `_ABOUT`."""
_ABOUT = frozenset(("count", "type", "total", "keys", "error", "format", "summary"))

_known: dict[str, Meaning] = {}
known = _known.get
"""The meaning of a key as far as it is remembered: what the fastest path asks first."""


def meaning(key: str) -> Meaning:
    """What `key` says; remembered, as a fleet's keys are few and come with every span."""
    if (found := _known.get(key)) is None:
        if len(key) > MAX_KEY:
            return NOTHING
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        found = _known[key] = _meant(key)
    return found


def words_of(text: str) -> list[str]:
    """The words of a name, lower-case: ``myApp.toolName_v2`` → my, app, tool, name, v2."""
    words: list[str] = []
    word = ""
    for at, letter in enumerate(text):
        if not letter.isalnum():
            if word:
                words.append(word)
            word = ""
            continue
        if letter.isupper() and word and (text[at - 1].islower() or text[at + 1 : at + 2].islower()):
            words.append(word)
            word = ""
        word += letter.lower()
    return [*words, word] if word else words


def _meant(key: str) -> Meaning:
    first, dot, _ = key.partition(".")
    if dot and (first.lower() in ORDINARY or first in OWNED):
        return NOTHING
    words = words_of(key)
    if not words:
        return NOTHING
    if (found := _one_argument(key)) is not NOTHING:
        return found
    if (found := _ending(words)) is not NOTHING:
        return found
    trimmed = list(words)
    while len(trimmed) > 1 and trimmed[-1] in FORMS:
        trimmed.pop()
        if (found := _ending(trimmed)) is not NOTHING:
            if found.field == "arguments" and key.rpartition(".")[2] == words[-1]:  # or an argument of that name
                return Meaning("argument", found.weight, 0, words[-1])
            return found if found.field != "kind" else NOTHING
    return _one_of_many(key)


def _one_argument(key: str) -> Meaning:
    """One argument of a call, whatever it is called: ``tool.args.name`` is no tool's name, ``action.input.query`` no
    request of its own."""
    parts = key.split(".")
    for at in range(1, len(parts)):
        head = words_of(".".join(parts[:at]))
        if len(head) < 2 or head[-1] not in _ARGUMENTS | _INPUTS:
            continue
        if head[-2] == "action" or (head[-2] in _TOOL or (head[-2] == "call" and not _TOOL.isdisjoint(head[-4:-2]))):
            rest = words_of(".".join(parts[at:]))
            if not rest or parts[at].isdecimal() or rest[-1] in FORMS or rest[-1] in _MEASURES | _ABOUT:
                return NOTHING
            return Meaning("argument", 1, 0, ".".join(parts[at:]))
    return NOTHING


def _one_of_many(key: str) -> Meaning:
    """One argument of a call, or a part of one message, that is an attribute of its own."""
    parts = key.split(".")
    for at in range(len(parts) - 1, 0, -1):
        head = words_of(".".join(parts[:at]))
        rest = ".".join(parts[at:])
        if parts[at].isdecimal() and len(parts[at]) <= 4 and len(parts) > at + 1:
            if (said := _ending(head) if head else NOTHING).field in ("inputs", "outputs"):
                return Meaning("numbered", 1, 0, f"{said.field}.{rest}")
            continue
        if head and head[-1] in _ARGUMENTS | _INPUTS and not _TOOL.isdisjoint(head[-4:-1]):
            last = words_of(rest)
            about = not last or last[0] in _MEASURES or last[-1] in _MEASURES or (last[-1] in _ABOUT and len(last) > 1)
            return NOTHING if about else Meaning("argument", 1, 0, rest)
    return NOTHING


def _ending(words: list[str]) -> Meaning:
    last, before = words[-1], words[-4:-1]
    prev = before[-1] if before else ""
    whose_tool, whose_function = not _TOOL.isdisjoint(before), not _FUNCTION.isdisjoint(before)
    match last:
        case "name":
            if whose_tool and "agent" not in before[-1:]:
                return Meaning("name", 2, 5)
            if prev in _FUNCTION or prev == "action" or (whose_function and prev == "call"):
                return Meaning("name", 1, 3)
            if prev == "event":
                return Meaning("kind", 3, 1)
            if prev == "model":
                return Meaning("model", 1, 1)
            return Meaning("name", 0, 1) if not before or prev in ("entity", "operation", "params") else NOTHING
        case "tool":
            return Meaning("name", 2, 4)
        case "function" | "skill":
            return Meaning("name", 1, 2)
        case "action":
            return Meaning("name", 2 if prev in ("step", "agent") else 0, 2)
        case "id":
            if (prev == "use" and whose_tool) or prev == "call":
                return Meaning("call_id", 2 if whose_tool or whose_function else 1, 2)
            return Meaning("call_id", 1, 1) if prev == "tool" else Meaning("call_id", 0, 0) if not before else NOTHING
        case "call":
            return Meaning("call", 2) if prev in _TOOL or prev in _FUNCTION else NOTHING
        case "calls":
            return Meaning("calls", 0) if prev in _TOOL or prev in _FUNCTION else NOTHING
        case "role":
            return Meaning("role", 2) if len(words) <= 2 else NOTHING
        case "model":
            return Meaning("model", 1)
        case "tokens":
            if prev in ("prompt", "input"):
                return Meaning("input_tokens", 1)
            return Meaning("output_tokens", 1) if prev in ("completion", "output") else NOTHING
        case "thought" | "thoughts":
            return Meaning("thought", 2)
        case "success" | "ok" | "succeeded":
            return Meaning("succeeded") if len(words) <= 2 else NOTHING
        case "error" | "failed" | "status":
            return Meaning("failed") if len(words) <= 2 else NOTHING
        case "observation":
            return Meaning("result", 1, 2)
        case "prompt" | "prompts":
            if prev in ("system", "developer"):
                return Meaning("system", 1)
            return Meaning("user", 2, 1) if prev in _USER else Meaning("inputs", 2, 1)
        case "instructions" if prev == "system":
            return Meaning("system", 1)
        case "messages" | "history" | "conversation" | "transcript":
            if "output" in before or "response" in before:
                return Meaning("outputs", 1, 3)
            return Meaning("inputs", 1 if last == "messages" else 0, 2)
        case "completion" | "completions":
            return Meaning("outputs", 2, 1)
        case "choices" | "candidates" | "replies":
            return Meaning("outputs", 0, 2)
        case "answer":
            return Meaning("final", 2, 1)
        case "question":
            return Meaning("user", 2, 1)
        case "text" | "content":
            if not before:
                return Meaning("text")
    return _whose(last, prev, before, whose_tool=whose_tool, whose_function=whose_function)


def _whose(last: str, prev: str, before: list[str], *, whose_tool: bool, whose_function: bool) -> Meaning:
    """Words that say what a value is only together with whose it is: input, output, arguments, a kind."""
    agent, model = prev in _AGENT, not _MODEL.isdisjoint(before)
    if last in _ARGUMENTS:
        return Meaning("arguments", 2 if whose_tool else 1, 3 if whose_tool else 2)
    if last in _SAID and prev in _USER:
        return Meaning("user", 2, 2)
    if last in _INPUTS:
        if whose_tool or prev == "action":  # of ReAct: the very words `action_input`
            return Meaning("arguments", 3 if prev == "action" else 2, 3)
        if whose_function:
            return Meaning("arguments", 1, 2)
        if model:
            return Meaning("inputs", 2 if "llm" in before else 1, 1)
        return Meaning("agent_in", 2) if agent else Meaning("in", 0, 1 if last in ("input", "inputs") else 0)
    if (last in _RESULTS or last in ("message", "reply")) and prev in ("assistant", "bot", "ai", "final"):
        return Meaning("final", 2, 2)
    if last in _RESULTS:
        if whose_tool or prev == "call" or whose_function:
            return Meaning("result", 1, 3)
        if model:
            return Meaning("outputs", 2 if "llm" in before else 1, 1)
        return Meaning("agent_out", 2) if agent else Meaning("out", 0, 1 if last != "response" else 0)
    if last in _KINDS:
        of_a_step = prev in ("span", "observation", "run", "step", "node", "entity", "operation", "metadata", "event",
                             "component", "ai")  # fmt: skip
        return Meaning("kind", 3 if of_a_step or last == "subtype" else 2, 1)
    if last in ("payload", "request", "query", "body") and prev in _TOOL:
        return Meaning("arguments", 2, 1)
    if last in ("query", "utterance"):
        return Meaning("in", 0, 0)
    return NOTHING
