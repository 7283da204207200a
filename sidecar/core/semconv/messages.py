"""Lists of messages in anybody's shape → turns: OpenTelemetry parts, OpenAI chat and responses, Anthropic blocks,
LangChain's serialised messages, Gemini contents, Bedrock Converse, Vercel AI SDK.

The shape of each message and each part is known by its keys, never by who sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from sidecar.core.semconv.content import arguments_of, is_marker, result_of, structured
from sidecar.core.semconv.facts import MAX_PARTS, Part, Turn
from sidecar.core.semconv.names import text as _text

ROLES = {
    "human": "user", "humanmessage": "user", "humanmessagechunk": "user", "usermessage": "user",
    "ai": "assistant", "model": "assistant", "aimessage": "assistant", "aimessagechunk": "assistant",
    "assistantmessage": "assistant", "bot": "assistant",
    "developer": "system", "systemmessage": "system", "systemmessagechunk": "system",
    "function": "tool", "toolmessage": "tool", "functionmessage": "tool", "tool_result": "tool",
}  # fmt: skip
_ROLE_NAMES = frozenset(("system", "user", "assistant", "tool"))
_CALL_IDS = ("call_id", "id", "tool_call_id", "toolCallId", "toolUseId", "ref")
_ARGUMENTS = ("arguments", "args", "input", "parameters")
_TEXTS = frozenset(("text", "input_text", "output_text", "compaction", "markdown", "refusal"))
_THOUGHTS = frozenset(("reasoning", "thinking", "reasoning_text", "summary_text", "redacted_thinking"))
_CALLS = frozenset(("tool_call", "server_tool_call", "tool_use", "server_tool_use", "mcp_tool_use", "tool-call",
                    "function_call", "function", "mcp_call", "custom_tool_call", "toolCall"))  # fmt: skip
_RESPONSES = frozenset(("tool_call_response", "server_tool_call_response", "tool_result", "mcp_tool_result",
                        "tool-result", "function_call_output", "custom_tool_call_output", "function_response",
                        "toolResult", "tool_return"))  # fmt: skip


def role_of(told: Any, otherwise: str = "") -> str:
    """A role by its common name: ``system``, ``user``, ``assistant``, ``tool``, or as told."""
    role = _text(told)
    return ROLES.get(role.lower(), role.lower() if len(role) <= 16 else role) or otherwise


def turns(value: Any, role: str) -> tuple[tuple[Turn, ...], bool]:
    """Messages as turns, and whether all of it could be read.

    Takes a list of messages in any shape, a list of parts, one message, one part, a bare text, or JSON of these.
    """
    if isinstance(value, str) and value.startswith('[{"') and (said := _standard(value, role)) is not None:
        return said, True
    value, cut = structured(value)
    if isinstance(value, str):
        if is_marker(value):
            return (), not cut
        return ((Turn(role, (Part("text", value),)),) if value else ()), not cut
    if isinstance(value, dict):
        inner = value.get("messages", value.get("contents"))
        value = inner if isinstance(inner, list) else [value]
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        return (), value is None
    if len(value) == 1 and isinstance(value[0], list) and _message(value[0]) is None:  # one batch of messages
        value = value[0]
    found: list[Turn] = []
    loose: list[Part] = []
    whole, room = True, MAX_PARTS
    for item in value:
        if room <= 0:
            return tuple(found), False
        if (message := _message(item)) is not None:
            turn, complete = _turn(message, role, room)
            whole &= complete
            room -= max(1, len(turn.parts))
            found.append(turn)
        else:
            loose.append(part(item))
            room -= 1
    if loose:
        found.append(Turn(role, tuple(loose)))
    return _without_places(found), whole and not cut


# ---------------------------------------------------------------- OpenTelemetry's own shape, decoded in one go


class _Text(Struct, tag="text", forbid_unknown_fields=True):
    content: str


class _Thought(Struct, tag="reasoning", forbid_unknown_fields=True):
    content: str


class _Called(Struct, tag="tool_call", forbid_unknown_fields=True):
    name: str
    id: str | None = None
    arguments: Any = None


class _Answered(Struct, tag="tool_call_response", forbid_unknown_fields=True):
    id: str | None = None
    response: Any = None


class _Said(Struct, forbid_unknown_fields=True):
    role: str
    parts: list[_Text | _Thought | _Called | _Answered]
    finish_reason: str | None = None


_decode_messages = msgspec.json.Decoder(list[_Said]).decode
_decode_parts = msgspec.json.Decoder(list[_Text | _Thought | _Called | _Answered]).decode


def _standard(told: str, role: str) -> tuple[Turn, ...] | None:
    """What `turns` says of messages or parts of the standard's shape, at a third of its cost; None for all others."""
    found: list[Turn] = []
    try:
        if told.startswith('[{"type"'):
            parts = _standard_parts(_decode_parts(told))
            found.append(Turn(role, tuple(parts)))
        elif told.startswith('[{"role"'):
            for message in _decode_messages(told):
                speaker = role_of(message.role, role)
                parts = _standard_parts(message.parts)
                if speaker == "tool" and not any(one.type in ("call", "response") for one in parts):
                    return None  # a tool's words are its answer, whatever their shape
                found.append(Turn(speaker, tuple([one for one in parts if one.type != "text" or one.text])))
    except (ValueError, RecursionError):
        return None
    if not found or sum([len(turn.parts) or 1 for turn in found]) > MAX_PARTS:
        return None
    return _without_places(found)


