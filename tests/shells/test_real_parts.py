"""Getting the real servers, and the account of those that cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scripts import real_parts
from scripts.real_parts import BuildError, Part, make

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/agent-sidecar"


def a_part(build, needs=("sh",)) -> Part:
    return Part("thing", "1", needs, 1, build, ("bin",))


def test_a_part_is_made_once(cache):
    made = []

    def build(folder, run):
        made.append(folder)
        run("sh", "-c", "echo x > bin", cwd=folder)

    assert [make(a_part(build)).state for _ in range(2)] == ["made", "present"]
    assert len(made) == 1
    assert (cache / "thing-1/bin").read_text() == "x\n"
    assert not (cache / "thing-1.part").exists()


def test_two_at_once_make_it_once():
    made, both = [], threading.Barrier(2)

    def build(folder, run):
        made.append(folder)
        run("sh", "-c", "sleep 0.2; echo x > bin", cwd=folder)

    outcomes = []

    def go():
        both.wait()
        outcomes.append(make(a_part(build)).state)

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["made", "present"]
    assert len(made) == 1


def test_what_fails_says_why_and_leaves_nothing_half_made(cache):
    def build(folder, run):
        (folder / "bin").write_text("half")
        run("sh", "-c", "echo no such module >&2; exit 3", cwd=folder)

    outcome = make(a_part(build))
    assert outcome.state == "cannot be had here"
    assert "sh ended with 3: no such module" in outcome.why
    assert not (cache / "thing-1").exists()
    assert not (cache / "thing-1.part").exists()


def test_what_was_left_by_a_kill_is_made_anew(cache):
    (cache / "thing-1.part").mkdir(parents=True)
    (cache / "thing-1.part/bin").write_text("half")

    def build(folder, run):
        assert not list(folder.iterdir())
        (folder / "bin").write_text("whole")

    assert make(a_part(build)).state == "made"
    assert (cache / "thing-1/bin").read_text() == "whole"


def test_a_build_that_gives_too_little_is_no_part():
    assert "without bin" in make(a_part(lambda folder, run: None)).why


def test_a_lacking_tool_is_named():
    def build(folder, run):
        raise BuildError("was called")

    assert make(a_part(build, needs=("no-such-tool",))).why == "no no-such-tool on PATH"


def test_an_absent_part_is_no_error_unless_strict(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert real_parts.main(["kafka"]) == 0
    assert real_parts.main(["kafka", "--strict"]) == 1
    assert "kafka 4.3.0: cannot be had here: no java and no mvn on PATH" in capsys.readouterr().out
    with pytest.raises(real_parts.AbsentError, match="no go on PATH"):
        real_parts.program("otelcol")


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_skipped_parts_are_named_and_counted_and_fail_under_ci(tmp_path, ci, code):
    bare = {"PATH": "/nowhere", "CI": ci, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "COLUMNS": "200"}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/real/test_parts.py"]
    run = subprocess.run(argv, cwd=ROOT, env=os.environ | bare, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stdout
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("real parts not to be had here: ")]
    assert "collector: no go on PATH (1 test)" in line
    assert "kafka: no java and no mvn on PATH (1 test)" in line
    assert "prometheus: no apt-get and no dpkg on PATH (2 tests)" in line
    assert ("4 skipped, which fails the run" in run.stdout) is bool(ci)


def test_a_missing_shared_folder_is_counted_and_fails_nothing(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(shared): pass\n")
    env = {"CI": "true", "SIDECAR_SHARED": str(tmp_path / "nowhere")}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    argv += ["--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path / "test_it.py")]
    run = subprocess.run(argv, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped: shared folder: no SIDECAR_SHARED (1 test)" in run.stdout
