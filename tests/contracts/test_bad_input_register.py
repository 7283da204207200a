"""Which rows of the catalogue of bad inputs have a test: none may lose its last one unnoticed.

A test says which row it is about in its name (``test_row_5_…``, ``test_rows_39_and_40_…``) or in the id of a case
(``row 93, …``). A row counts as tested only if the test, or the case, is there by itself; a range in a name says
nothing.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"test_rows?_(\d+)(?:_and_(\d+))?_(?!to_\d)")
CASE = re.compile(r"^row (\d+)\b")

DOORS = range(1, 49)
FILES = (83, 84, 85, 86, 88, 89)
CONFIGURATION = (*range(91, 98), 99, 101, 102)


def rows() -> dict[int, set[str]]:
    """Row → tests about it, as ``file::function``."""
    found: dict[int, set[str]] = defaultdict(set)
    for file in sorted(TESTS.rglob("test_*.py")):
        if file == Path(__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                where = f"{file.relative_to(TESTS)}::{node.name}"
                if match := NAMED.match(node.name):
                    for number in filter(None, match.groups()):
                        found[int(number)].add(where)
                for number in _cases(node):
                    found[number].add(where)
    return found


def _cases(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    """Rows named by ids of a test's cases: ``id="row 5"``, or ``case("93", …)``, which makes such an id."""
    found = set()
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and (match := CASE.match(node.value)):
                found.add(int(match[1]))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "case":
                first = node.args[0]
                assert isinstance(first, ast.Constant)
                found.add(int(str(first.value)))
    return found


ROWS = rows()


@pytest.mark.parametrize("row", [*DOORS, *FILES, *CONFIGURATION])
def test_a_row_has_a_test(row: int) -> None:
    assert ROWS[row], f"no test is about row {row}"


def test_what_is_named_is_in_the_catalogue() -> None:
    assert all(1 <= row <= 114 for row in ROWS if ROWS[row])


def test_a_range_in_a_name_is_not_taken_for_its_rows() -> None:
    assert NAMED.match("test_rows_36_to_40_have_the_answer") is None
    assert NAMED.match("test_row_5_a_span") is not None
