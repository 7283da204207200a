"""`sidecar detectors`, `tools`, `check` and `config show`: what the sidecar would do, without starting it."""

from __future__ import annotations

import inspect
import json
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sidecar.cli.terminal import NO, OK, Terminal
from sidecar.errors import ConfigError
from sidecar.settings import descriptions


def detectors(terminal: Terminal, name: str | None, config: Path | None) -> int:
    """All detectors, or one with its options and examples."""
    from sidecar.config import INJECTED, read
    from sidecar.core.detectors import SHIPPED

    policy = read(config).policy
    if name is None:
        rows = [
            (d.name, d.family, d.severity.word, d.scope, policy.modes.get(d.name, d.mode), _first_line(d))
            for d in SHIPPED
        ]
        keys = ("name", "family", "severity", "scope", "mode", "about")
        terminal.table(
            "", ("detector", "family", "severity", "scope", "mode", "what it finds"), rows,
            [dict(zip(keys, row, strict=True)) for row in rows],
        )  # fmt: skip
        return OK
    found = next((d for d in SHIPPED if d.name == name), None)
    if found is None:
        terminal.warn(f"no detector is called {name!r}; there are {', '.join(d.name for d in SHIPPED)}")
        return NO
    options = {
        parameter.name: parameter.default
        for parameter in inspect.signature(found).parameters.values()
        if parameter.name not in INJECTED
    }
    document = {
        "name": found.name, "family": found.family, "severity": found.severity.word, "scope": found.scope,
        "mode": policy.modes.get(found.name, found.mode), "tags": list(found.tags), "options": options,
        "patterns": [pattern.name for pattern in found.patterns], "about": inspect.cleandoc(found.__doc__ or ""),
        "examples": [{"name": e.name, "flagged": e.flagged} for e in found.examples],
    }  # fmt: skip
    words = [
        f"{found.name} ({found.family}, {found.severity.word}, one a {found.scope}, mode {document['mode']})",
        "", inspect.cleandoc(found.__doc__ or ""), "",
        "options: " + (", ".join(f"{key} = {value}" for key, value in options.items()) or "none"),
        f"patterns: {len(found.patterns)}", "", "examples:",
        *(f"  {'flagged' if e.flagged else 'quiet  '}  {e.name}" for e in found.examples),
    ]  # fmt: skip
    terminal.show(document, "\n".join(words))
    return OK


def tools(terminal: Terminal, name: str, arguments: str, config: Path | None) -> int:
    """What the catalogue sees in a tool call."""
    from sidecar.config import read

    try:
        value: Any = json.loads(arguments) if arguments else {}
    except ValueError as error:
        raise ConfigError(f"no JSON: {error}", key="ARGUMENTS") from error
    effect = read(config).tools.catalogue().effect(name, value)
    document = msgspec.to_builtins(effect)
    does = [word for word in ("reads", "sends", "changes", "runs", "standing", "outward") if document[word]]
    words = [
        f"{effect.tool}: {', '.join(does) or 'nothing that is known'}",
        f"{'reversible' if effect.reversible else 'irreversible'}, "
        + ("known to the catalogue" if effect.known else "unknown: judged by its content"),
    ]
    if effect.recipient_fields:
        words.append(f"goes to: {', '.join(effect.recipient_fields)}")
    if effect.content_fields:
        words.append(f"content: {', '.join(effect.content_fields)}")
    terminal.show(document, "\n".join(words))
    return OK


def check(terminal: Terminal, config: Path) -> int:
    """Whether a configuration would be taken; its warnings."""
    from sidecar.assembly import patterns
    from sidecar.config import read
    from sidecar.core.text.scan import PatternSet

    settings = read(config)
    found = PatternSet((*patterns(), *settings.sensitive.compiled()))
    found.compile_hyperscan()  # names a pattern that can never match
    _try_files(settings, str(config))
    warnings = settings.warnings()
    terminal.show({"ok": True, "warnings": warnings}, f"{config}: fine" + (", with warnings" if warnings else ""))
    for warning in warnings:
        terminal.warn(f"{config}: warning: {warning}")
    return OK


def _try_files(settings: Any, file: str) -> None:
    """Reads what a start would read: certificates, keys and credentials."""
    from sidecar.control.auth import Credentials
    from sidecar.sources.otlp import read_tls

    for section in ("otlp", "control"):
        tls = getattr(settings, section).tls
        try:
            if tls is not None:
                read_tls(tls, datetime.now(UTC))
        except ConfigError as error:
            raise ConfigError(error.message, key=f"{section}.{error.key}", file=file) from error
    Credentials(settings.control.credentials)


def show_config(terminal: Terminal, config: Path | None) -> int:
    """The settings in force, each with its origin and what it means."""
    from sidecar.config import read
    from sidecar.yaml import load

    settings = read(config)
    given = load(config) if config is not None else {}
    document = settings.model_dump(mode="json")
    if terminal.as_json:
        terminal.show({"config": document, "given": given or {}}, "")
        return OK
    lines: list[str] = []
    _describe(type(settings), document, given or {}, 0, lines)
    terminal.show(document, "\n".join(lines))
    return OK


def _describe(model: Any, document: dict[str, Any], given: Any, depth: int, lines: list[str]) -> None:
    pad, says = "  " * depth, descriptions(model)
    for name, field in model.model_fields.items():
        value = document[name]
        said = given.get(name) if isinstance(given, dict) else None
        inner = _settings_in(field.annotation)
        lines.extend(
            textwrap.wrap(says.get(name, ""), 110 - len(pad), initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")
        )
        if inner is not None and isinstance(value, dict):
            lines.append(f"{pad}{name}:")
            _describe(inner, value, said, depth + 1, lines)
            continue
        origin = "  # from the file" if isinstance(given, dict) and name in given else ""
        lines.append(f"{pad}{name}: {json.dumps(value, ensure_ascii=False)}{origin}")


def _settings_in(annotation: Any) -> Any:
    from pydantic import BaseModel

    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _first_line(detector: type[Any]) -> str:
    return inspect.cleandoc(detector.__doc__ or "").split("\n\n")[0].replace("\n", " ")
