"""The library under the oldest and the newest packages that its dependencies allow, in environments of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-sidecar"
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]

SESSION = """
import asyncio, importlib.metadata, json
import sidecar.agent as blocking
from sidecar.agent import aio
from sidecar.testing import FakeSidecar, spans_of

with FakeSidecar() as fake:
    options = {"control": fake.address, "otlp": fake.address}
    with blocking.connect("oldest", **options) as agent, agent.session() as session:
        session.message("user", "please")
        with session.act("send_mail", {"to": "amy"}) as act:
            act.result = {"sent": True}
        fake.answers["send_mail"] = fake.refused()
        try:
            session.act("send_mail", {}).begin()
            raise SystemExit("a refused act ran")
        except blocking.ActRefused:
            pass
        fake.pause(session.id)
        fake.until(lambda: len(fake.acknowledged) == 2)

    async def main():
        async with aio.connect("newest", **options) as agent, agent.session() as session:
            async with session.act("read_mail") as act:
                act.result = "text"
    asyncio.run(main())
    told = {"asked": len(fake.asked), "outcomes": len(fake.outcomes), "spans": len(fake.spans),
            "carried": sum(len(spans_of(part)) for question in fake.asked for part in question.carried)}
told |= {name: importlib.metadata.version(name) for name in ("protobuf", "grpcio", "opentelemetry-sdk")}
print(json.dumps(told))
"""


def lowest() -> list[str]:
    """Each dependency at exactly its lower bound."""
    return [re.sub(r">=([^,]+).*", r"==\1", dependency) for dependency in DEPENDENCIES]


def environment(name: str, *arguments: str) -> Path:
    """The Python of an environment with these packages, made once and kept in the cache.

    Skips the test where they cannot be fetched.
    """
    told = "\n".join((*arguments, sys.version, (ROOT / "constraints.txt").read_text("utf-8")))
    folder = CACHE / f"agent-{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    if not (folder / "bin" / "python").exists():
        part = folder.with_suffix(f".{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", part], check=True)
        pip = [part / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        fetched = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
        if fetched.returncode:
            shutil.rmtree(part)
            if "No matching distribution" in fetched.stderr and "from versions: none" not in fetched.stderr:
                pytest.fail(fetched.stderr)
            pytest.skip("packages for the agent library's oldest and newest environments")
        part.rename(folder)
    return folder / "bin" / "python"


@pytest.mark.venvs
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_agent_library_runs_at_both_ends_of_what_it_allows(end):
    """Nothing of the server is installed there, so it also shows that an agent needs only the base dependencies."""
    if end == "lowest":
        python = environment(end, *lowest())
    else:
        python = environment(end, "-c", str(ROOT / "constraints.txt"), *DEPENDENCIES)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SIDECAR_", "OTEL_", "PYTHON"))}
    run = subprocess.run(
        [python, "-c", SESSION], env=clean | {"PYTHONPATH": str(ROOT)}, cwd="/", capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["asked"], told["outcomes"], told["spans"]) == (3, 2, 3)
    assert told["carried"] >= 1
    protobuf = tuple(map(int, told["protobuf"].split(".")[:2]))
    if end == "lowest":
        assert protobuf == (6, 31)
        assert told["grpcio"] == "1.74.0"
    else:
        assert protobuf[0] == 7
