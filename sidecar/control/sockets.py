"""Unix sockets of the control API: their names, and how long a path may be."""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.errors import ConfigError

AGENTS, OPERATORS = "agents.sock", "operators.sock"
LONGEST_PATH = 107


def checked(path: Path) -> Path:
    """Raises:
    ConfigError: The path is longer than a socket's may be.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigError(f"is longer than the {LONGEST_PATH} bytes that a socket's path may have", file=str(path))
    return path
