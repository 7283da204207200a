"""A paused session stays paused, whenever the sidecar dies (P6, short form)."""

from __future__ import annotations

import pytest

from tests.shells.control.crashes import storm


def violations(seen):
    return {name: count for name, count in seen.items() if name.startswith("violation")}


@pytest.mark.faults
def test_paused_session_stays_paused_through_kill_and_restart(tmp_path, capsys):
    seen = storm(tmp_path, 14, seed=1)
    control = storm(tmp_path / "control", 6, seed=2, lazy=True)
    with capsys.disabled():
        print(f"\nP6: armed {seen['armed']} of {seen['rounds']}, in flight {seen['in_flight']}, "
              f"violations {sum(violations(seen).values())}; control: violations "
              f"{sum(violations(control).values())} of {control['rounds']}")  # fmt: skip
    assert violations(seen) == {}
    assert seen["armed"] >= 7
    assert violations(control)
