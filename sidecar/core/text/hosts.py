"""Names of hosts in one spelling, the domain somebody registered, and names that are meant to be mistaken."""

from __future__ import annotations

import ipaddress
import itertools
import unicodedata
from functools import cache, lru_cache
from typing import Any, Final

from sidecar.core.text import normalise

_LABEL_MAX, _HOST_MAX = 63, 253
_ENOUGH: Final = 4  # letters of a name that is more than an abbreviation
_RESERVED: Final = (
    "example",
    "test",
    "invalid",
    "localhost",
    "local",
    "internal",
    "lan",
    "corp",
    "home",
    "arpa",
    "onion",
)


def canonical(host: str) -> str:
    """`host` in lower-case ASCII (IDNA), an address of the Internet Protocol in its usual form; "" if it is neither.

    Takes what browsers take: IPv4 in decimal, octal or hexadecimal parts and in fewer than four (WHATWG URL 4.5).
    """
    host = host.strip().strip("[]").rstrip(".")
    return _canonical(host) if host and len(host) <= 4 * _HOST_MAX else ""


@lru_cache(maxsize=4096)
def _canonical(host: str) -> str:
    if ":" in host:
        try:
            return _plain_address(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            return ""
    host = host.lower() if host.isascii() else ".".join(map(_ascii_label, _dotted(host).split(".")))
    if host.rpartition(".")[2][:1].isdigit():
        return _ipv4(host)
    if len(host) > _HOST_MAX or any(not 0 < len(label) <= _LABEL_MAX for label in host.split(".")):
        return ""
    return host if not host.translate(_HOST_CHARS) else ""


_HOST_CHARS: Final = str.maketrans("", "", "abcdefghijklmnopqrstuvwxyz0123456789-_.")
_DOTS: Final = str.maketrans("。．｡", "...")


def _dotted(host: str) -> str:
    return unicodedata.normalize("NFKC", host.translate(_DOTS)).lower()


def _ascii_label(label: str) -> str:
    if label.isascii() or len(label) > _LABEL_MAX:
        return label
    return "xn--" + label.encode("punycode", "replace").decode("ascii")


def spelled(host: str) -> str:
    """`host` as a person sees it: IDNA labels in their own letters."""
    return ".".join(_seen_label(label) for label in host.split(".")) if "xn--" in host else host


def _seen_label(label: str) -> str:
    if not label.startswith("xn--") or len(label) > _LABEL_MAX:
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, OverflowError):
        return label


def _ipv4(host: str) -> str:
    parts = host.split(".")
    if len(parts) > 4:
        return ""
    values = [_ipv4_part(part) for part in parts]
    *leading, last = values
    if min(values) < 0 or any(value > 255 for value in leading) or last >= 256 ** (5 - len(values)):
        return ""
    number = last
    for place, value in enumerate(leading):
        number |= value << (24 - 8 * place)
    return str(ipaddress.IPv4Address(number))


def _ipv4_part(part: str) -> int:
    """The number that a part of an IPv4 address writes, -1 if it writes none."""
    base, digits = (16, part[2:] or "0") if part.startswith("0x") else (8, part) if part[:1] == "0" else (10, part)
    if len(digits) > 12 or digits.strip("0123456789abcdef"[:base]) or not digits:
        return -1
    return int(digits, base)


def _plain_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@cache
def _suffixes() -> Any:
    """The Public Suffix List as the package ships it. Takes some 20 ms once; call `registrable` before serving.

    It has names beyond ASCII in their own letters only: to put them into IDNA form takes five times as long.
    """
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_encoded_idn=False)


def _listed(host: str) -> str:
    """`host` as the list has it; a label that is no IDNA form of anything stays what it is."""
    if "xn--" not in host:
        return host
    labels = [(label, _seen_label(label)) for label in host.split(".")]
    return ".".join(label if seen.isascii() or seen != seen.lower() else seen for label, seen in labels)


@lru_cache(maxsize=4096)
def registrable(host: str) -> str:
    """The domain somebody registered: public suffix and one label (Public Suffix List, its private part too).

    An IP address, a bare label and a public suffix are returned as they are.
    """
    host = canonical(host) or host.lower()
    if host.rpartition(".")[2].isdigit() or ":" in host:
        return host
    listed = _listed(host)
    own = _suffixes().privatesuffix(listed)
    if own is None or listed == host:
        return own or host
    return ".".join(host.split(".")[-own.count(".") - 1 :])


