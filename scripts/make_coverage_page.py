"""Makes docs/coverage.md from docs/coverage.json: what `sidecar doctor` says of real frameworks.

python -m scripts.make_coverage_page [--check]      the page, from the figures
python -m scripts.make_coverage_page --captures     first the figures, from the captures in SIDECAR_SHARED

The figures are counts alone and the names of instrumentation scopes and packages; no content of any capture is in them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from sidecar.cli.doctor import NAMES, of_files
from sidecar.core.blind_spots import FAMILIES, NEEDS, blind_spots
from sidecar.core.coverage import INPUTS, AgentReport
from sidecar.core.switches import (
    ANY_NAME,
    ANY_PARENT,
    ANY_SESSION,
    ANY_USER,
    ANY_VERSION,
    FAULTS,
    GATE,
    LIBRARIES,
    library_of,
    switches,
)  # fmt: skip

DOCS = Path(__file__).parents[1] / "docs"
PLACE, FIGURES = DOCS / "coverage.md", DOCS / "coverage.json"
MODES = ("content", "nocontent", "default")
STATES = ("told", "inferred", "withheld", "absent")
Numbers = dict[str, tuple[int, dict[str, None]]]
"""Switch → its number on the page, and the libraries that it is of."""
PACKAGES = {
    "langgraph": ("langgraph", "langchain"), "pydantic_ai": ("pydantic-ai-slim", "pydantic-ai"),
    "autogen": ("autogen-agentchat",), "agent_framework": ("agent-framework-core", "agent-framework"),
    "vercel_ai": ("ai",), "claude_agent": ("claude-agent-sdk",), "mcp": ("mcp", "fastmcp"),
}  # fmt: skip
"""Framework → its packages, and what instrumentations call it; else both are called like it."""
INSTRUMENTORS = {
    "openinference": "openinference-instrumentation-", "otel_genai": "opentelemetry-instrumentation-genai-",
    "otel": "opentelemetry-instrumentation-", "traceloop": "opentelemetry-instrumentation-",
}  # fmt: skip
"""Instrumentor → how its packages' names begin."""

INTRODUCTION = """\
# What the sidecar sees of each framework

Made by `python -m scripts.make_coverage_page` from `docs/coverage.json`: what `sidecar doctor` says of the recorded
telemetry of {pairs} pairs of a framework and an instrumentation, each with content switched **on**, switched **off**,
and as the library comes (**default**). The agent is the same everywhere: two turns, four tool calls. For your own
agents ask `sidecar doctor`; how to read it: [integrating.md](integrating.md#what-can-be-seen-of-my-agent).

- **A R U F**: arguments, results, what the user asked for, what the agent answered. A capital is seen, a small letter
  is withheld (the sender has it and keeps it), `·` is nowhere; `%` after a letter: not always.
- **session**: where an act's conversation is told: by its own span; by *another* span that ended before it; only by a
  *later* one (until it comes, the act stands alone); by nothing but the *history* that model calls repeat, which is a
  guess; or nowhere: then each trace is a session of its own.
- **user, call ids**: told or not. **agent**: named by a span, or known by the *service* name only.
- **cannot be detected**: families of detectors that find nothing. *Less well*: those that find less, or err more.
  No detector is shipped yet for {without}.
- **turn on**: numbers of the [switches](#switches) for what is missing and needed. `!` marks those without a switch:
  there the number says what to do instead.

"""


