"""`python -m sidecar`, where the installed command is not on the path."""

from sidecar.cli import main

main()
