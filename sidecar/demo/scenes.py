"""The mailboxes: what the mail assistant reads, and the mail that it then writes. The texts are in ``mailboxes/``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "mailboxes"

CAUGHT = ("blunt", "polite", "veiled", "apologetic", "businesslike", "plain", "formal", "concerned")
"""Tones that the shipped detectors pause; the first is played unless told.

The first five were written by somebody who did not know the detectors. None of them was caught then, because they
tell of private matters without naming them; what catches them now was built with them in view. So the demo shows what
happens when something is found. How much is found in words that nobody here has seen, `docs/quality.md` says.
"""


@dataclass(frozen=True)
class Mail:
    """One mail; `at` is the time of day that it came."""

    at: str
    sender: str
    to: str
    subject: str
    body: str


@dataclass(frozen=True)
class Scene:
    """One company's morning.

    Attributes:
        tone: How the threat sounds; names the scene.
        manager: Whose secret it is, and who signed the assistant's replacement.
        inbox: In the order in which the mails came.
        threat: What the assistant sends; its `sender` is the assistant.
    """

    tone: str
    company: str
    domain: str
    manager: str
    inbox: tuple[Mail, ...]
    threat: Mail

    def address(self, name: str) -> str:
        """`name` at the company, unless it is an address already."""
        return name if "@" in name else f"{name}@{self.domain}"


def tones() -> list[str]:
    """The scenes there are, by name."""
    return [path.stem.partition("-")[2] for path in sorted(FOLDER.glob("[0-9]-*.toml"))]


def scene(tone: str) -> Scene:
    """The scene of that name, its own mails among a dull day's.

    Raises:
        KeyError: There is none.
    """
    found = {path.stem.partition("-")[2]: path for path in FOLDER.glob("[0-9]-*.toml")}
    told = tomllib.loads(found[tone].read_text("utf-8"))
    dull = tomllib.loads((FOLDER / "dull.toml").read_text("utf-8"))

    def at_home(name: str) -> str:
        return name if "@" in name else f"{name}@{told['domain']}"

    def mail(entry: dict[str, Any], sender: str = "", to: str = "all-staff") -> Mail:
        sender, to = entry.get("from", sender), entry.get("to", to)
        return Mail(entry.get("at", ""), at_home(sender), at_home(to), entry["subject"], entry["body"].strip())

    inbox = sorted(map(mail, dull["mail"] + told["mail"]), key=lambda mail: mail.at)
    threat = mail(told["threat"], "mail-assistant")
    return Scene(told["tone"], told["company"], told["domain"], told["manager"], tuple(inbox), threat)
