"""The tool catalogue: remembers what tools are, and answers what a call of one does."""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from sidecar.core.reading import Effect
from sidecar.core.text.globs import fits
from sidecar.core.tools.act import Act, Hints, Override, Tool, tool_of
from sidecar.core.tools.arguments import MAX_KEY, Field, declared_fields, is_flat, is_message
from sidecar.core.tools.names import MAX_NAME, bare_name, is_odd, latin, words_of
from sidecar.core.tools.words import RUNS, SENDS, UNKNOWN, both, effect_of, effect_of_description

_MAX_DESCRIPTION: Final = 512
_MAX_SCHEMA: Final = 16_384
_MAX_SHAPES, _MAX_SHAPE = 32, 64
_MAX_PINNED: Final = 65_536
_UNHINTED: Final[Hints] = (None, None, None)
_EXECUTES: Final = ("command", "cmd", "sql", "code", "script")


class ToolCatalogue:
    """What tools do.

    Args:
        overrides: By a tool's bare name, its whole name as told, or a pattern of either (`*`, `?`); case counts. An
            exact name goes before patterns, an earlier pattern before a later one. An odd name has none.
        trusted_servers: Servers whose hints and descriptions may also lower a tool's class.
        capacity: Tools (name, description, schema and hints together) that are remembered; the least recently used goes
            first. Bounds memory at `capacity` times 60 kB at worst, 3 kB as a rule.
    """

    def __init__(
        self,
        overrides: Mapping[str, Override] | None = None,
        *,
        trusted_servers: Iterable[str] = (),
        capacity: int = 1024,
    ) -> None:
        self._overrides = dict(overrides or {})
        self._trusted = frozenset(trusted_servers)
        self._capacity = capacity
        self._tools: OrderedDict[Any, tuple[Tool, dict[tuple[str, ...], Effect]]] = OrderedDict()

    def effect(
        self,
        tool: str,
        arguments: Any,
        description: str = "",
        schema: str | Mapping[str, Any] | None = None,
        annotations: Mapping[str, Any] | None = None,
        *,
        server: str = "",
    ) -> Effect:
        """What this call does.

        Args:
            tool: Its name as told, decorated or not.
            arguments: An object, the JSON of one, a single text, or None where they are withheld: then what is known
                without them.
            description: As the agent was given it.
            schema: JSON Schema of the arguments, as an object or its JSON.
            annotations: MCP hints (`readOnlyHint` and so on).
            server: The server that offers it, as far as the caller knows that by itself; "" where it does not.
        """
        known, shapes = self._known(tool, description, schema, annotations, server)
        if type(arguments) is not dict or len(arguments) > _MAX_SHAPE or not is_flat(arguments):
            return Act(known, arguments).effect()
        shape = tuple(arguments)
        return shapes.get(shape) or _learn(known, shapes, shape, arguments)

    def _known(
        self,
        name: str,
        description: str,
        schema: str | Mapping[str, Any] | None,
        annotations: Mapping[str, Any] | None,
        server: str,
    ) -> tuple[Tool, dict[tuple[str, ...], Effect]]:
        if len(name) > 2 * MAX_NAME:
            name = name[: 2 * MAX_NAME]
        if len(description) > _MAX_DESCRIPTION:
            description = description[:_MAX_DESCRIPTION]
        declared = "" if schema is None else _json(schema)
        hints = _UNHINTED if annotations is None else _hints(annotations)
        trusted = server in self._trusted
        key = (name, description, declared, hints, trusted)
        found = self._tools.get(key)
        if found is not None:
            self._tools.move_to_end(key)
            return found
        found = (self._read(name, description, declared, hints, trusted=trusted), {})
        self._tools[key] = found
        if len(self._tools) > self._capacity:
            self._tools.popitem(last=False)
        return found

    def _read(self, told: str, description: str, schema: str, hints: Hints, *, trusted: bool) -> Tool:
        name = bare_name(told)
        words, context = words_of(name), words_of(told)
        effect = effect_of(words, context)
        if not effect.known and told != name and told.startswith(name):
            effect = effect_of(context)  # `payments.execute`: what looked like decoration was the verb
        declared = declared_fields(schema)
        effect = _declared(_described(effect, description, trusted=trusted), declared)
        odd = is_odd(told)
        override = None if odd else self._override(name, told)
        return replace(
            tool_of(name, words, context, effect),
            declared=declared, hints=hints, trusted=trusted, odd=odd, override=override,
        )  # fmt: skip

    def _override(self, name: str, told: str) -> Override | None:
        for exact in (told, name):
            if exact in self._overrides:
                return self._overrides[exact]
        return next((to for glob, to in self._overrides.items() if fits(glob, name) or fits(glob, told)), None)


