"""Runs the benchmarks: ``python -m benchmarks [NAME ...] [--quick] [--json FILE]``; `make bench` runs all of them.

A figure that misses its target is told and fails nothing; a benchmark that cannot run does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from typing import Any

from benchmarks.report import Figure, machine, number

NAMES = ("gate", "latency", "start", "memory", "cost", "mapping", "pipeline", "agent_library")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 when a benchmark could not run."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}, "
          f"load {' '.join(map(str, about['load']))}")  # fmt: skip
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    told: dict[str, list[dict[str, Any]]] = {}
    broken: list[str] = []
    for name in given.names or NAMES:
        began_s = time.monotonic()
        print(f"\n{name}", flush=True)
        told[name] = []
        try:
            for figure in importlib.import_module(f"benchmarks.{name}").figures(quick=given.quick):
                print(line(figure), flush=True)
                told[name].append(document(figure))
        except Exception:
            traceback.print_exc()
            broken.append(name)
        print(f"  took {time.monotonic() - began_s:.0f} s", flush=True)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"machine": about, "figures": told, "broken": broken}, file, indent=1, ensure_ascii=False)
    verdicts = [figure["verdict"] for figures in told.values() for figure in figures]
    print(f"\n{verdicts.count('met')} met, {verdicts.count('missed')} missed"
          + (f", broken: {', '.join(broken)}" if broken else ""))  # fmt: skip
    return 1 if broken else 0


def line(figure: Figure) -> str:
    """A figure as one line of the table, what belongs to it on the next."""
    value = f"{number(figure.value)} {figure.unit}".strip()
    beside = f"\n      {figure.beside}" if figure.beside else ""
    return f"  {figure.name:<86} {value:>16}  {figure.wanted:<12} {figure.verdict}".rstrip() + beside


def document(figure: Figure) -> dict[str, Any]:
    """A figure as JSON."""
    return {
        "name": figure.name.strip(), "value": figure.value, "unit": figure.unit, "target": figure.target,
        "at_least": figure.at_least, "verdict": figure.verdict, "beside": figure.beside,
    }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures, as ratios within one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="a few rounds: whether they run, not what they say")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
