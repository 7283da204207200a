"""One call, judged by its tool and its arguments."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.reading import Effect
from sidecar.core.tools import arguments as names
from sidecar.core.tools.arguments import Field, fields_of, is_message, outermost
from sidecar.core.tools.names import words_of
from sidecar.core.tools.requests import effect_of_http, effect_of_sql
from sidecar.core.tools.shell import effect_of_command_line, effect_of_path, is_program
from sidecar.core.tools.words import (
    CHANGES,
    LASTS,
    MAKES,
    OUT,
    READS,
    RUNS,
    SENDS,
    SENDS_OUT,
    UNKNOWN,
    VERBS,
    WEAK_VERBS,
    both,
    effect_of,
    is_a,
    is_vague,
    listed,
    verbs_of,
)

Hints = tuple[bool | None, bool | None, bool | None]
"""`readOnlyHint`, `destructiveHint`, `openWorldHint`; None where not told."""

_MAX_ACTION: Final = 64
"""Characters of an argument that says what to do; a longer one is content."""
_MAX_TEXTS: Final = 8
_ADDING: Final = ("sends", "changes", "runs", "standing")

_SHELLS: Final = listed("shell bash sh zsh powershell pwsh terminal subprocess cmd ssh tmux")
_COMMAND_OBJECTS: Final = listed("command commands cmd line process")
_CODE: Final = listed("python py code interpreter repl jupyter javascript js node ruby script evaluate")
_SQL: Final = listed("sql sqlite mysql postgres postgresql psql duckdb snowflake bigquery redshift mssql clickhouse")
_DATABASES: Final = listed("database db databases warehouse query queries datenbank base") | _SQL
_HTTP: Final = listed("http https curl wget httpx")
_HTTP_METHODS: Final = listed("get head options post put patch delete")
_HTTP_VERBS: Final = listed("fetch send make run execute") | _HTTP_METHODS
_MANY_USES: Final = listed("client system systems console portal tool tools manager service services api app platform")
_EDITS: Final = listed("edit update replace modify patch multi apply str string based text tool")


class Override(Struct, frozen=True):
    """What the operator says of a tool; None leaves it to the catalogue."""

    reads: bool | None = None
    sends: bool | None = None
    changes: bool | None = None
    runs: bool | None = None
    reversible: bool | None = None
    standing: bool | None = None
    outward: bool | None = None
    recipient_fields: tuple[str, ...] | None = None
    content_fields: tuple[str, ...] | None = None


class Tool(Struct, frozen=True):
    """What is known of a tool before its arguments are seen.

    Attributes:
        name: Without decoration.
        words, context: Those of the name; those of the name as told, with its decoration.
        executor: What it takes, where it is a generic executor: ``shell``, ``program``, ``code``, ``sql``, ``query``
            (SQL or a question), ``http``.
        vague: It leaves what it does to its arguments.
        pays, dated, queries: It is about money; about a calendar; about a database.
        effect: What the name, the description and the schema say.
        declared: The arguments of its schema.
        odd: See `Effect.odd_name`.
    """

    name: str
    words: list[str]
    context: list[str]
    executor: str
    vague: bool
    pays: bool
    dated: bool
    queries: bool
    effect: Effect
    declared: tuple[Field, ...] = ()
    hints: Hints = (None, None, None)
    trusted: bool = False
    odd: bool = False
    override: Override | None = None


def tool_of(name: str, words: list[str], context: list[str], effect: Effect) -> Tool:
    """A tool as its name tells it."""
    return Tool(
        name,
        words,
        context,
        executor=_executor(words, context),
        vague=is_vague(words),
        pays=is_a("money", words) or "pay" in verbs_of(words),
        dated=is_a("calendar", words),
        queries=not _DATABASES.isdisjoint(context),
        effect=effect,
    )


def _executor(words: Sequence[str], context: Sequence[str]) -> str:
    verbs = [word for word in words if VERBS.get(word, "vague") != "vague"]
    around = {*words, *context} if len(words) == 1 else {*words}
    if not _HTTP.isdisjoint(around) and all(word in _HTTP_VERBS for word in verbs):
        return "http"
    runs = any(VERBS[word] == "run" for word in verbs)
    if any(VERBS[word] != "run" for word in verbs) or (not runs and is_a("state", words[-1:])):
        return ""
    if not _SHELLS.isdisjoint(around) or (runs and not _COMMAND_OBJECTS.isdisjoint(words)):
        return "shell"
    if not _SQL.isdisjoint(around):
        return "sql"
    if runs and not _DATABASES.isdisjoint(words):
        return "query"
    if not _CODE.isdisjoint(around) and (runs or all(word in _CODE or word in VERBS for word in words)):
        return "code"
    return "program" if len(words) == 1 and words[0] not in WEAK_VERBS and is_program(words[0]) else ""


def hinted(effect: Effect, hints: Hints, *, trusted: bool) -> Effect:
    """With what the server's hints add; and, for a trusted one, without what they exclude."""
    read_only, destructive, open_world = hints
    if read_only is False:
        effect = replace(effect, changes=True, reversible=effect.reversible and effect.changes)
    if destructive:
        effect = replace(effect, changes=True, reversible=False)
    if open_world:
        effect = replace(effect, outward=True)
    if not trusted:
        return effect
    if read_only:
        effect = replace(READS, outward=effect.outward)
    elif destructive is False:
        effect = replace(effect, changes=True, reversible=not (effect.sends or effect.standing), known=True)
    return replace(effect, outward=False) if open_world is False else effect


