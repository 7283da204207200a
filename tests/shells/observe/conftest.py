"""A scene for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.observe.settings import ObserveSettings
from tests.shells.observe.scene import Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Counts are shown at once."""
    made = Scene(tmp_path / "data", ObserveSettings(first_zero=0))
    yield made
    await made.close()
