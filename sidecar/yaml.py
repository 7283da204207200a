"""Reads YAML as people mean it, and refuses what could surprise or harm.

A strict subset of YAML 1.2: no tags, no merge keys, no key twice, few aliases; ``on`` and ``no`` are texts and 1:30 is
no number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode

from sidecar.errors import ConfigError

MAX_BYTES = 10 * 2**20
MAX_ALIASES = 64
MAX_NODES = 200_000
MAX_DEPTH = 64


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema and bounds."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._aliases = self._nodes = self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.constructor.ConstructorError(None, None, "tags are not taken", event.start_mark)
        self._nodes += 1
        self._aliases += self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._aliases > MAX_ALIASES or self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, "too many aliases, or nested too deeply", None)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _resolver(tag: str, pattern: str, first: str, *, empty: bool = False) -> None:
    _Loader.add_implicit_resolver(tag, re.compile(pattern), [*first, *([""] if empty else [])])


_resolver("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolver("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN", empty=True)
_resolver("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
_resolver(
    "tag:yaml.org,2002:float",
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$",
    "-+.0123456789",
)


def load(path: Path) -> Any:
    """The document in a file.

    Raises:
        ConfigError: It cannot be read, or is not the YAML described above; says line and column.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(error.strerror or str(error), file=str(path)) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES} bytes", file=str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 (byte {error.start})", file=str(path)) from error
    return parse(text, str(path))


def parse(text: str, file: str = "") -> Any:
    """The document in a text; see `load`."""
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{where}{error.problem or error.context}", file=file) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"is no YAML: {str(error).splitlines()[0]}", file=file) from error
    finally:
        if loader is not None:
            loader.dispose()


def validated(model: type[BaseModel], document: Any, file: str) -> Any:
    """`document` as a settings model.

    Raises:
        ConfigError: Names the first key that is wrong and what would be right; a misspelt key gets a suggestion.
    """
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError("expected a mapping of settings", file=file)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        # A misspelt key first: that another is missing is often only its consequence.
        first = next((one for one in wrong if one["type"] == "extra_forbidden"), wrong[0])
        key = dotted(first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = _names_beside(model, first["loc"])
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.6)
            message = f"there is no such setting; did you mean {near[0]!r}?" if near else "there is no such setting"
        more = len(wrong) - 1
        raise ConfigError(message + (f" (and {more} more)" if more else ""), key=key, file=file) from error


def dotted(place: Iterable[str | int]) -> str:
    """``('policy', 'roles', 0)`` as ``policy.roles[0]``."""
    out = ""
    for part in place:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def _names_beside(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """Names of the settings that stand where a wrong one was found."""
    here: Any = model
    for part in place[:-1]:
        if isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[str(part)].annotation
        else:  # an index, or a key that the operator chose
            here = _model_in(here)
    here = _model_in(here)
    return [] if here is None else list(here.model_fields)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _model_in(inner)) is not None:
            return found
    return None