def _standard_parts(items: list[_Text | _Thought | _Called | _Answered]) -> list[Part]:
    parts: list[Part] = []
    for item in items:
        if isinstance(item, _Text):
            parts.append(Part("text", "" if is_marker(item.content) else item.content))
        elif isinstance(item, _Called):
            value, cut = (None, False) if is_marker(item.arguments) else arguments_of(item.arguments)
            parts.append(Part("call", "", item.id or "", item.name, value, cut))
        elif isinstance(item, _Answered):
            parts.append(Part("response", "", item.id or "", "", _known(result_of(item.response))))
        else:
            parts.append(Part("reasoning", item.content))
    return parts


def _without_places(found: list[Turn]) -> tuple[Turn, ...]:
    """The same without ids of calls that merely say where a call stands."""
    placed = {one.name for turn in found for one in turn.parts if one.type == "call" and _is_place(one.id, one.name)}
    if placed:
        found = [Turn(turn.role, tuple(_unplaced(one, placed) for one in turn.parts)) for turn in found]
    return tuple(found)


def _is_place(call_id: str, name: str) -> bool:
    """Whether an id is a tool's name and where in its message the call stands (Gemini's calls have no ids).

    Such an id names every call of that tool at that place, and its answer has another number.
    """
    return (
        call_id.startswith(name)
        and bool(name)
        and call_id[len(name) : len(name) + 1] == "_"
        and (len(call_id) <= len(name) + 4 and call_id[len(name) + 1 :].isdigit())
    )


def _unplaced(one: Part, placed: set[str]) -> Part:
    """A call or an answer without an id that is merely a place; the answer by the name that its id tells."""
    if one.type not in ("call", "response"):
        return one
    name = one.name or one.id.rpartition("_")[0]
    if name not in placed or not _is_place(one.id, name):
        return one
    return Part(one.type, id="", name=name, value=one.value, cut=one.cut)


def _message(item: Any) -> Mapping[str, Any] | None:
    """The keys of a message, None when `item` is a part."""
    if isinstance(item, (list, tuple)) and len(item) == 2 and all(isinstance(word, str) for word in item):
        return {"role": item[0], "content": item[1]}
    if not isinstance(item, dict):
        return None
    if item.get("lc") is not None and isinstance(item.get("kwargs"), dict):
        name = item.get("id")
        kind = name[-1] if isinstance(name, list) and name else ""
        return {"role": kind, **item["kwargs"]} if "message" in _text(kind).lower() else None
    if isinstance(inner := item.get("message"), dict) and ("role" in inner or "content" in inner):
        return inner
    if "role" in item:
        return item
    if isinstance(item.get("data"), dict) and "content" in item["data"]:
        return {"role": item.get("type"), **item["data"]}
    if "parts" in item:
        return item
    kind = item.get("type")
    if (
        isinstance(kind, str)
        and "content" in item
        and (kind.lower() in ROLES or kind in ("user", "system", "assistant"))
    ):
        return {"role": kind, **item} if kind != "tool_result" else None
    return None


def _turn(message: Mapping[str, Any], role: str, room: int) -> tuple[Turn, bool]:
    role = role_of(message.get("role"), role)
    told = message.get("parts", message.get("content", message.get("text")))
    whole = True
    answers = message.get("tool_call_id", message.get("toolCallId", message.get("id")))
    if isinstance(told, str):
        read, cut = structured(told) if role not in ("user", "system") else (told, False)
        looks_parts = isinstance(read, list) and read and all(_is_part(item) for item in read)
        told = read if looks_parts else [told] if told else []
        whole &= not (cut and role == "assistant" and told and _is_part_text(told[0]))
    elif isinstance(told, dict):
        told = inner if isinstance(inner := told.get("parts"), list) else [told]
    elif told is None:
        told = []
    elif not isinstance(told, (list, tuple)):
        told, whole = [], False
    whole &= len(told) <= room
    if role == "tool" and not any(_is_response(item) or _is_call(item) for item in told):
        bare = len(told) == 1 and isinstance(told[0], str)
        content = result_of(told[0] if bare else list(told)) if told else None
        name = _text(message.get("name", message.get("toolName")))
        parts: tuple[Part, ...] = (Part("response", id=_text(answers), name=name, value=_known(content)),)
        return Turn(role, parts), whole
    parts = tuple(part(item) for item in told[:room])
    parts = tuple(one for one in parts if one.type != "text" or one.text)
    thought = message.get("reasoning_content", message.get("reasoning"))
    if isinstance(thought, str) and thought:
        parts = (Part("reasoning", thought), *parts)
    calls = message.get("tool_calls", message.get("toolCalls", message.get("toolInvocations")))
    if isinstance(calls, str):
        calls = structured(calls)[0]
    if isinstance(calls, (list, tuple)):
        known = {one.id for one in parts if one.type == "call" and one.id}
        more = [_call(item) for item in calls[: max(0, room - len(parts))] if isinstance(item, dict)]
        parts += tuple(one for one in more if not one.id or one.id not in known)
    elif isinstance(one := message.get("function_call"), dict) and one.get("name"):
        parts += (_call(one),)
    return Turn(role, parts), whole