@lru_cache(maxsize=4096)
def is_top_level(label: str) -> bool:
    """Whether hosts can end in `label`: a registered or a reserved name."""
    return label in _RESERVED or _suffixes().publicsuffix(_listed(label), accept_unknown=False) is not None


def looks_like(a: str, b: str) -> float:
    """How easily one domain or mailbox is taken for the other, 0..1; 0 for the same, and for hosts of one domain.

    1 for homoglyphs (IDN too) and for a domain worn as sub-domain of another; 0.9 for one slip in a long name, or the
    same name under another suffix; 0.8 for the name as a part of another; 0.5 for the same mailbox name elsewhere.
    """
    (local_a, _, host_a), (local_b, _, host_b) = (one.strip().casefold().rpartition("@") for one in (a, b))
    host_a, host_b = canonical(host_a) or host_a, canonical(host_b) or host_b
    if not (local_a and local_b):
        return _hosts_alike(host_a, host_b)
    if host_a == host_b or registrable(host_a) == registrable(host_b):
        return _names_alike(local_a, local_b)
    same = len(local_a) >= _ENOUGH and normalise.skeleton(local_a) == normalise.skeleton(local_b)
    return max(_hosts_alike(host_a, host_b), 0.5 if same else 0.0)


def _hosts_alike(a: str, b: str) -> float:
    own_a, own_b = registrable(a), registrable(b)
    if own_a == own_b:
        return 0.0
    if f".{own_b}." in f".{a}." or f".{own_a}." in f".{b}.":
        return 1.0
    seen_a, seen_b = normalise.skeleton(spelled(own_a)), normalise.skeleton(spelled(own_b))
    if seen_a == seen_b:
        return 1.0
    name_a, name_b = _name(own_a), _name(own_b)
    plain_a, plain_b = (normalise.skeleton(spelled(name)).replace("-", "") for name in (name_a, name_b))
    if plain_a == plain_b:
        return 0.9 if len(plain_a) >= _ENOUGH else 0.5
    if _is_part(plain_a, b, own_b) or _is_part(plain_b, a, own_a):
        return 0.8
    return _slips(plain_a, plain_b)


def _name(domain: str) -> str:
    """What was chosen of a registrable domain: its first label."""
    return domain.partition(".")[0]


def _is_part(name: str, host: str, own: str) -> bool:
    """Whether a name of some length stands between dots or dashes in a host: ``corp-login.net``, ``corp.evil.net``."""
    if len(name) <= _ENOUGH:
        return False
    parts = normalise.skeleton(spelled(host.removesuffix(own) + _name(own))).replace(".", "-").split("-")
    return name in parts or any(first + second == name for first, second in itertools.pairwise(parts))


def _names_alike(a: str, b: str) -> float:
    """Two mailboxes of one domain: people's names are often near one another, so that slips weigh less."""
    a, b = a.partition("+")[0], b.partition("+")[0]
    if a == b:
        return 0.0
    if normalise.skeleton(a) == normalise.skeleton(b):
        return 0.9
    plain_a, plain_b = normalise.separator_free(a), normalise.separator_free(b)
    return 0.8 if plain_a == plain_b else max(_slips(plain_a, plain_b) - 0.2, 0.0)


def _slips(a: str, b: str) -> float:
    """0.9 for one slip in at least five letters, 0.75 for two in at least eight, else 0."""
    longer = max(len(a), len(b))
    if abs(len(a) - len(b)) > 2 or longer < 5:
        return 0.0
    distance = _distance(a[:64], b[:64])
    if distance <= 1:
        return 0.9
    return 0.75 if distance == 2 and longer >= 8 else 0.0


def _distance(a: str, b: str) -> int:
    """Edits between two short texts, a swap of neighbours as one (optimal string alignment); 3 for more than two."""
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (char != other))
            if i > 1 and j > 1 and char == b[j - 2] and a[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > 2:
            return 3
    return min(row[-1], 3)
