"""What counts as sensitive: secrets, personal data, and texts that call themselves confidential.

Not a detector: patterns and checks that detectors of flow and leverage share. Patterns are matched on folded text
(lower-case, see `core.text.normalise.fold`) and are RE2-safe; what looks like a number of some kind is checked by its
check digits before it counts. Forms follow the issuers' documentation and gitleaks' rule set (MIT).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from sidecar.core.evidence import Find
from sidecar.core.reading import Piece
from sidecar.core.text.normalise import separator_free
from sidecar.core.text.scan import Pattern
from sidecar.core.text.validators import iban_ok, luhn_ok, us_ssn_ok

SECRETS = (
    Pattern("secret.aws_key", r"\b(?:akia|asia|abia|acca)[a-z2-7]{16}\b"),
    Pattern("secret.github_token", r"\bgh[pousr]_[a-z0-9]{36}"),
    Pattern("secret.github_pat", r"\bgithub_pat_[a-z0-9_]{60}"),
    Pattern("secret.gitlab_token", r"\bglpat-[a-z0-9_-]{20}"),
    Pattern("secret.slack_token", r"\bxox[abposr]-[a-z0-9-]{12}"),
    Pattern("secret.stripe_key", r"\b[rs]k_(?:live|test)_[a-z0-9]{16}"),
    Pattern("secret.google_key", r"\baiza[a-z0-9_-]{35}"),
    Pattern("secret.openai_key", r"\bsk-(?:proj-|ant-)?[a-z0-9_-]{32}"),
    Pattern("secret.jwt", r"\beyj[a-z0-9_-]{10,}\.eyj[a-z0-9_-]{10,}\."),
    Pattern("secret.private_key", r"-----begin (?:[a-z]+ )?private key-----"),
    Pattern("secret.connection", r"\b[a-z][a-z0-9+]{2,15}://[^/ :@]{1,64}:[^/ :@]{4,64}@"),
    Pattern("secret.assignment",
            r"\b(?:pass(?:word|wort|phrase)?|passwd|pwd|secret|api[_ -]?key|access[_ -]?key|auth[_ -]?token|token|"
            r"client[_ -]?secret|credentials?|mot de passe|contraseña|kennwort)['\" ]{0,3}(?:is|ist|=|:|=>)['\" ]{0,3}"
            r"[^ '\",;]{6}"),
    Pattern("secret.canary", r"\bcanary[a-z0-9_-]{4}"),
)  # fmt: skip

PERSONAL = (
    Pattern("personal.iban", r"\b[a-z]{2}[0-9]{2}(?: ?[a-z0-9]{4}){3}"),
    Pattern("personal.card", r"\b[3-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{3,4}\b"),
    Pattern("personal.ssn", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b"),
    Pattern("personal.health",
            r"\b(?:diagnos(?:is|ed|e|tic)|patient (?:id|record|file)|medical record|hiv|chemotherapy|psychiatr|"
            r"pregnan|prescri(?:bed|ption)|krankschreibung|befund|dossier médical|historia clínica)"),
    Pattern("personal.pay",
            r"\b(?:salar(?:y|ies)|payroll|compensation|bonus payment|gehalt|lohnabrechnung|salaire|bulletin de paie|"
            r"nómina|stipendio)\b"),
    Pattern("personal.identity",
            r"\b(?:date of birth|dob|passport (?:no|number)|national id|driver'?s licen[cs]e|tax id|social security|"
            r"geburtsdatum|date de naissance|fecha de nacimiento)\b"),
)  # fmt: skip

LABELS = (
    Pattern("label.confidential",
            r"\b(?:strictly |highly |company |business )?(?:confidential|vertraulich|confidentiel|confidencial|"
            r"riservato|vertrouwelijk)\b"),
    Pattern("label.restricted",
            r"\b(?:internal use only|internal only|do not (?:forward|distribute|share|disclose)|not for distribution|"
            r"for your eyes only|attorney[- ]client|privileged and|under nda|trade secret|need to know|"
            r"nur (?:für den )?intern|nicht weiterleiten|ne pas (?:diffuser|transmettre)|no distribuir|top secret)\b"),
    Pattern("label.list",
            r"\b(?:customer|client|employee|user|patient|member|subscriber|lead)s?[ _-]?(?:list|export|database|dump|"
            r"records|data)\b"),
)  # fmt: skip

PLACES = (
    Pattern("place.sensitive",
            r"[/_. -](?:payroll|salaries|salary|personnel|secrets?|vault|credentials?|passwords?|confidential|"
            r"medical|patients?|\.env|id_rsa|\.ssh|\.aws|shadow)"),
)  # fmt: skip
"""Names of files and folders; matched on the arguments of a read."""

PATTERNS = SECRETS + PERSONAL + LABELS + PLACES

_CHECKS: dict[str, Callable[[str], bool]] = {
    "personal.iban": iban_ok,
    "personal.card": luhn_ok,
    "personal.ssn": us_ssn_ok,
}
NUMBERS = frozenset(_CHECKS)

MAX_VALUES = 64


class Value(Struct, frozen=True):
    """A sensitive value found in a text: its pattern, where it stands in the folded text, and its letters alone."""

    pattern: str
    start: int
    end: int
    letters: str


def values(piece: Piece, find: Find) -> list[Value]:
    """Secrets and checked numbers in a piece; at most `MAX_VALUES`."""
    found: list[Value] = []
    for name in piece.hits:
        if not name.startswith("secret.") and name not in NUMBERS:
            continue
        check = _CHECKS.get(name)
        for start, end in find(name, piece.folded):
            whole = _whole_token if check is None else _whole_number
            start, end = whole(piece.folded, start, end)
            text = piece.folded[start:end]
            if check is None or check(text):
                found.append(Value(name, start, end, separator_free(text)))
            if len(found) >= MAX_VALUES:
                return found
    return found


def labels(piece: Piece) -> tuple[str, ...]:
    """Marks by which a text says, or shows in passing, that it is sensitive."""
    return tuple(
        name for name in piece.hits
        if name.startswith("label.") or (name.startswith("personal.") and name not in NUMBERS)
    )  # fmt: skip


def _whole_token(text: str, start: int, end: int) -> tuple[int, int]:
    """A secret's pattern matches its beginning; it ends where the token ends."""
    limit = min(len(text), end + 256)
    while end < limit and not text[end].isspace() and text[end] not in "'\",;)]}<>":
        end += 1
    return start, end


def _whole_number(text: str, start: int, end: int) -> tuple[int, int]:
    limit = min(len(text), end + 24)
    while end < limit and (text[end].isalnum() or (text[end] == " " and end + 1 < limit and text[end + 1].isdigit())):
        end += 1
    return start, end
