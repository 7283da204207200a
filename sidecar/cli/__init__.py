"""The command line. Each command lives in a module of its own, loaded only when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `sidecar` command."""
    from sidecar.cli.commands import run

    sys.exit(run(sys.argv[1:]))
