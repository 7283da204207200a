"""Who may import whom, and what the core may not do (style §1), read from the code itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sidecar"
GENERATED = PACKAGE / "control" / "v1"

CORE_MAY_USE = frozenset((
    "__future__", "array", "ast", "base64", "binascii", "bisect", "bz2", "collections", "collections.abc", "contextlib",
    "dataclasses", "enum", "functools", "hashlib", "heapq", "html", "html.entities", "inspect", "io", "ipaddress",
    "itertools", "json", "lzma", "math", "operator", "string", "struct", "types", "typing", "unicodedata",
    "urllib.parse", "zlib",
    "hyperscan", "msgspec", "msgspec.structs", "numpy", "numpy.typing", "publicsuffixlist", "pydantic", "re2",
    "river.anomaly", "zstandard",
    "sidecar.errors", "sidecar.settings",
))  # fmt: skip
"""All that the core imports beside itself: nothing here opens a file or a socket, starts a thread, reads the
environment or a clock, or draws a random number that is not seeded."""
NEVER_CALLED = frozenset((
    "open", "input", "print", "eval", "exec", "compile", "__import__", "id", "hash", "vars", "globals", "breakpoint",
))  # fmt: skip
"""Built-ins that reach outside, or whose answer changes from run to run (`hash` of a text, `id`)."""
ORDERLESS = frozenset(("set", "frozenset"))
SETTLES = frozenset(("sorted", "sum", "min", "max", "any", "all", "len", "set", "frozenset"))
"""What may be made of a set's members without their order being seen."""
AGENT_MAY_USE = frozenset(("grpc", "google", "opentelemetry", "sidecar", "typing_extensions"))
"""Top-level packages that an agent's process gets by importing us; the `agent-sidecar` distribution requires them."""


def trees(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(folder.rglob("*.py")):
        if GENERATED not in file.parents:
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


SOURCES = list(trees(PACKAGE))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            assert node.module is not None
            yield node.lineno, node.module


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


# ---------------------------------------------------------------- who may import whom


def test_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def test_the_core_imports_only_itself_and_what_is_pure() -> None:
    found = [
        f"{file}:{line}: {module}"
        for file, tree in trees(PACKAGE / "core")
        for line, module in imports(tree)
        if not within(module, "sidecar.core") and module not in CORE_MAY_USE
    ]
    assert found == []


def test_what_runs_in_an_agent_imports_only_itself_and_the_control_stubs() -> None:
    """And the package itself, for its version."""
    allowed = ("sidecar.agent", "sidecar.control.v1")
    found = [
        f"{file}:{line}: {module}"
        for file, tree in trees(PACKAGE / "agent")
        for line, module in imports(tree)
        if within(module, "sidecar") and module != "sidecar" and not any(within(module, one) for one in allowed)
    ]
    assert found == []


def test_only_what_wires_imports_the_command_line_and_the_app() -> None:
    wiring = ("sidecar/cli/", "sidecar/app.py", "sidecar/__main__.py", "sidecar/demo/")
    found = [
        f"{file}:{line}: {module}"
        for file, tree in SOURCES
        for line, module in imports(tree)
        if (within(module, "sidecar.cli") or within(module, "sidecar.app")) and not file.startswith(wiring)
    ]
    assert found == []


def test_an_agents_process_gets_only_light_packages() -> None:
    script = """
import json, sys
before = set(sys.modules)
import sidecar.agent
new = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(json.dumps(sorted(name for name in new if 'cython' not in name)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(json.loads(done.stdout)) <= AGENT_MAY_USE


WITH_RE = {
    "sidecar/yaml.py": "scalars of the operator's files",
    "sidecar/agent/client.py": "ids that the agent's developer gives",
    "sidecar/agent/options.py": "addresses that the agent's developer gives",
    "sidecar/control/convert.py": "ids: one class of characters, matched whole, of bounded length",
}


def test_no_pattern_of_the_standard_library_meets_agents_text() -> None:
    """Its time is not bounded (M1)."""
    backtracking = ("re", "fnmatch", "glob", "sre_compile", "re._compiler")
    found = {file for file, tree in SOURCES for _, module in imports(tree) if module in backtracking}
    assert found == set(WITH_RE)


@pytest.mark.parametrize("module", ["pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"])
def test_nothing_reads_objects_that_can_run_code(module: str) -> None:
    found = [file for file, tree in SOURCES for _, name in imports(tree) if within(name, module)]
    assert found == []


# ---------------------------------------------------------------- what the core may not do


def impurities(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, what) of calls and loops whose outcome is not a matter of the arguments alone."""
    found = []
    settled = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SETTLES
        for argument in node.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NEVER_CALLED:
            found.append((node.lineno, f"{node.func.id}()"))
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today", "urandom", "environ", "getenv"):
            found.append((node.lineno, node.attr))
        loops: list[ast.expr] = []
        if isinstance(node, ast.For):
            loops = [node.iter]
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp) and id(node) not in settled:
            loops = [part.iter for part in node.generators]
        elif isinstance(node, ast.Starred):
            loops = [node.value]
        elif isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id in ("list", "tuple", "iter", "enumerate", "zip"))
            or (isinstance(node.func, ast.Attribute) and node.func.attr in ("join", "extend", "fromkeys"))
        ):
            loops = node.args
        found += [(node.lineno, "the order of a set") for over in loops if is_set(over)]
    return found


def is_set(node: ast.expr) -> bool:
    """Whether an expression is plainly a set."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub):
        return is_set(node.left) or is_set(node.right)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDERLESS


def test_the_core_reaches_for_nothing_outside_and_shows_no_order_of_sets() -> None:
    found = [f"{file}:{line}: {what}" for file, tree in trees(PACKAGE / "core") for line, what in impurities(tree)]
    assert found == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("open('x')", "open()"), ("seed = hash(name)", "hash()"), ("at = datetime.now()", "now"),
        ("home = os.environ['HOME']", "environ"), ("for x in {1, 2}: pass", "the order of a set"),
        ("out = [x for x in set(y)]", "the order of a set"), ("out = ','.join({a for a in b})", "the order of a set"),
        ("out = (*known, *frozenset(more))", "the order of a set"),
        ("d = dict.fromkeys(set(a) | b)", "the order of a set"),
    ],
)  # fmt: skip
def test_the_check_sees_what_it_is_for(code: str, what: str) -> None:
    assert [found for _, found in impurities(ast.parse(code))] == [what]


def test_the_check_leaves_alone_what_is_pure() -> None:
    code = "a = sorted({1}); b = x in {1, 2}; c = any(y for y in {1}); e = {k: v for k, v in d.items()}"
    assert impurities(ast.parse(code)) == []


def test_what_is_random_in_the_core_has_its_seed_in_the_code() -> None:
    """River's forest is the one thing that draws numbers; no other way to draw one can be imported at all."""
    drawn = [
        (file, ast.unparse(node))
        for file, tree in trees(PACKAGE / "core")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("HalfSpaceTrees", "default_rng", "RandomState"))
    ]  # fmt: skip
    assert drawn
    assert all("seed=SEED" in call for _, call in drawn)
