"""The same telemetry comes to the same decisions, byte for byte: in batches of any size, under any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import pytest

from benchmarks import mix
from sidecar.cli.replay import cold, play
from tests.core import stories

SPANS, SESSIONS = 400, 12
SIZES = (1, 256)
STORIES = 12
HERE = Path(__file__).parents[2]


def recorded(file: Path, size: int) -> None:
    """Writes the mix as delimited OTLP requests of `size` spans each."""
    with file.open("wb") as out:
        for body in mix.requests(mix.spans(SPANS, sessions=SESSIONS), size):
            out.write(_varint(len(body)) + body)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def replayed(folder: Path, size: int) -> dict[str, str]:
    """What a replay of the mix writes, as digests by file."""
    file, out = folder / f"{size}.otlp", folder / f"out {size}"
    recorded(file, size)
    totals, _ = play(cold("enforce"), [str(file)], out, events=True)
    assert (totals.spans, totals.late) == (SPANS, 0)
    assert totals.findings
    return {one.name: _digest(one.read_bytes()) for one in sorted(out.iterdir())}


def lived() -> str:
    """What stories come to when they are lived: fed, asked, paused, resumed, in pipelines that remember."""
    core = stories.fresh()
    told = [
        stories.encoded(stories.play(core, step)) for seed in range(STORIES) for step in stories.story(seed)
    ]  # fmt: skip
    assert any(b'"finding' in one for one in told)
    return _digest(b"\n".join(told))


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def tell(folder: Path) -> str:
    """All of it, as one text that is to be the same everywhere."""
    return "\n".join((*(str(replayed(folder, size)) for size in SIZES), lived()))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hash seed → what a process with that seed tells."""
    script = "import sys, pathlib; from tests.core.test_determinism import tell; print(tell(pathlib.Path(sys.argv[1])))"
    running = {
        seed: subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path_factory.mktemp(f"seed{seed}"))],
            env=os.environ | {"PYTHONHASHSEED": seed}, cwd=HERE, stdout=subprocess.PIPE, text=True,
        )
        for seed in ("0", "20261121")
    }  # fmt: skip
    said = {seed: process.communicate(timeout=200)[0].strip() for seed, process in running.items()}
    assert [process.returncode for process in running.values()] == [0, 0]
    return said


def test_hash_seeds_differ_and_what_is_told_does_not(told: dict[str, str]) -> None:
    seeds = [
        subprocess.run(
            [sys.executable, "-c", "print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"],
            env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True,
        ).stdout
        for seed in told
    ]  # fmt: skip
    assert len(set(seeds)) == 2, "the control: sets do come out in another order"
    assert len(set(told.values())) == 1


def test_the_size_of_batches_changes_nothing(told: dict[str, str]) -> None:
    for text in told.values():
        one, many, _ = text.splitlines()
        assert one == many
        assert "decisions.jsonl" in one