def _is_part(item: Any) -> bool:
    return isinstance(item, dict) and ("type" in item or "text" in item or "toolUse" in item or "toolResult" in item)


def _is_part_text(item: Any) -> bool:
    return isinstance(item, str) and item.startswith('[{"type"')


def _is_response(item: Any) -> bool:
    return isinstance(item, dict) and (
        _text(item.get("type")) in _RESPONSES or "functionResponse" in item or "function_response" in item
        or "toolResult" in item or "toolResponse" in item or "tool_call_result" in item
        or item.get("part_kind") == "tool-return"
    )  # fmt: skip


def _is_call(item: Any) -> bool:
    return isinstance(item, dict) and _text(item.get("type")) in _CALLS


def _known(value: Any) -> Any:
    return None if is_marker(value) else value


def _call(item: Mapping[str, Any], call_id: Any = None) -> Part:
    inner = item.get("function", item.get("tool_call", item.get("functionCall")))
    if isinstance(inner, dict):
        return _call(inner, call_id or item.get("id", item.get("call_id")))
    told = next(
        (item[name] for name in ("arguments", "args", "input", "parameters") if item.get(name) is not None), None
    )
    value, cut = (None, False) if is_marker(told) else arguments_of(told)
    name = next((item[name] for name in ("name", "toolName", "tool_name") if item.get(name)), "")
    known = call_id or next(
        (item[name] for name in _CALL_IDS if item.get(name)),
        "",
    )
    return Part("call", id=_text(known), name=_text(name), value=value, cut=cut)


def _response(item: Mapping[str, Any]) -> Part:
    names = ("response", "result", "output", "content")
    told = next((item[name] for name in names if item.get(name) is not None), None)
    value = result_of(told)
    known = ("tool_call_id", "call_id", "tool_use_id", "toolCallId", "toolUseId", "id", "ref")
    call_id = next((item[name] for name in known if item.get(name)), "")
    name = next((item[name] for name in ("name", "toolName", "tool_name") if item.get(name)), "")
    return Part("response", id=_text(call_id), name=_text(name), value=_known(value))


def part(item: Any) -> Part:
    """One part of a message, whatever convention's names it uses."""
    if isinstance(item, str):
        return Part("text", item) if not is_marker(item) else Part("text", "")
    if not isinstance(item, dict):
        return Part("opaque")
    kind = _text(item.get("type", item.get("part_kind", item.get("kind"))))
    if kind in _CALLS:
        return _call(item)
    if kind in _RESPONSES or kind == "tool-return":
        return _response(item)
    for name in ("functionCall", "function_call", "toolUse", "toolRequest", "tool_call"):
        if isinstance(inner := item.get(name), dict):
            return _call(inner)
    for name in ("functionResponse", "function_response", "toolResult", "toolResponse"):
        if isinstance(inner := item.get(name), dict):
            return _response(inner)
    if isinstance(inner := item.get("tool_call_result"), dict):
        call = inner.get("origin")
        return _response({**(call if isinstance(call, dict) else {}), **inner})
    words = item.get("content", item.get("text", item.get("thinking")))
    if isinstance(words, dict):
        words = words.get("text", words.get("value"))
    if kind in _THOUGHTS or item.get("thought") is True:
        if not isinstance(words, str) and isinstance(summary := item.get("summary"), list):
            words = "\n".join(_text(one.get("text")) for one in summary if isinstance(one, dict))
        return Part("reasoning", words) if isinstance(words, str) else Part("opaque")
    if isinstance(words, str) and (kind in _TEXTS or kind not in _BLOBS):
        return Part("text", "" if is_marker(words) else words)
    if words is None and kind in _TEXTS:  # its words are withheld
        return Part("text", "")
    return Part("opaque")


_BLOBS = frozenset(("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "input_file", "blob",
                    "uri", "document", "media", "inline_data", "file_data"))  # fmt: skip
