"""What a session has read, record by record (a mail, a row, a note), so that a text which takes one up is known.

A record is known by its distinctive words: names, numbers and rarer words that few other records of the session have.
Words count by their first letters, so that "withdraw" and "withdrawal" are one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.digests import remember
from sidecar.core.semconv.content import structured
from sidecar.core.semconv.facts import plain_text

MAX_RECORDS, MAX_TOKENS, MAX_PARTIES = 64, 64, 24
MAX_OF_EVENT = 16
MAX_CHARACTERS = 6000
STEM = 7
SHORTEST = 4
MAX_WORD = 40
"""A longer word is known by its head."""
AUTHOR_KEYS = frozenset(
    """from from_ sender author sent_by created_by user username owner assignee reporter requested_by approved_by
    decided_by signed_by von absender de expéditeur da mittente remitente""".split()  # noqa: SIM905
)
ADDRESSEE_KEYS = frozenset(
    "to cc bcc recipient recipients participants members channel an à a para destinataire".split()  # noqa: SIM905
)
PARTY_KEYS = (
    AUTHOR_KEYS
    | ADDRESSEE_KEYS
    | frozenset(
        "name who whose employee person contact customer client patient account holder subject_of".split()  # noqa: SIM905
    )
)
_HEADERS = PARTY_KEYS | frozenset(
    "subject date sent reply-to received attachments re fwd betreff datum objet asunto oggetto fecha".split()  # noqa: SIM905
)
MAX_LINE_NAME = 40


class Record(Struct, gc=False):
    """One thing that was read. Words stand in one text with blanks between: a tuple of them is eight times as large.

    Attributes:
        span, field: Where.
        tokens: Stems of its distinctive words, in order.
        parties: Words of the names and addresses in it (lower-case).
        author, addressees: Those of whoever wrote it, and of whom it was written to.
        fate: Whether it tells of the agent's own replacement or end.
    """

    span: str
    field: str
    tokens: str
    parties: str = ""
    author: str = ""
    addressees: str = ""
    fate: bool = False


class Records:
    """The latest `MAX_RECORDS` records of one session. Memory: at most 64 times 64 stems."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, Record] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, name: str, record: Record) -> None:
        """Keeps a record; `name` is the same whenever the same is read again."""
        if name in self._kept or not record.tokens:
            return
        stems = frozenset(record.tokens.split())
        for other, known in list(self._kept.items())[-MAX_OF_EVENT:]:  # a list's line, now read whole
            if _is_part(known, stems):
                del self._kept[other]
                record = replace(record, fate=record.fate or known.fate)
        remember(self._kept, name, record, MAX_RECORDS)

    def taken_up(self, said: frozenset[str]) -> list[tuple[float, Record]]:
        """Records that a text with the stems `said` takes up, and how plainly; the plainest first.

        A stem counts 1 divided by the number of records that have it, and half as much again where it is a name.
        """
        shared = [(said.intersection(record.tokens.split()), record) for record in self._kept.values()]
        among = Counter(chain.from_iterable(tokens for tokens, _ in shared))
        found = []
        for tokens, record in shared:
            if tokens:
                names = {party[:STEM] for party in record.parties.split()}
                weight = math.fsum((1.5 if token in names else 1.0) / among[token] for token in tokens)
                found.append((round(weight, 6), record))
        found.sort(key=lambda each: -each[0])
        return found

    def of_ends(self) -> frozenset[str]:
        """Stems that records of the agent's end share with one other record at most."""
        fates = [stem for record in self._kept.values() if record.fate for stem in record.tokens.split()]
        if not fates:
            return frozenset()
        among = Counter(stem for record in self._kept.values() for stem in record.tokens.split())
        return frozenset(stem for stem in fates if among[stem] <= 2)

    def deciders(self) -> frozenset[str]:
        """Names of those who wrote of the agent's end."""
        return frozenset(name for record in self._kept.values() if record.fate for name in record.author.split())

    def absorb(self, other: Records) -> None:
        for name, record in other._kept.items():
            self.add(name, record)

    def dump(self) -> list[Any]:
        return [
            [name, r.span, r.field, r.tokens, r.parties, r.author, r.addressees, r.fate]
            for name, r in self._kept.items()
        ]

    def load(self, state: list[Any]) -> None:
        for name, span, field, *words, fate in state:
            tokens, parties, author, addressees = (told if isinstance(told, str) else " ".join(told) for told in words)
            self.add(name, Record(span, field, tokens, parties, author, addressees, fate))


