"""Every benchmark runs, and says what can be true; how fast this machine is, is no test."""

from __future__ import annotations

import importlib
import json
import math

import pytest

from benchmarks import __main__ as command
from benchmarks import gate, memory, report, start
from benchmarks.report import Figure

SLOW = {"pipeline": "three rounds of both sides"}


def test_verdict_says_whether_a_figure_is_on_its_side_of_the_target():
    def verdict(value: float, target: float | None, at_least: bool = False) -> str:
        return Figure(name="x", value=value, target=target, at_least=at_least).verdict

    assert (verdict(1.4, 1.4), verdict(1.41, 1.4)) == ("met", "missed")
    assert (verdict(10.0, 10.0, at_least=True), verdict(9.9, 10.0, at_least=True)) == ("met", "missed")
    assert verdict(3.0, None) == ""


def test_quantile_is_a_value_that_so_many_do_not_exceed():
    values = [float(n) for n in range(1, 101)]
    assert (report.quantile(values, 0.5), report.quantile(values, 0.99), report.quantile([7.0], 0.99)) == (50, 99, 7)


def test_question_carries_about_six_kilobytes_of_spans_that_come_once():
    asked = list(gate.Conversation(3).questions(12))
    assert all(5_000 < one.carried_bytes < 7_500 for one in asked[1:])
    assert len({one.body for one in asked}) == 12


@pytest.mark.parametrize("name", [name for name in command.NAMES if name not in SLOW])
def test_it_gives_figures_that_can_be_true(name, monkeypatch):
    for module, names in {gate: ("SPARE",), memory: ("AT_ONCE",), start: ("RUNS", "ENTRIES")}.items():
        for constant in names:
            monkeypatch.setattr(module, constant, getattr(module, constant) // 10 or 1)
    figures = list(importlib.import_module(f"benchmarks.{name}").figures(quick=True))
    assert figures
    assert all(math.isfinite(figure.value) and figure.value >= 0 for figure in figures)
    assert any(figure.value > 0 for figure in figures)
    assert all(figure.beside or figure.target is None for figure in figures)


def test_report_is_a_table_and_a_document(monkeypatch, capsys, tmp_path):
    one = Figure(name="so fast", value=3.0, unit="x", target=2.0, beside="30 against 10 µs")
    monkeypatch.setattr("benchmarks.memory.figures", lambda *, quick: iter([one]))
    assert command.main(["memory", "--json", str(tmp_path / "f.json")]) == 0
    assert "so fast" in (told := capsys.readouterr().out)
    assert "missed" in told
    document = json.loads((tmp_path / "f.json").read_text())
    assert document["figures"]["memory"][0]["verdict"] == "missed"
    assert document["machine"]["cores"] > 0


def test_benchmark_that_cannot_run_is_told_and_fails(monkeypatch, capsys):
    def broken(*, quick: bool):
        raise RuntimeError("no such thing here")

    monkeypatch.setattr("benchmarks.memory.figures", broken)
    assert command.main(["memory"]) == 1
    assert "broken: memory" in capsys.readouterr().out
