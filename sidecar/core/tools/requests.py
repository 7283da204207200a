"""What a request to a database or a web server will do, read from its text: SQL statements, HTTP methods."""

from __future__ import annotations

from typing import Final

from sidecar.core.reading import Effect
from sidecar.core.tools.words import CHANGES, LASTS, MAKES, OUT, READS, RUNS, SENDS_OUT, THINKS, UNKNOWN, both, listed

MAX_SQL: Final = 16_384
"""Characters of SQL that are read; a longer text is irreversible."""

_READS: Final = listed("select show describe desc explain pragma values table with list summarize")
_NEUTRAL: Final = listed("begin start commit rollback savepoint end use set analyze vacuum checkpoint declare")
_CHANGES: Final = listed("update delete drop truncate alter merge replace rename comment lock kill reset")
_RUNS: Final = listed("call exec execute do load attach detach install import handler")
_LATER: Final = listed("user role trigger event procedure function publication subscription server login")
_REACHES: Final = listed("""
    outfile dumpfile dblink dblink_exec lo_export lo_import load_file load_extension pg_read_file pg_ls_dir xp_cmdshell
    openrowset opendatasource utl_http utl_smtp sp_send_dbmail pg_terminate_backend pg_cancel_backend writefile
""")
"""Functions and clauses that leave the database."""
_KINDS: Final = listed("""
    table view index database schema user role trigger function procedure event or temp temporary unique materialized
    sequence type column
""")
_NEEDED: Final = {
    "update": "set", "insert": "into", "delete": "from", "merge": "into", "replace": "into", "with": "as",
    "grant": "on", "revoke": "on", "show": "", "explain": "", "pragma": "", "truncate": "", "call": "", "exec": "",
}  # fmt: skip
"""The word without which a text that begins like SQL is plain words."""


def effect_of_sql(text: str, *, surely: bool = False) -> Effect | None:
    """What SQL statements do, taken together; None where the text is not SQL.

    Args:
        text: SQL, or perhaps a question in plain words.
        surely: The tool takes nothing but SQL: then what is not understood is irreversible instead of None.
    """
    statements, complete = _statements(text[:MAX_SQL])
    complete &= len(text) <= MAX_SQL
    if not statements or (not surely and not _is_sql(statements[0])):
        return UNKNOWN if surely else None
    found = THINKS
    for words in statements:
        found = both(found, _of_statement(words))
    return found if complete else both(found, UNKNOWN)


def effect_of_http(method: str, *, body: bool = False) -> Effect:
    """What an HTTP request does: GET, HEAD and OPTIONS read; what carries a body sends; the rest changes as well.

    Args:
        method: As told; "" is GET, or POST where there is a body.
        body: Whether the request carries content.
    """
    method = method[:16].strip().upper() or ("POST" if body else "GET")
    if method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        return both(OUT, SENDS_OUT) if body else OUT
    return SENDS_OUT if method == "POST" else both(SENDS_OUT, CHANGES)


def _is_sql(words: list[str]) -> bool:
    first = words[0]
    if first == "select":
        return "from" in words or len(words) <= 6
    if first in ("drop", "create", "alter"):
        return len(words) > 1 and words[1] in _KINDS
    if first in _NEUTRAL:
        return len(words) <= 4
    needed = _NEEDED.get(first)
    return needed is not None and (not needed or needed in words)


def _of_statement(words: list[str]) -> Effect:
    first, rest = words[0], words[1:]
    if not _REACHES.isdisjoint(words):
        return both(SENDS_OUT, CHANGES)
    if first in _READS:
        return _of_query(first, rest)
    if first == "insert":
        return CHANGES if "update" in rest or "replace" in rest[:2] else MAKES
    if first == "create":
        return LASTS if not _LATER.isdisjoint(rest[:4]) else CHANGES if "replace" in rest[:2] else MAKES
    if first == "copy":
        return both(SENDS_OUT, RUNS) if "program" in rest else both(READS, MAKES)
    if first in _NEUTRAL:
        return CHANGES if first == "set" and "global" in rest else THINKS
    if first in ("grant", "revoke"):
        return LASTS
    if first in _RUNS:
        return both(RUNS, CHANGES)
    return CHANGES if first in _CHANGES else UNKNOWN


def _of_query(first: str, rest: list[str]) -> Effect:
    if first == "pragma":
        return CHANGES if "=" in rest else READS
    if first == "select":
        return both(READS, MAKES) if "into" in rest else READS
    if first == "with" or (first == "explain" and "analyze" in rest[:3]):
        before = ""
        for word in rest:
            if word in _CHANGES and before not in ("for", ".") and word not in ("replace", "comment", "lock", "kill"):
                return both(READS, CHANGES)
            if word == "insert":
                return both(READS, MAKES)
            before = word
    return READS


def _statements(text: str) -> tuple[list[list[str]], bool]:
    """The bare words of each statement and whether all of it could be told apart.

    In lower case, without what stands in quotes and comments; ``=`` and ``.`` count as words.
    """
    statements: list[list[str]] = [[]]
    at, size, complete = 0, len(text), True
    while at < size:
        char = text[at]
        two = text[at : at + 2]
        if char in "'\"`":
            end = text.find(char, at + 1)
            complete &= end >= 0 and "\\" not in text[at:end]  # an escape in one dialect, two characters in the next
            at = size if end < 0 else end + 1
        elif two == "--":
            end = text.find("\n", at)
            at = size if end < 0 else end
        elif two == "/*":
            end = text.find("*/", at + 2)
            # One dialect runs `/*! ... */`, another nests comments.
            complete &= end >= 0 and text[at + 2 : at + 3] != "!" and "/*" not in text[at + 2 : end]
            at = size if end < 0 else end + 2
        elif two == "$$":
            end = text.find("$$", at + 2)
            complete = False
            at = size if end < 0 else end + 2
        elif char == "[" and "]" in text[at : at + 128]:
            at = text.find("]", at) + 1
        elif char == ";":
            statements.append([])
            at += 1
        elif char.isalpha() or char == "_":
            end = at + 1
            while end < size and (text[end].isalnum() or text[end] in "_$"):
                end += 1
            statements[-1].append(text[at:end].lower())
            at = end
        else:
            if char in "=.":
                statements[-1].append(char)
            at += 1
    return [words for words in statements if words], complete
