"""Reads documents that people write: YAML (JSON is YAML), and nothing in it that surprises."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sidecar.errors import ConfigError

MAX_BYTES, MAX_DEPTH = 4 * 2**20, 64

T = TypeVar("T", bound=BaseModel)


class _Loader(yaml.CSafeLoader):
    """Plain values only: a key given twice is refused, and no tag makes an object."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse(text: bytes, *, file: str = "") -> Any:
    """The plain values of a YAML or JSON document.

    Args:
        file: Named in errors.
    Raises:
        ConfigError: It cannot be read; line and column are named.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES} bytes", file=file)
    try:
        _check(text, file)
        return yaml.load(text, _Loader)  # noqa: S506  # a safe loader, made stricter
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{_place(error.problem_mark)}{error.problem or 'cannot be read'}", file=file) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError("is neither YAML nor JSON", file=file) from error


def read(text: bytes, model: type[T], *, file: str = "") -> T:
    """A document as `model`.

    Raises:
        ConfigError: It cannot be read, or does not fit; the key is named, its value is not.
    """
    try:
        return model.model_validate(parse(text, file=file))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(str(first["msg"]), key=key, file=file) from None


def _check(text: bytes, file: str) -> None:
    """Refuses anchors, aliases and depth before anything is built of them."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "anchor", None) is not None:
            raise ConfigError(f"{_place(event.start_mark)}anchors and aliases are not taken", file=file)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{_place(event.start_mark)}nested too deep", file=file)


def _place(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