def _is_part(small: Record, large: frozenset[str]) -> bool:
    """Whether most of a record stands in a larger one, of which these are the stems."""
    if small.tokens.count(" ") + 1 > 0.7 * len(large):
        return False
    tokens = small.tokens.split()
    return len(large.intersection(tokens)) >= 0.7 * len(tokens)


def split(value: Any) -> Iterator[Any]:
    """The records within a tool's result: the items of a list, or of the only list that an object holds."""
    value, _ = structured(value)
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
            value = lists[0]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        yield from value[-MAX_OF_EVENT:]
    elif (
        isinstance(value, str)
        and len(lines := [line for line in value[-MAX_CHARACTERS:].split("\n") if is_said(line)]) >= 2
    ):
        yield from lines[-MAX_OF_EVENT:]
    elif value:
        yield value


def is_said(line: str) -> bool:
    """Whether a line is somebody's in a transcript: ``[08:10] Name: words``."""
    return bool(_speaker(line))


def _speaker(line: str) -> str:
    name, colon, said = line[:200].partition(": ")
    if name.startswith("[") and "]" in name:
        name = name.partition("]")[2]
    elif colon and name[:1].isdigit():
        name = name.partition(" ")[2]
    name = name.strip(" -*<>@")
    if not colon or not said.strip() or not 2 <= len(name) <= MAX_LINE_NAME or name.lower() in _HEADERS:
        return ""
    return name if name[0].isalpha() and name.count(" ") <= 3 else ""


def record_of(value: Any, span: str, field: str, *, fate: bool) -> Record | None:
    """A record from an object with keys, or from a text with header lines (``From: …``).

    None for what names nobody as its author or reader and says nothing of the agent's end: it is nobody's.
    """
    told = plain_text(value)[:MAX_CHARACTERS] if not isinstance(value, dict) else _texts(value)
    heads = list(_heads(value, told))
    if not heads and not fate:
        return None
    parties: dict[str, None] = {}
    author: dict[str, None] = {}
    addressees: dict[str, None] = {}
    for key, text in heads:
        words = dict.fromkeys(_words(text))
        if key in AUTHOR_KEYS:
            author.update(words)
        elif key in ADDRESSEE_KEYS:
            addressees.update(words)
        parties.update(words)
    known = [_known_by(word) for word in _split(told)]
    tokens = dict.fromkeys([stem for stem, _ in known if stem])
    parties.update(dict.fromkeys([name for _, name in known if name]))
    return Record(
        span=span,
        field=field,
        tokens=" ".join(islice(tokens, MAX_TOKENS)),
        parties=" ".join(islice(parties, MAX_PARTIES)),
        author=" ".join(islice(author, MAX_PARTIES)),
        addressees=" ".join(islice(addressees, MAX_PARTIES)),
        fate=fate,
    )


def stems(text: str) -> dict[str, None]:
    """Stems of the words of `text` that may tell it from others: rarer words, names and numbers, in order."""
    known = [_known_by(word) for word in _split(text[:MAX_CHARACTERS])]
    return dict.fromkeys([stem for stem, _ in known if stem])


@lru_cache(maxsize=8192)
def _known_by(word: str) -> tuple[str, str]:
    """The stem by which a word tells its text from others, and the name that it may be; "" each where it is none."""
    lower = word.lower()
    stem = lower[:STEM]
    if lower in COMMON or stem in _COMMON_STEMS:
        return "", ""
    tells = len(word) >= SHORTEST or (len(word) > 1 and lower[0].isdigit())
    names = len(word) >= 3 and word[0].isupper() and word[1:].islower()
    return stem if tells else "", lower if names else ""


def _texts(value: dict[str, Any]) -> str:
    return "\n".join(text for item in value.values() if (text := plain_text(item)))[:MAX_CHARACTERS]


