"""Nothing in the sidecar makes code of data: no pickle, no eval, no unsafe YAML (P16)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sidecar
from tests.contracts.forbid import CALLS, EXIT, LOADERS, MODULES

ROOT = Path(sidecar.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def offences(text: str) -> list[str]:
    """What a module does that makes code of data, by line."""
    return [f"line {line}: {what}" for line, what in _offences(ast.parse(text))]


def _offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    yaml_names = {"yaml"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "sidecar":
            yaml_names -= {alias.asname or alias.name for alias in node.names}  # our own reader has that name, too
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in MODULES:
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.lineno, f"from {node.module}"
        elif isinstance(node, ast.ImportFrom) and node.module == "yaml":
            for alias in node.names:
                if alias.name in LOADERS or "Unsafe" in alias.name or alias.name in ("Loader", "FullLoader"):
                    yield node.lineno, f"from yaml import {alias.name}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node.lineno, node.func.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in yaml_names
            and (node.attr in LOADERS or "Unsafe" in node.attr or node.attr in ("Loader", "FullLoader"))
        ):
            yield node.lineno, f"yaml.{node.attr}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_module_makes_no_code_of_data(file: Path) -> None:
    assert offences(file.read_text()) == []


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from pickle import loads", "import marshal as m", "eval(text)", "exec(text)",
     "import yaml\nyaml.load(text)", "from yaml import unsafe_load", "import yaml\nclass L(yaml.UnsafeLoader): pass"],
)  # fmt: skip
def test_check_finds(text: str) -> None:
    assert offences(text)


def test_all_of_it_can_be_imported_where_that_is_forbidden() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.contracts.forbid"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr[-500:]


@pytest.mark.parametrize(
    "code",
    ["import pickle; pickle.loads(b'cos\\nsystem\\n.')", "import yaml; yaml.load('a', Loader=yaml.Loader)",
     "exec('import pickle', {'__name__': 'sidecar.x'})", "exec('eval(str(1))', {'__name__': 'sidecar.x'})"],
)  # fmt: skip
def test_forbidding_ends_the_process(code: str) -> None:
    run = f"from tests.contracts import forbid; forbid.install(); {code}"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT, done.stderr
    assert "forbidden" in done.stderr
