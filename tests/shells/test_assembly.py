"""What is put together before the doors open."""

from __future__ import annotations

from sidecar import assembly
from sidecar.core.text import hosts


def test_no_question_waits_for_the_public_suffix_list() -> None:
    hosts.registrable.cache_clear()
    hosts._suffixes.cache_clear()
    assembly.pipeline()
    assert hosts._suffixes.cache_info().currsize == 1
