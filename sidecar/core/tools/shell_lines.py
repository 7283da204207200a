"""Reads a POSIX shell's command line into its simple commands, without running or expanding anything but itself.

Quotes, operators, redirections, here-documents, substitutions and the variables that the line itself sets are followed;
globs, aliases and the environment are not. Bounded and total: no text raises, and the work grows with its length.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

MAX_TEXT: Final = 16_384
"""Characters of a text that are read."""
MAX_COMMANDS: Final = 256
MAX_DEPTH: Final = 4
"""Levels of substitutions in substitutions."""
_MAX_WORD, _MAX_VALUE, _MAX_VARIABLES = 4096, 256, 64

_KEYWORDS: Final = frozenset(
    (
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "while",
        "until",
        "do",
        "done",
        "for",
        "case",
        "esac",
        "select",
        "function",
        "!",
    )
)
_SPECIAL: Final = frozenset("'\"`$\\ \t\r#;\n&|(){}<>")
_SPECIAL_QUOTED: Final = frozenset('"`$\\')
_NAMING: Final = frozenset(("for", "case", "select", "function"))
"""Keywords behind which no command stands but a name."""
_SHELLS: Final = frozenset(("sh", "bash", "zsh", "dash", "ksh", "ash", "fish"))


class Command(Struct, frozen=True):
    """One simple command of a command line.

    Attributes:
        words: The program and its arguments, unquoted, with the variables that the line itself sets written out.
        writes: Files that its output is redirected to.
        background: Whether it goes on after the line has ended.
        open: Whether the program's name is not known before the line runs.
    """

    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    background: bool = False
    open: bool = False


class CommandLine(Struct, frozen=True):
    """A command line's commands in order, those inside substitutions first.

    Attributes:
        complete: False where a bound or an open quote ended the reading early.
    """

    commands: tuple[Command, ...]
    complete: bool


def read_command_line(text: str) -> CommandLine:
    """The commands of a command line or script; of a text beyond `MAX_TEXT` characters those at its beginning."""
    script = _Script()
    script.read(text[:MAX_TEXT], 0)
    return CommandLine(tuple(script.commands), script.complete and len(text) <= MAX_TEXT)


class _Script:
    """What is shared by a command line and all that is nested in it."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.variables: dict[str, str] = {}
        self.complete = True

    def read(self, text: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.complete = False
        else:
            _Pass(self, text, depth).run()


class _Pass:
    """One pass over one text."""

    def __init__(self, script: _Script, text: str, depth: int) -> None:
        self.script, self.text, self.depth = script, text, depth
        self.at = 0
        self.words: list[str] = []
        self.writes: list[str] = []
        self.word: list[str] | None = None
        self.open_word = self.open_command = False
        self.redirect = ""
        self.documents: list[str] = []

    def run(self) -> None:
        text, size = self.text, len(self.text)
        while self.at < size and len(self.script.commands) < MAX_COMMANDS:
            char = text[self.at]
            if char in "'\"`$\\":
                self._quoted(char)
            elif char in " \t\r":
                self._end_word()
                self.at += 1
            elif char == "#" and self.word is None:
                end = text.find("\n", self.at)
                self.at = size if end < 0 else end
            elif char in ";\n&|(){}":
                self._operator(char)
            elif char in "<>":
                self._redirection(char)
            else:
                self._plain(_SPECIAL)
        self.script.complete &= self.at >= size
        self._end_command()

    def _add(self, text: str) -> None:
        if self.word is None:
            self.word = []
        self.word.append(text)

    def _plain(self, special: frozenset[str]) -> None:
        """Adds the character here and all that follow up to a special one."""
        text, size, end = self.text, len(self.text), self.at + 1
        while end < size and text[end] not in special:
            end += 1
        self._add(text[self.at : end])
        self.at = end

    def _inside(self, start: int, closing: int) -> str:
        """The text from `start` to what closes it; moves behind that. Where nothing does, the rest, incomplete."""
        end = closing if closing >= 0 else len(self.text)
        self.script.complete &= closing >= 0
        self.at = end + 1
        return self.text[start:end]

    # ------------------------------------------------------------ words

    def _quoted(self, char: str) -> None:
        text, at = self.text, self.at
        if char == "\\":
            following = text[at + 1 : at + 2]
            if following != "\n":
                self._add(following)
            self.at += 2
        elif char == "'":
            self._add(self._inside(at + 1, text.find("'", at + 1)))
        elif char == "`":
            self._substitute(self._inside(at + 1, text.find("`", at + 1)))
        elif char == "$":
            self._dollar()
        else:
            self._add("")
            self.at += 1
            self._double_quoted()

    def _double_quoted(self) -> None:
        text, size = self.text, len(self.text)
        while self.at < size:
            char = text[self.at]
            if char == '"':
                self.at += 1
                return
            if char in "`$" or (char == "\\" and text[self.at + 1 : self.at + 2] in ('"', "$", "`", "\\", "\n")):
                self._quoted(char)
            else:
                self._plain(_SPECIAL_QUOTED)
        self.script.complete = False

    def _dollar(self) -> None:
        text, at = self.text, self.at
        following = text[at + 1 : at + 2]
        if following == "(":
            self._substitute(self._inside(at + 2, _closing(text, at + 1)))
        elif following == "'":  # $'...': its escapes spell anything
            inner = self._inside(at + 2, text.find("'", at + 2))
            self._add(inner)
            self.open_word |= "\\" in inner
        elif following == "{":
            self._variable(self._inside(at + 2, text.find("}", at + 2)))
        else:
            end = at + 1
            while end < len(text) and (text[end].isalnum() or text[end] == "_") and end - at < 64:
                end += 1
            if end == at + 1 and following and following in "@*#?$!-":
                end += 1
            self._variable(text[at + 1 : end])
            self.at = end

    def _variable(self, name: str) -> None:
        value = self.script.variables.get(name) if name else "$"
        self._add(value or "")
        self.open_word |= value is None

    def _substitute(self, inner: str) -> None:
        self.script.read(inner, self.depth + 1)
        self._add("")
        self.open_word = True

    def _end_word(self) -> None:
        if self.word is None:
            return
        word = "".join(self.word)[:_MAX_WORD]
        self.word = None
        opened, self.open_word = self.open_word, False
        if self.redirect:
            if self.redirect == "<<":
                self.documents.append(word)
            elif self.redirect == ">":
                self.writes.append(word)
            self.redirect = ""
        elif not self.words and _is_assignment(word):
            self._assign(word, opened)
        else:
            if not self.words:
                self.open_command = opened
            self.words.append(word)

    def _assign(self, word: str, opened: bool) -> None:
        name, _, value = word.partition("=")
        if opened:
            self.script.variables.pop(name, None)
        elif len(self.script.variables) < _MAX_VARIABLES or name in self.script.variables:
            self.script.variables[name] = value[:_MAX_VALUE]

    # ------------------------------------------------------------ commands

    def _end_command(self, *, background: bool = False) -> None:
        self._end_word()
        while self.words and self.words[0] in _KEYWORDS:
            keyword, *rest = self.words
            self.words = [] if keyword in _NAMING else rest
            if keyword == "for" and rest:
                self.script.variables.pop(rest[0], None)
        if self.words or self.writes:
            self.script.commands.append(Command(tuple(self.words), tuple(self.writes), background, self.open_command))
        self.words, self.writes = [], []
        self.open_command = False
        self.redirect = ""

    def _operator(self, char: str) -> None:
        text = self.text
        following = text[self.at + 1 : self.at + 2]
        if char in "{}" and not (self.word is None and following in ("", " ", "\n", ";", ")")):
            self._add(char)
            self.at += 1
            return
        if char == "&" and following == ">":
            self._end_word()
            self.at += 1
            return
        double = following == char and char in "&|;"
        self._end_command(background=char == "&" and not double)
        self.at += 2 if double or (char == "|" and following == "&") else 1
        if char == "\n" and self.documents:
            self._skip_documents()

    def _redirection(self, char: str) -> None:
        text = self.text
        if self.word is not None and "".join(self.word).isdigit():
            self.word = None  # 2>
        self._end_word()
        end = self.at
        while end < len(text) and text[end] == char and end - self.at < 3:
            end += 1
        twice = end - self.at == 2
        if text[end : end + 1] == "(":  # a process substitution: a file that another command fills
            inner = self._inside(end + 1, _closing(text, end))
            self.script.read(inner, self.depth + 1)
            self.words.append("/dev/fd")
            return
        if text[end : end + 1] == "&":
            start = end = end + 1
            while end < len(text) and (text[end].isdigit() or text[end] == "-"):
                end += 1
            self.at = end
            self.redirect = ">" if end == start and char == ">" else ""
            return
        self.redirect = ">" if char == ">" else "<<" if twice else "<"
        if text[end : end + 1] == ("|" if char == ">" else "-"):
            end += 1
        self.at = end

    def _skip_documents(self) -> None:
        """Leaves out the lines of here-documents, unless a shell reads them."""
        reader = self.script.commands[-1] if self.script.commands else None
        by_shell = reader is not None and bool(reader.words) and reader.words[0].rpartition("/")[2] in _SHELLS
        for mark in self.documents:
            lines: list[str] = []
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line = self.text[self.at : end]
                self.at = end + 1
                if line.strip() == mark:
                    break
                lines.append(line)
            if by_shell:
                self.script.read("\n".join(lines), self.depth + 1)
        self.documents = []


def _is_assignment(word: str) -> bool:
    name, sign, _ = word.partition("=")
    return bool(sign and name) and name.replace("_", "a").isalnum() and not name[0].isdigit()


def _closing(text: str, start: int) -> int:
    """Where the parenthesis at `start` closes, -1 where it does not."""
    depth, at, quote = 0, start, ""
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return -1
