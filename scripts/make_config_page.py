"""Makes docs/configuration.md from the models that read the configuration file.

python -m scripts.make_config_page [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sidecar import settings
from sidecar.config import Config
from sidecar.control.auth import Token
from sidecar.settings import descriptions

PLACE = Path(__file__).parents[1] / "docs/configuration.md"

INTRODUCTION = """\
# Configuration

Every key of the YAML file that `sidecar run --config FILE` reads. Made from the models that read it by
`python -m scripts.make_config_page`. Without a file all defaults hold.

- `sidecar check FILE` says what is wrong with a file, by key, without starting anything; warnings are what is allowed
  and probably not meant. `sidecar config show --config FILE` prints every setting in force and which of them the file
  gave.
- A key that is not known, a value out of its range or a YAML key given twice stops the start.
- A *duration* is a number of seconds or a text such as `250ms`, `5s`, `10m`, `24h`, `30d`; a *size* is a number of
  bytes or a text such as `64KiB`, `16MiB`, `2GiB`.
- The file is read once, when the sidecar starts. To change a setting, change the file and start it again. Only the file
  of credentials is read again while it runs.

```yaml
# A small one: what is inside, who owns whom, and one role that may only watch.
organisation:
  domains: [corp.example]
owners:
  - {role: "mail-*", owner: office-team}
policy:
  roles:
    - {role: "trial-*", posture: observe}
```
"""
_NO_BOUND = {"duration": 10 * 366 * 86400, "size": 2**50}
"""Bounds so wide that a reader need not know them."""
_DURATIONS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
_SIZES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_PLAIN = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", Path: "path", Any: "anything",
          datetime: "date and time"}  # fmt: skip


def build() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for path, model, values in sections("", Config, None):
        parts.append(f"\n## {f'`{path}`' if path else 'The file'}\n\n{about(model)}\n")
        parts.append("\n| key | takes | default | says |\n| --- | --- | --- | --- |\n")
        parts.extend(rows(model, values))
    parts.append(
        "\n## The file of credentials\n\n`control.credentials.file` names a file of mode 0600 with a list `tokens:`. "
        "It is read again when it changes. How to make a token: [operating.md](operating.md#credentials).\n"
        "\n| key | takes | default | says |\n| --- | --- | --- | --- |\n"
    )
    parts.extend(rows(Token))
    return "".join(parts)


def sections(
    path: str, model: type[BaseModel], values: BaseModel | None
) -> Iterator[tuple[str, type[BaseModel], BaseModel | None]]:
    """A model and those within it, with the path of their keys, and the instance that is the default there."""
    yield path, model, values
    for key, field in model.model_fields.items():
        for inner, mark in models_in(field.annotation):
            given = field.default if isinstance(field.default, BaseModel) and not mark else None
            yield from sections(f"{path}.{key}{mark}".lstrip("."), inner, given)


def models_in(annotation: Any, mark: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """Models that a key's value is made of; `[]` marks a list of them, `NAME` a mapping by name."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, mark
    elif origin is tuple:
        yield from models_in(get_args(annotation)[0], "[]")
    elif origin is dict:
        yield from models_in(get_args(annotation)[1], ".NAME")
    elif origin is Annotated:
        yield from models_in(get_args(annotation)[0], mark)
    elif origin in (Union, UnionType):
        for one in get_args(annotation):
            yield from models_in(one, mark)


def rows(model: type[BaseModel], values: BaseModel | None = None) -> Iterator[str]:
    """A table's lines; defaults are those of `values`, where given."""
    says = descriptions(model)
    return (row(key, field, says.get(key, ""), values) for key, field in model.model_fields.items())


def row(key: str, field: FieldInfo, says: str, values: BaseModel | None) -> str:
    """A line of a table."""
    says = says.replace("``", "`").replace("|", "\\|")
    return f"| `{key}` | {takes(field)} | {default(key, field, values)} | {says} |\n"


def about(model: type[BaseModel]) -> str:
    """What a model says of itself."""
    return " ".join((model.__doc__ or "").split())


def takes(field: FieldInfo) -> str:
    """The kind of a key's value, and its range."""
    kind = kind_of(field)
    unit = {"duration": _DURATIONS, "size": _SIZES}.get(kind, ())
    # The tightest bounds win: those of the key over those of its type.
    low = max((m.ge for m in field.metadata if isinstance(m, Ge)), default=None)
    high = min((m.le for m in field.metadata if isinstance(m, Le)), default=None)
    above = next((m.gt for m in field.metadata if isinstance(m, Gt)), None)
    below = next((m.lt for m in field.metadata if isinstance(m, Lt)), None)
    bounds = []
    if above is not None:
        bounds.append(f"more than {number(above, unit)}")
    elif low:
        bounds.append(f"at least {number(low, unit)}")
    if below is not None:
        bounds.append(f"less than {number(below, unit)}")
    elif high is not None and high < _NO_BOUND.get(kind, 10**9):
        bounds.append(f"at most {number(high, unit)}")
    return ", ".join([kind, *bounds])


def kind_of(field: FieldInfo) -> str:
    """What a key takes, in a word or two."""
    for mark in field.metadata:
        reader = getattr(mark, "func", None)
        if reader is settings._seconds:
            return "duration"
        if reader is settings._bytes:
            return "size"
    return named(field.annotation)


def named(annotation: Any) -> str:
    """A type, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin is Annotated:
        return named(inner[0])
    if origin is tuple:
        return "list, below" if list(models_in(inner[0])) else f"list of {named(inner[0])}"
    if origin is dict:
        return "mapping, below" if list(models_in(inner[1])) else "mapping"
    if origin in (Union, UnionType):
        rest = [named(one) for one in inner if one is not NoneType]
        return " or ".join([*rest, *(["`null`"] if NoneType in inner else [])])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "below"
    if getattr(annotation, "__name__", "") == "AwareDatetime":
        annotation = datetime
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def default(key: str, field: FieldInfo, values: BaseModel | None) -> str:
    """A key's value where the file says nothing."""
    if field.is_required():
        return "needed"
    if field.default_factory is dict:
        return "`{}`"
    if field.default_factory is not None:  # depends on the machine
        return "see there"
    value = field.default if values is None else getattr(values, key)
    if isinstance(value, BaseModel):
        return " "
    unit = {"duration": _DURATIONS, "size": _SIZES}.get(kind_of(field))
    if unit and isinstance(value, int | float):
        return f"`{number(value, unit)}`"
    return f"`{json.dumps(_data(value), ensure_ascii=False)}`"


def number(value: Any, units: Any) -> str:
    """A number with the largest unit that it is a whole number of."""
    for name, size in units:
        if value and round(value / size, 9) == int(round(value / size, 9)):
            return f"{round(value / size)}{name}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, tuple | list):
        return [_data(one) for one in value]
    if isinstance(value, dict):
        return {key: _data(one) for key, one in value.items()}
    return str(value) if isinstance(value, Path) else value


def main(argv: list[str]) -> int:
    """The command; with `--check` 1 when the file is not what would be written."""
    text = build()
    if "--check" in argv:
        return PLACE.read_text("utf-8") != text
    PLACE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
