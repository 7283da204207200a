"""The same telemetry comes to the same outcomes, byte for byte: in batches of any size, under any hash seed.

What `sidecar replay` writes is held to the same in tests/shells/test_replay.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from hashlib import blake2b
from pathlib import Path

import pytest

from benchmarks import mix
from sidecar.core.span import LOCAL, Record
from sidecar.sources.decode import Limits, decode
from tests.core import stories

SIZES = (1, 7, 256)
STORIES = 12
SEEDS = ("0", "20261121")
HERE = Path(__file__).parents[2]


@cache
def fed(size: int) -> str:
    """What an agent's telemetry comes to that arrives at once, in requests of `size` spans."""
    core = stories.fresh()
    spans = [sent for sent in mix.spans(600, sessions=12) if sent.agent == 1]
    assert len(spans) > 20
    arrived_ns = max(sent.end_ns for sent in spans)
    told = [
        stories.encoded(core.feed(Record(span, LOCAL, arrived_ns), arrived_ns))
        for body in mix.requests(spans, size)
        for span in decode("traces", body, "proto", Limits()).spans
    ]
    assert len(told) == len(spans)
    return _digest(b"\n".join((*told, stories.encoded(core.tick(arrived_ns, last=True)))))


def lived() -> str:
    """What stories come to when they are lived: fed, asked, paused, resumed, in a pipeline that remembers."""
    core = stories.fresh()
    told = [stories.encoded(stories.play(core, step)) for seed in range(STORIES) for step in stories.story(seed)]
    for what in (b'"detector":"leverage"', b'"answer":"deny"', b'"after":"paused"', b'"answer":"allow"'):
        assert any(what in one for one in told), what
    return _digest(b"\n".join(told))


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_size_of_batches_changes_nothing(size: int) -> None:
    assert fed(size) == fed(SIZES[0])


def test_the_hash_seed_changes_nothing() -> None:
    script = (
        "from tests.core.test_determinism import fed, lived; print(fed(256), lived(), list({'a', 'b', 'c', 'd', 'e'}))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=HERE,
            stdout=subprocess.PIPE, text=True,
        )
        for seed in SEEDS
    ]  # fmt: skip
    said = [process.communicate(timeout=200)[0].split(maxsplit=2) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0][2] != said[1][2], "the control: sets do come out in another order"
    assert said[0][:2] == said[1][:2] == [fed(256), lived()]