class Act:
    """One call.

    Attributes:
        by_value: Whether a value took part, so that another call with the same argument names may differ.
    """

    def __init__(self, tool: Tool, arguments: Any) -> None:
        self.tool, self.by_value = tool, False
        self._withheld = arguments is None
        self._fields, self._complete = (list(tool.declared), True) if self._withheld else fields_of(arguments)
        self._made_standing = False

    def effect(self) -> Effect:
        """What it does. Nothing that is not `known`, that sends or is standing is reversible."""
        tool = self.tool
        effect = hinted(self._executed() if tool.executor else self._named(), tool.hints, trusted=tool.trusted)
        if not self._withheld:
            effect = self._with_standing(self._with_paths(self._with_people(effect)))
        if effect.reads and any(field.key in names.URLS for field in self._fields):
            effect = replace(effect, outward=True)
        known = effect.known and not tool.odd
        firm = effect.sends or effect.standing or not known or not self._complete
        effect = replace(
            effect, tool=tool.name, known=known, reversible=effect.reversible and not firm, odd_name=tool.odd
        )
        return self._overridden(self._with_fields(effect))

    # ------------------------------------------------------------ what it does

    def _executed(self) -> Effect:
        """A generic executor, by what it is given."""
        kind = self.tool.executor
        self.by_value = True
        if kind == "http":
            return self._http(next((word for word in self.tool.words if word in _HTTP_METHODS), ""))
        if kind == "code":
            return RUNS
        texts = self._texts(names.SQL if kind in ("sql", "query") else names.COMMANDS)
        if not texts:
            return both(RUNS, CHANGES)
        if kind == "sql":
            return functools.reduce(both, [effect_of_sql(text, surely=True) or UNKNOWN for text in texts])
        if kind == "query":
            return functools.reduce(both, [effect_of_sql(text) or READS for text in texts])
        program = self.tool.words[0] if kind == "program" else ""
        return functools.reduce(both, [effect_of_command_line(_led_by(program, text)) for text in texts])

    def _texts(self, keys: frozenset[str]) -> list[str]:
        """What an executor is given: the arguments called so, else its only text; `args` belong to what is before."""
        called = [field for field in self._fields if field.key in keys]
        if not called and len(self._fields) == 1:
            called = self._fields
        self._complete &= len(called) <= _MAX_TEXTS and not any(field.is_long() for field in called)
        texts: list[str] = []
        for field in called[:_MAX_TEXTS]:
            text = _line(field)
            if field.key in ("args", "arguments") and texts:
                texts[-1] = f"{texts[-1]} {text}"
            elif text:
                texts.append(text)
        return texts

    def _http(self, named: str) -> Effect:
        if self._withheld and not named:
            return both(OUT, SENDS_OUT)
        body = any(field.key in names.BODIES and field.is_set() for field in self._fields)
        told = [text for field in self._fields if field.key in names.METHODS for text in field.texts()]
        methods = [named, *told] if named else told or [""]
        return functools.reduce(both, [effect_of_http(method, body=body) for method in methods])

    def _named(self) -> Effect:
        """A tool of its own, by its name, or by an argument that says what to do."""
        tool = self.tool
        if self._withheld:
            return tool.effect
        effect = self._by_action() if tool.vague else self._tightened_by_action(tool.effect)
        if effect == CHANGES and _EDITS.issuperset(tool.words) and any(f.key in names.FILES for f in self._fields):
            effect = MAKES  # what it edits is a file
        if tool.queries or any(field.key == "sql" for field in self._fields):
            effect = self._with_sql(effect)
        if effect.known:
            return effect
        if not effect.changes and any(field.key in names.URLS for field in self._fields):
            self.by_value = True
            return both(self._http(""), replace(effect, known=True))
        if is_message(field for field in self._fields if field.is_set()):
            self.by_value = True
            return replace(both(effect, SENDS), known=True)
        return effect

    def _by_action(self) -> Effect:
        """What an argument such as `action` says; the name's own reading where there is none."""
        tool = self.tool
        given = {field.key: field for field in reversed(self._fields)}
        around = [*tool.words, *(word for key in names.MODULES if key in given for word in _words_in(given[key]))]
        sure = [words for field in self._fields if field.key in names.SURE_ACTIONS and (words := _words_in(field))]
        if sure:
            self.by_value = True
            effect = functools.reduce(both, [effect_of(words, around) for words in sure])
            one_use = tool.effect.sends and _MANY_USES.isdisjoint(tool.words)
            sent = one_use and is_message(field for field in self._fields if field.is_set())
            return both(effect, tool.effect) if sent or not effect.known else effect
        for key in names.ACTIONS:
            if key not in given or (key == "name" and {"tool", "function"}.isdisjoint(tool.context)):
                continue
            self.by_value = True
            words = _words_in(given[key])
            if not (key in names.LOOSE_ACTIONS and is_vague(words)) and (effect := effect_of(words, around)).known:
                return effect
        return tool.effect

    def _tightened_by_action(self, effect: Effect) -> Effect:
        for field in self._fields:
            if field.key in names.SURE_ACTIONS:
                self.by_value = True
                words = _words_in(field)
                if not is_vague(words):
                    effect = both(effect, replace(effect_of(words, self.tool.words), known=effect.known))
        return effect

    def _with_sql(self, effect: Effect) -> Effect:
        for field in self._fields:
            if field.key in names.SQL:
                self.by_value = True
                self._complete &= not field.is_long()
                for text in field.texts():
                    if (told := effect_of_sql(text)) is not None:
                        effect = both(effect, told) if effect.known else told
        return effect

    # ------------------------------------------------------------ what the arguments add

    def _with_people(self, effect: Effect) -> Effect:
        """A change that names people to be told of it is a message to them."""
        if effect.sends or not effect.changes:
            return effect
        told = any(field.key in names.PROSE and field.is_set() for field in self._fields)
        for field in self._fields:
            if field.name.recipient:
                self.by_value = True
                if (field.name.people and field.is_set()) or (told and field.holds_a_mailbox()):
                    return both(effect, replace(SENDS, known=effect.known))
        return effect

    def _with_paths(self, effect: Effect) -> Effect:
        if not (effect.changes and effect.reversible):
            return effect
        for field in self._fields:
            if field.key in names.PATHS:
                self.by_value = True
                self._complete &= not field.is_long()
                for path in field.texts():
                    effect = both(effect, effect_of_path(path))
        return effect

    def _with_standing(self, effect: Effect) -> Effect:
        acts = effect.changes or effect.sends or not effect.known
        in_changes = acts and not self.tool.dated
        for field in self._fields:
            if field.key in names.LASTING or (in_changes and field.key in names.LASTING_IN_CHANGES):
                self.by_value = True
                if field.is_set():
                    self._made_standing = True
                    effect = both(effect, replace(LASTS, known=effect.known))
        return effect

    # ------------------------------------------------------------ where its recipients and its content are

    def _with_fields(self, effect: Effect) -> Effect:
        goes = effect.sends or effect.standing or effect.outward
        if not goes and not effect.changes:
            return effect
        to: tuple[str, ...] = ()
        if goes:
            to = outermost(field for field in self._fields if _is_reached(field, outward=effect.outward))
        elif self.tool.pays:
            to = outermost(field for field in self._fields if field.name.payee)
        what = outermost(field for field in self._fields if field.name.content and field.path not in to)
        if effect.outward:  # an address may carry as much as a body
            what = outermost(self._fields)
        elif goes and not what:
            what = outermost(field for field in self._fields if field.path not in to)
        return replace(effect, recipient_fields=to, content_fields=what)

    def _overridden(self, effect: Effect) -> Effect:
        said = self.tool.override
        if said is None:
            return effect
        stated = {name: value for name in said.__struct_fields__ if (value := getattr(said, name)) is not None}
        if any(stated.get(name) and not getattr(effect, name) for name in _ADDING):
            stated.setdefault("reversible", False)
        if self._made_standing and stated.get("standing") is not False:
            stated["reversible"] = False
        return replace(effect, known=True, **stated)


def _words_in(field: Field) -> list[str]:
    return [word for text in field.texts() if len(text) <= _MAX_ACTION for word in words_of(text)]


def _line(field: Field) -> str:
    """A text, or a list: of lines, or of one command's words."""
    texts = list(field.texts())
    if not isinstance(field.value, list | tuple):
        return "".join(texts)
    lines = field.key in ("commands", "statements", "lines") or any(" " in text for text in texts[:1])
    return "\n".join(texts) if lines else " ".join("'" + text.replace("'", "'\"'\"'") + "'" for text in texts)


def _is_reached(field: Field, *, outward: bool) -> bool:
    return field.name.recipient or (outward and (field.key in names.URLS or field.key == "name"))


def _led_by(program: str, text: str) -> str:
    """A program's arguments behind its name, where they do not begin with it already."""
    return text if not program or text.split(None, 1)[:1] == [program] else f"{program} {text}"