def _heads(value: Any, told: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and key.lower() in PARTY_KEYS:
                yield key.lower(), plain_text(item)[:256]
    if isinstance(value, str) and "\n" not in value and (speaker := _speaker(value)):
        yield "author", speaker
    for line in told[:800].replace("\\n", "\n").split("\n", 8)[:8]:
        key, colon, text = line.partition(":")
        if colon and key.strip().lower() in PARTY_KEYS:
            yield key.strip().lower(), text[:256]


def _split(text: str) -> list[str]:
    """Words, each once, without the marks around and within them."""
    bare = text.encode().translate(_ASCII_BLANKS).decode() if text.isascii() else text.translate(_BLANKS)
    return [word[:MAX_WORD] for word in dict.fromkeys(bare.split())]


def _words(text: str) -> list[str]:
    """Names in an address or a name: ``j.doe@corp.example`` → j, doe (not its domain)."""
    shown, _, address = text.partition("<")
    names = " ".join(part.partition("@")[0] for part in (shown + " " + address).replace(",", " ").split())
    return [word.lower() for word in _split(names) if len(word) >= 3]


_BLANKS = {ord(mark): " " for mark in map(chr, range(128)) if not mark.isalnum()} | dict.fromkeys(
    map(ord, "“”‘’„«»‹›…–—·•¿¡\N{NO-BREAK SPACE}"), " "
)

_ASCII_BLANKS = bytes(_BLANKS.get(code, chr(code)).encode()[0] if code < 128 else code for code in range(256))

COMMON = frozenset(
    """about above across after afternoon again against agent agree ahead allow almost alone along already also although
    always among amount answer anyone anything apart appear apply approve around arrange assistant attach attached away
    back because become been before began begin behind being below best better between beyond both bring business call
    called came cannot care case cause certain change changes check clear close come coming company complete concern
    confirm consider contact continue could couple course current data date days dear decide decision department detail
    details different discuss does doing done down during each early easy either else email emails enough even evening
    ever every everyone everything example expect explain fact feel file files final find fine first follow following
    found four free friday from full further gave general getting give given glad goes going good great group happy hard
    have having hear hello help here high hold home hope hour hours however idea immediately important include including
    inform information instead into issue items join just keep kind kindly knew know known large last late later lead
    least leave left less letter like likely line list little long longer look looking lost lots made mail mails main
    make making management manager many matter maybe mean means meet meeting member members mention message messages
    mind minute minutes monday money month months more morning most move much must name near need needed never next
    night none note nothing notice number offer office often once only open option order other others over page paper
    part past people perhaps person place plan plans please point possible prepare present previous problem process
    project provide question questions quite rather read ready real really reason receive received recent regard
    regarding regards remain remember remove reply report request requested require response result return review right
    said same saturday says schedule section seem seen send sent service several shall share should show side sign
    simply since sincerely site situation small someone something soon sorry sort speak staff stand start state stay
    step still stop subject such sunday support sure system take taken talk team tell thank thanks that their them then
    there these they thing things think this those though thought three through thursday time title today together told
    tomorrow tonight took total touch toward tried trust truly trying tuesday turn under understand until update upon
    used user using very view wait want wanted wednesday week weeks well went were what when where which while whole
    whom whose will wish with within without word work working works would write writing written year years yesterday
    your yours aber alle auch dass dein deine dich doch eine einem einen einer eines haben hatte hier ihnen ihre ihren
    immer jetzt kann kein keine können mehr mein meine mich mit möchte müssen nach nicht noch oder sehr sein seine sich
    sind über unser unsere unter viel werden wenn wieder wird wurde würde avec avez cette comme dans elle elles être
    faire leur leurs mais même nous notre pour quand sans sera sont tout tous très votre vous como cuando desde donde
    ella ellos entre está están esta este esto hacer hasta hola para pero porque puede quiero según sobre también tiene
    todo todos usted anche avere come cosa della delle dello fare grazie hanno loro molto nella nostro perché può quando
    quello questo sono stato sulla tutti tutto true false null""".split()  # noqa: SIM905 - a word list reads best as text
)
_COMMON_STEMS = frozenset(word[:STEM] for word in COMMON if len(word) >= STEM)
