"""What commands print: for people on a terminal, as JSON with `--json`, and sensibly in a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console  # loaded where something is shown: the gate waits for all that is loaded here

OK, NO, UNSURE = 0, 1, 2
"""Exit codes: fine; the answer is no; cannot tell."""


class Terminal:
    """Standard output for results, standard error for everything else.

    Args:
        as_json: Print one JSON document instead of words and tables.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        wide = None if sys.stdout.isatty() else 200
        self._out = _console()(highlight=False, markup=False, emoji=False, width=wide)
        self._err = _console()(stderr=True, highlight=False, markup=False, emoji=False)

    def show(self, document: Any, words: str) -> None:
        """A result: the document as JSON, or its words."""
        if self.as_json:
            self._print_json(document)
        else:
            self.say(words)

    def say(self, words: str) -> None:
        """A line for people."""
        from rich.text import Text

        if not self.as_json:
            self._guarded(lambda: self._out.print(Text(safe(words)), soft_wrap=True))

    def warn(self, words: str) -> None:
        """A line on standard error."""
        from rich.text import Text

        self._guarded(lambda: self._err.print(Text(safe(words)), soft_wrap=True))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], document: Any) -> None:
        """Rows under a title, or the document as JSON."""
        if self.as_json:
            self._print_json(document)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(safe(str(cell))) for cell in row))
        self._guarded(lambda: self._out.print(table))

    @contextlib.contextmanager
    def progress(self, title: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A counter, or a bar where `total` is known, on standard error; nothing where that is no terminal."""
        if not sys.stderr.isatty() or self.as_json:
            yield lambda count: None
            return
        if total is not None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            shown = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
            with Progress(*shown, console=self._err, transient=True) as bar:
                task = bar.add_task(title, total=total)
                yield lambda count: bar.update(task, completed=count)
            return
        with self._err.status(title) as status:
            yield lambda count: status.update(f"{title}: {count:,} {unit}")

    def _print_json(self, document: Any) -> None:
        self._guarded(lambda: print(json.dumps(document, ensure_ascii=not _is_utf8(), default=str, indent=2)))

    @staticmethod
    def _guarded(write: Callable[[], object]) -> None:
        """A closed pipe ends the command quietly, a full disk with a line (reliability.md §4 row 88)."""
        try:
            write()
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            raise SystemExit(OK) from None
        except OSError as error:
            _discard_output()
            with contextlib.suppress(OSError):
                print(f"sidecar: output cannot be written: {error.strerror}", file=sys.stderr)
            raise SystemExit(UNSURE) from None


def _discard_output() -> None:
    """What is still buffered is not tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@cache
def _console() -> type[Console]:
    """Leaves it to us what a closed pipe means; rich ends the program with 1, which here is an answer."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Quiet


def safe(text: str) -> str:
    """`text` with control characters made visible: what comes from agents must not steer a terminal."""
    shown = "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    encoding = sys.stdout.encoding or "ascii"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
