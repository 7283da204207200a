"""The command line. Each command lives in a module of its own, loaded only when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `sidecar` command."""
    try:
        from sidecar.cli.commands import run
    except ModuleNotFoundError as missing:  # installed for an agent, without the server
        sys.exit(f'sidecar: {missing.name} is missing; the commands need the extra: pip install ".[server]"')
    sys.exit(run(sys.argv[1:]))
