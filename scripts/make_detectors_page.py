"""Makes docs/detectors.md from the detectors themselves: what each says of itself, its options and its examples.

python -m scripts.make_detectors_page [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from sidecar.config import INJECTED
from sidecar.core.detectors import SHIPPED
from sidecar.core.examples import Step

PLACE = Path(__file__).parents[1] / "docs/detectors.md"

INTRODUCTION = """\
# Detectors

Made from `sidecar/core/detectors/` by `python -m scripts.make_detectors_page`. The examples are the detectors' own, and
their first tests: each is played through the real reader and the real engine (`tests/contracts/test_detectors.py`).
Options are set under `detectors:` in the configuration, modes under `policy.modes`; see [rules.md](rules.md).

| detector | family | severity | one for each | mode | may find at |
| --- | --- | --- | --- | --- | --- |
"""


def build() -> str:
    """The page."""
    rows = [
        f"| [`{d.name}`](#{d.name}) | {d.family} | {d.severity.word} | {d.scope} | {d.mode} | {', '.join(seen(d))} |\n"
        for d in SHIPPED
    ]
    return INTRODUCTION + "".join(rows) + "".join(map(section, SHIPPED))


def seen(detector: type[Any]) -> list[str]:
    """Kinds of events that it wants, in words."""
    return [re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower() for kind in detector.sees]


def section(detector: type[Any]) -> str:
    """What one detector says of itself."""
    module = inspect.cleandoc(sys.modules[detector.__module__].__doc__ or "")
    options = {
        parameter.name: parameter.default
        for parameter in inspect.signature(detector).parameters.values()
        if parameter.name not in INJECTED
    }
    parts = [f"\n## {detector.name}\n", inspect.cleandoc(detector.__doc__ or "")]
    if sum(d.__module__ == detector.__module__ for d in SHIPPED) == 1:
        parts.insert(1, module + "\n")
    lines = ["\n".join(parts).replace("``", "`"), ""]
    said = ", ".join(f"`{name}: {value}`" for name, value in options.items())
    lines.append(f"Options: {said or 'none'}. Patterns: {len(detector.patterns)}. Tags: {', '.join(detector.tags)}.\n")
    lines.append("| example | flagged | its last step |\n| --- | --- | --- |")
    lines.extend(
        f"| {example.name} | {'yes' if example.flagged else 'no'} | {shown(example.event)} |"
        for example in detector.examples
    )
    return "\n".join(lines) + "\n"


def shown(step: Step) -> str:
    """A step of an example, short and on one line."""
    if step.say == "act":
        told = ", ".join(f"{name}={str(value)!r}" for name, value in step.arguments.items())
        text = f"{step.tool}({told})"
    else:
        text = f"{step.say}: {step.text}"
    text = " ".join(text.replace("`", "'").replace("|", "¦").split())
    return f"`{text if len(text) <= 160 else text[:159] + '…'}`"


def main(argv: list[str]) -> int:
    """The command; with `--check` 1 when the file is not what would be written."""
    text = build()
    if "--check" in argv:
        return PLACE.read_text("utf-8") != text
    PLACE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