def build(figures: dict[str, Any]) -> str:
    """The page."""
    numbers: Numbers = {}
    parts = [
        INTRODUCTION.format(
            pairs=len(figures), without=", ".join(family for family in FAMILIES if family not in NAMES.values())
        ),
        "| framework, instrumentation | content | A R U F | session | user | call ids | agent | cannot be detected | "
        "less well | turn on |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    ]
    for pair, told in figures.items():
        reports = {mode: _report(told[mode]) for mode in MODES}
        parts.extend(_row(pair, modes, reports[modes[0]], numbers) for modes in _alike(reports))
    parts.append(_switches(numbers))
    parts.append(_libraries())
    parts.append(_needs())
    parts.append(_versions(figures))
    return "".join(parts)


def _report(told: dict[str, Any]) -> AgentReport:
    inputs = {name: dict(zip(STATES, told["inputs"].get(name, ()), strict=False)) for name in INPUTS}
    counts = {key: dict.fromkeys(told[key], 1) for key in ("libraries", "conventions")}
    return msgspec.convert({"realm": "", "role": "", **told, **counts, "inputs": inputs}, AgentReport)


def _alike(reports: dict[str, AgentReport]) -> list[tuple[str, ...]]:
    """Modes that show the same, together."""
    found: dict[str, list[str]] = {}
    for mode, report in reports.items():
        found.setdefault(_row("", (), report, {}), []).append(mode)
    return [tuple(modes) for modes in found.values()]


def _row(pair: str, modes: tuple[str, ...], report: AgentReport, numbers: Numbers) -> str:
    spots = blind_spots(report, NAMES)
    turn_on = []
    for advice in switches(report):
        if any(INPUTS[name].needed for name in advice.inputs):
            number, libraries = numbers.setdefault(advice.switch, (len(numbers) + 1, {}))
            libraries[advice.library] = None
            turn_on.append(f"{number}{'' if advice.possible else '!'}")
    cells = [
        pair,
        ", ".join({"content": "on", "nocontent": "off", "default": "default"}[mode] for mode in modes),
        _letters(report),
        _session(report),
        _told(report, "user"),
        _told(report, "call_ids"),
        {"seen": "named", "inferred": "service"}.get(report.inputs["agent_name"].status, "unnamed"),
        _families(spot.family for spot in spots if spot.sight == "blind"),
        _families(spot.family for spot in spots if spot.sight in ("weaker", "partly")),
        ", ".join(turn_on) or "–",
    ]
    return f"| {' | '.join(cells)} |\n"


def _letters(report: AgentReport) -> str:
    letters = []
    for letter, name in (("A", "arguments"), ("R", "results"), ("U", "user_texts"), ("F", "answers")):
        status = report.inputs[name].status
        letters.append({"seen": letter, "partly": f"{letter}%", "withheld": letter.lower()}.get(status, "·"))
    return "".join(letters)


def _session(report: AgentReport) -> str:
    words = {"tool span": "own", "another span": "another", "a later span": "later"}
    if not report.session_at:
        return {"seen": "told", "inferred": "history"}.get(report.inputs["session"].status, "nowhere")
    return ", ".join(words.get(place, place) for place in report.session_at)


def _told(report: AgentReport, name: str) -> str:
    return {"seen": "yes", "partly": "partly", "nothing": "–"}.get(report.inputs[name].status, "no")


def _families(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "–"


def _switches(numbers: Numbers) -> str:
    lines = [
        f"{number}. {'**' + ', '.join(libraries) + '**: ' if any(libraries) else ''}{switch}\n"
        for switch, (number, libraries) in numbers.items()
    ]
    return "\n## Switches\n\nFor the numbers in the table above.\n\n" + "".join(lines)


def _libraries() -> str:
    parts = [
        "\n## All that is known of each instrumentation\n\n"
        "By the name of the instrumentation scope, and for advice only: what is read goes by keys and values. `since`: "
        "the lowest version that is known to have the switch.\n",
    ]
    for library in LIBRARIES:
        parts.append(f"\n### {library.name}\n\nScopes: {', '.join(f'`{scope}`' for scope in library.scopes)}.\n\n")
        if library.content:
            since = f" (since {library.since})" if library.since else ""
            parts.append(f"- arguments, results, texts{since}: {library.content}\n")
        for title, table in (("", library.more), ("it cannot tell ", library.never)):
            together: dict[str, list[str]] = {}
            for name, switch in table.items():
                together.setdefault(switch, []).append(INPUTS[name].words)
            parts.extend(f"- {title}{', '.join(names)}: {switch}\n" for switch, names in together.items())
    parts.append("\n### Any instrumentation\n\n")
    anybody = {
        "which conversation it is": ANY_SESSION, "who the user is": ANY_USER, "which agent it is": ANY_NAME,
        "which version of it": ANY_VERSION, "which session started it": ANY_PARENT, "tool calls at all": GATE,
    }  # fmt: skip
    parts.extend(f"- {words}: {switch}\n" for words, switch in anybody.items())
    parts.extend(
        f"- {words}: {FAULTS[name]}\n"
        for name, words in (("dropped", "dropped attributes"), ("cut", "cut content"), ("orphans", "missing parents"))
    )
    return "".join(parts)


def _needs() -> str:
    rows = [
        f"| `{name}` | {NAMES[name]} | {need.finds} | {', '.join(INPUTS[one].words for one in need.needs)} | "
        f"{'; '.join(f'{INPUTS[one].words} ({why})' for one, why in need.better.items())} |\n"
        for name, need in NEEDS.items()
    ]
    return (
        "\n## What each detector lives on\n\n| detector | family | finds | nothing without | less well without |\n"
        "| --- | --- | --- | --- | --- |\n" + "".join(rows)
    )


def _versions(figures: dict[str, Any]) -> str:
    rows = [
        f"| {pair} | {', '.join(told['versions'])} | {', '.join(told['content']['conventions'])} |\n"
        for pair, told in figures.items()
    ]
    head = "| framework, instrumentation | recorded with | conventions in it |\n| --- | --- | --- |\n"
    return f"\n## Versions\n\n{head}" + "".join(rows)


# ------------------------------------------------------------ figures


def measure(captures: Path) -> dict[str, Any]:
    """The figures of all pairs that were captured, in counts."""
    pairs = sorted({file.name.split(".")[0] for file in captures.glob("*.benign.default.meta.json")})
    return {pair: _pair(captures, pair) for pair in pairs}


def _pair(captures: Path, pair: str) -> dict[str, Any]:
    meta = json.loads((captures / f"{pair}.benign.content.meta.json").read_text("utf-8"))
    told: dict[str, Any] = {
        "versions": [f"{name} {version}" for name, version in meta["packages"].items() if _is_of(pair, name)]
    }
    for mode in MODES:
        files = sorted(map(str, captures.glob(f"{pair}.benign.{mode}.*.otlp.pb.gz")))
        [report] = of_files(file for file in files if ".metrics." not in file).agents
        told[mode] = _without_places(report)
    return told


def _is_of(pair: str, package: str) -> bool:
    """Whether a package is the framework of the pair, or instruments it."""
    framework, instrumentor = pair.split("-", 1)
    names = [*PACKAGES.get(framework, (framework.replace("_", "-"),))]
    start = next((start for word, start in INSTRUMENTORS.items() if word in instrumentor), None)
    if start is not None:
        clients = ["openai"] if "both" in instrumentor or instrumentor == "native_openinference" else []
        names += [start + name for name in (*names, *clients, *(["openai-v2"] if "v2" in instrumentor else []))]
    return package in (*names, instrumentor, "opentelemetry-util-genai" if "otel" in instrumentor else "")


def _without_places(report: AgentReport) -> dict[str, Any]:
    """Counts only: neither examples nor the agent's name, and of scopes those that are known."""
    return {
        "libraries": sorted(scope for scope in report.libraries if library_of(scope) is not None),
        "conventions": sorted(report.conventions),
        "inputs": {
            name: [getattr(count, state) for state in STATES] for name, count in report.inputs.items() if count.total
        },
        "session_at": dict(sorted(report.session_at.items())),
        "faults": {name: {"spans": fault.spans} for name, fault in sorted(report.faults.items())},
    }  # fmt: skip


def figures() -> dict[str, Any]:
    """The figures that are kept."""
    kept: dict[str, Any] = json.loads(FIGURES.read_text("utf-8"))
    return kept


def written(figures: dict[str, Any]) -> str:
    """The figures as they are kept: one line a mode."""
    pairs = []
    for pair, told in figures.items():
        lines = [f"    {json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in told.items()]
        pairs.append(f"  {json.dumps(pair)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(pairs) + "\n}\n"


def main(argv: list[str]) -> int:
    """The command; with `--check` 1 when the page is not what would be written."""
    if "--captures" in argv:
        FIGURES.write_text(written(measure(Path(os.environ.get("SIDECAR_SHARED", "../shared")) / "captures")), "utf-8")
    text = build(figures())
    if "--check" in argv:
        return PLACE.read_text("utf-8") != text
    PLACE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