def pin(
    name: str,
    description: str = "",
    schema: str | Mapping[str, Any] | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> str:
    """SHA-256, in hexadecimal digits, of what a tool was declared as, whatever the order of keys and blanks in JSON.

    Total: what is not JSON counts by its type, and what stands beyond 65,536 nodes only by being there.
    """
    declared: Any = schema
    if isinstance(schema, str):
        with contextlib.suppress(ValueError, RecursionError):  # else pinned as the text it is
            declared = msgspec.json.decode(schema)
    digest = hashlib.sha256()
    stack: list[Any] = [annotations or {}, declared or {}, description, name]
    for _ in range(_MAX_PINNED):
        if not stack:
            break
        item = stack.pop()
        if isinstance(item, Mapping):
            digest.update(b"{%d" % len(item))
            for key in sorted(item, key=str, reverse=True):
                stack += (item[key], str(key))
        elif isinstance(item, list | tuple):
            digest.update(b"[%d" % len(item))
            stack.extend(reversed(item))
        elif isinstance(item, str):
            raw = item.encode("utf-8", "surrogatepass")
            digest.update(b"s%d:" % len(raw) + raw)
        elif isinstance(item, int) and not isinstance(item, bool):
            digest.update(b"i%x;" % item)
        elif item is None or isinstance(item, bool | float):
            digest.update(f"v{item!r};".encode())
        else:
            digest.update(f"t{type(item).__name__};".encode())
    digest.update(b"+" if stack else b".")
    return digest.hexdigest()


def _learn(tool: Tool, shapes: dict[tuple[str, ...], Effect], shape: tuple[str, ...], arguments: Any) -> Effect:
    """Judges, and remembers the answer for these argument names where no value took part in it."""
    act = Act(tool, arguments)
    effect = act.effect()
    small = len(shapes) < _MAX_SHAPES and all(isinstance(key, str) and len(key) <= MAX_KEY for key in shape)
    if small and not act.by_value:
        shapes[shape] = effect
    return effect


def _described(effect: Effect, description: str, *, trusted: bool) -> Effect:
    told = effect_of_description(latin(description)) if description else UNKNOWN
    if not told.known:
        return effect
    if effect.known:
        return both(effect, told)
    return told if trusted else replace(both(effect, told), known=told.sends or told.runs)


def _declared(effect: Effect, fields: tuple[Field, ...]) -> Effect:
    """With what the names of its arguments say, where nothing else is known."""
    if effect.known:
        return effect
    if is_message(fields):
        return replace(both(effect, SENDS), known=True)
    if any(field.key in _EXECUTES for field in fields):
        return replace(both(effect, RUNS), known=True)
    return effect


def _json(schema: str | Mapping[str, Any]) -> str:
    """A schema as text; "" for one that is no JSON or too long to look at."""
    if not isinstance(schema, str):
        try:
            schema = msgspec.json.encode(schema).decode()
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            return ""
    return schema if len(schema) <= _MAX_SCHEMA else ""


def _hints(annotations: Mapping[str, Any]) -> Hints:
    """What is no boolean is not told."""
    told = [annotations.get(name) for name in ("readOnlyHint", "destructiveHint", "openWorldHint")]
    read_only, destructive, open_world = [value if isinstance(value, bool) else None for value in told]
    return (read_only, destructive, open_world)
