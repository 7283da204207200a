"""Without any one attribute of a capture just what it bears changes (the rule stands in `deletions`).

`SIDECAR_DELETIONS=all` takes every attribute of the captures below; without it a sample spread over all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.captures import any_order, deletions

pytestmark = pytest.mark.corpora
EVERY = 1 if os.environ.get("SIDECAR_DELETIONS") == "all" else 29
SAMPLED = (".injected.content", ".benign.default")
EXCEPTIONS = {
    "traceloop.span.kind": "5: result",  # the only word that the span is a tool's: what it put out could be a message
}
"""What an attribute breaks of the rule where it is gone, and why."""


@pytest.mark.timeout(300 if EVERY > 1 else 7200)
@pytest.mark.parametrize("mode", SAMPLED)
def test_an_attribute_bears_what_it_says_and_no_more(shared: Path, mode: str) -> None:
    count, wrong = 0, {}
    for stem in any_order.stems(shared):
        if not stem.endswith(mode):
            continue
        spans = any_order.load(shared, stem)
        for index, name in deletions.attributes(spans):
            count += 1
            if count % EVERY:
                continue
            excepted = EXCEPTIONS.get(name, "none")
            if found := [why for why in deletions.broken(spans, index, name) if not why.startswith(excepted)]:
                wrong[f"{stem} [{index}] {name}"] = found
    assert count > 10_000
    assert not wrong, f"{len(wrong)} of {count // EVERY}: {list(wrong.items())[:5]}"
