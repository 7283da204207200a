"""What all settings share: strict models, and durations and sizes as people write them."""

from __future__ import annotations

import ast
import inspect
import math
import sys
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


class Settings(BaseModel):
    """A component's settings: frozen, and a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model's fields say, by field.

    Pydantic would read them at every start, from the source of every model, which takes a fifth of the start.
    """
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            found |= _docstrings(kind.__module__).get(kind.__name__, {})
    return {name: " ".join(found[name].split()) for name in model.model_fields if name in found}


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Class → field → docstring, of all classes of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {
        kind.name: {
            field.target.id: str(text.value.value)
            for field, text in pairwise(kind.body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        }
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
    }


def _with_unit(value: Any, units: dict[str, Any], example: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a number with a unit, for instance {example}")
    if isinstance(value, str):
        digits = value.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        unit = value[len(digits) :]
        if unit not in units or digits != digits.strip():
            raise ValueError(f"expected a number with one of the units {', '.join(units)}, for instance {example}")
        try:
            value = float(digits) * units[unit]
        except ValueError as error:
            raise ValueError(f"not a number: {digits!r}; write for instance {example}") from error
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _seconds(value: Any) -> Any:
    return _with_unit(value, _SECONDS, "5s")


def _bytes(value: Any) -> Any:
    value = _with_unit(value, _BYTES, "16MiB")
    if value != int(value):
        raise ValueError("must be a whole number of bytes")
    return int(value)


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=10 * 366 * 86400)]
"""A duration in seconds; in YAML a number or a text such as ``250ms``, ``5s``, ``10m``, ``24h``, ``30d``."""

Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0, le=2**50)]
"""A size in bytes; in YAML a whole number or a text such as ``64KiB``, ``16MiB``, ``2GiB``."""

Count = Annotated[int, Field(ge=1, le=10**9)]
"""How many of something there may be, 1 to a thousand million."""
