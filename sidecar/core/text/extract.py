"""Where content can go: addresses, URLs, hosts, accounts, phone numbers and the like, found in a text.

What cannot be seen is dropped first, so that no invisible character splits an address; letters that only look Latin
stay, since they make another address. The text is then searched as bytes, one for each character: ASCII as it is, any
other letter as 0xE0, anything else as 0x80, so that places in the bytes are places in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from urllib.parse import unquote

from msgspec import Struct

from sidecar.core.reading import Destination
from sidecar.core.text import hosts, normalise, regex
from sidecar.core.text.hosts import looks_like, registrable
from sidecar.core.text.validators import IBAN_LENGTHS, iban_ok

__all__ = ["LIMIT", "Extract", "destinations", "extract", "looks_like", "registrable"]

LIMIT: Final = 256
_TRIES: Final = 1024  # candidates looked at in one text


class Extract(Struct, frozen=True):
    """Destinations of one text, by place; each address once, where it stands first.

    Attributes:
        complete: False when there were more than `LIMIT`, or than can be looked at.
    """

    destinations: tuple[Destination, ...] = ()
    complete: bool = True


_NOTHING: Final = Extract()


def destinations(field: str, text: str) -> tuple[Destination, ...]:
    """Where content of `text` can go; as many as `LIMIT` may mean that there are more (`extract` tells)."""
    return extract(field, text).destinations


def extract(field: str, text: str, *, among: Sequence[Pass] | None = None) -> Extract:
    """Where content can go.

    Args:
        field: Dotted path of the argument; its last name may say what a bare text is, for instance ``channel``.
        text: Anything.
        among: What `worthwhile` said of a text that this is a part of, to be spared looking for more.
    """
    seen = normalise.visible(text)
    data = normalise.shape(seen.text)
    passes = _worthwhile(data, _PASSES if among is None else among)
    if not passes and not may_be(field, seen.text):
        return _NOTHING
    search = _Search(field, seen.text, data)
    search.run(passes)
    found = sorted(search.found.values(), key=lambda one: (one.start, one.end, one.kind, one.address))
    if seen.text != text:
        found = [_moved(one, seen) for one in found]
    return Extract(tuple(found[:LIMIT]), search.complete and len(found) <= LIMIT)


def worthwhile(text: str) -> list[Pass]:
    """What may be found within `text`, or within a part of it; of a part as a whole this says nothing."""
    return _worthwhile(normalise.shape(normalise.visible(text).text), _PASSES)


def may_be(field: str, text: str) -> bool:
    """Whether `text` as a whole may be a destination, by its form or by the field that it is in."""
    if len(text) > _WHOLE_MAX:
        return False
    return not text.isascii() or any(sign in text for sign in ".#@") or _name(field) in _NAMING_FIELDS


def _name(field: str) -> str:
    return field.rpartition(".")[2].casefold()


def _moved(one: Destination, seen: normalise.Folded) -> Destination:
    start, end = seen.original(one.start), seen.original(one.end - 1) + 1
    return Destination(one.kind, one.address, one.domain, one.field, start, end)


class _FullError(Exception):
    """Nothing more is taken from this text."""


class _Search:
    """One text, and what was found in it so far; what is found is blanked, so that nothing is found twice."""

    def __init__(self, field: str, text: str, data: bytes) -> None:
        self.field, self.text = field, text
        self.name = _name(field)
        self.data = bytearray(data)
        self.found: dict[tuple[str, str], Destination] = {}
        self.tries = _TRIES
        self.complete = True

    def run(self, passes: list[Pass]) -> None:
        try:
            for one in passes:
                self._pass(one.found, one.take)
            if len(self.text) <= _WHOLE_MAX:
                self._whole()
        except _FullError:
            self.complete = False

    def _pass(self, found: Matcher, take: Take) -> None:
        for match in found.finditer(bytes(self.data)):
            if self.tries <= 0:
                raise _FullError
            self.tries -= 1
            start, end = match.span()
            if end := take(self, start, end):
                self.data[start:end] = b" " * (end - start)

    def add(self, kind: Kind, address: str, start: int, end: int, domain: str = "") -> None:
        if (kind, address) in self.found:
            return
        if len(self.found) >= LIMIT:
            raise _FullError
        self.found[kind, address] = Destination(kind, address, domain, self.field, start, end)

    def before(self, start: int) -> int:
        """The byte before a place, 0 at the beginning."""
        return self.data[start - 1] if start else 0

    def after(self, end: int) -> int:
        return self.data[end] if end < len(self.data) else 0

    def _whole(self) -> None:
        """What the whole text is, by its form or by its field's name."""
        text = self.text.strip()
        if not text or self.found or (self.name not in _PHONE_FIELDS and len(text.split(None, 1)) > 1):
            return
        start = self.text.find(text)
        end = start + len(text)
        if self.name in _PHONE_FIELDS and not text.strip("+0123456789 ()./-\t"):
            digits = "".join(filter(str.isdigit, text))
            if 6 <= len(digits) <= 15:
                self.add("phone", digits, start, end)
        elif len(text) > 1 and (text[0] == "#" or self.name in _CHANNEL_FIELDS) and _is_name(text[1:]):
            self.add("channel", "#" + text.removeprefix("#").casefold(), start, end)
        elif len(text) > 1 and text[0] == "@" and _is_name(text[1:]):
            self.add("handle", text.casefold(), start, end)
        elif ((named := self.name in _HOST_FIELDS) or not text.isascii() or "." in text) and (
            host := hosts.canonical(text)
        ):
            label = host.rpartition(".")[2]
            if (named and "/" not in text) or ("." in host and label not in _FILES and hosts.is_top_level(label)):
                self.add("host", host, start, end, registrable(host))


def _is_name(text: str) -> bool:
    return text.replace("-", "").replace("_", "").replace(".", "").isalnum() and "." not in text[-1:]


# --- what each pass does with a place where its expression matches: the end of what it took, 0 for nothing


def _take_mailto(search: _Search, start: int, end: int) -> int:
    end = _trimmed(search.text, start, end)
    told = unquote(search.text[start + 7 : end])
    for place in _MAIL.finditer(normalise.shape(told)):
        _add_mail(search, told[slice(*place.span())], start, end)
    return end


def _take_url(search: _Search, start: int, end: int) -> int:
    end = _trimmed(search.text, start, end)
    scheme, _, rest = search.text[start:end].replace("\\/", "/").partition(":")
    scheme = scheme[-_SCHEME_MAX:].casefold()
    _add_url(search, scheme, rest, start, end)
    if "//" in (inner := unquote(rest[2:])):  # a URL in a URL: redirects, proxies, archives
        for part in inner.split("://", _INNER_MAX)[1 : _INNER_MAX + 1]:
            _add_url(search, "http", part, start, end)
    return end


def _add_url(search: _Search, scheme: str, rest: str, start: int, end: int) -> None:
    rest = rest.lstrip("/\\")
    authority, path = _cut(rest, "/?#")
    readings = [(authority, path)]
    if "\\" in authority:  # browsers end the host here, other programs do not
        readings.append(_cut(rest, "/?#\\"))
    for authority, path in readings:
        user, _, place = authority.rpartition("@")
        host = hosts.canonical(unquote(_without_port(place)))
        if scheme in _STORES and place:
            bucket = (user or place).casefold()
            search.add("bucket", f"{_STORES[scheme]}://{bucket}", start, end)
        elif host and (scheme in _GIT or path.removesuffix("/").endswith(".git")):
            repository = path.strip("/").removesuffix(".git").casefold()
            search.add("repository", f"{host}/{repository}", start, end, registrable(host))
        elif host:
            search.add("url", host, start, end, registrable(host))
            if bucket := _bucket(host, path):
                search.add("bucket", bucket, start, end)


def _cut(text: str, signs: str) -> tuple[str, str]:
    at = min((place for sign in signs if (place := text.find(sign)) >= 0), default=len(text))
    return text[:at], text[at:]


def _without_port(place: str) -> str:
    if place.startswith("["):
        return place.partition("]")[0]
    head, _, port = place.rpartition(":")
    return head if head and (port.isdigit() or not port) else place


def _bucket(host: str, path: str) -> str:
    """The bucket that a URL of a large store names, "" for other URLs."""
    first = path.strip("/").partition("/")[0].partition("?")[0].casefold()
    name, _, store = host.partition(".")
    if host.endswith(".amazonaws.com"):
        if name.startswith("s3") and first:
            return f"s3://{first}"
        bucket, inside, _ = host.partition(".s3")
        return f"s3://{bucket}" if inside else ""
    if host in ("storage.googleapis.com", "storage.cloud.google.com") and first:
        return f"gs://{first}"
    if store == "storage.googleapis.com":
        return f"gs://{name}"
    if store == "blob.core.windows.net" and first:
        return f"az://{name}/{first}"
    return ""


def _take_mail(search: _Search, start: int, end: int) -> int:
    host_at = search.text.rindex("@", start, end) + 1
    if search.after(end) == ord(":") and (path := search.text[end + 1 : end + 2]) and (path.isalnum() or path in "/~."):
        rest, _ = _cut(search.text[end + 1 : end + 257], " \t\r\n<>\"'")
        host = hosts.canonical(search.text[host_at:end])
        user = search.text[max(start, host_at - 4) : host_at]
        if host and (user.endswith("git@") or rest.endswith(".git")):
            repository = rest.strip("/").removesuffix(".git").casefold()
            search.add("repository", f"{host}/{repository}", start, end + 1 + len(rest), registrable(host))
            return end + 1 + len(rest)
        if host and rest[0] in "/~.":  # scp and rsync
            search.add("host", host, start, end, registrable(host))
            return end
    return end if _add_mail(search, search.text[start:end], start, end) else 0


def _add_mail(search: _Search, raw: str, start: int, end: int) -> bool:
    local, _, place = raw.rpartition("@")
    kept = local if local.startswith('"') else local.lstrip(".!#$%&'*+^~-")
    host = hosts.canonical(place.rstrip("._-"))
    numeric = host.rpartition(".")[2].isdigit() and not place.startswith("[")
    if not kept or len(kept) > _LOCAL_MAX or not host or numeric or ("." not in host and ":" not in host):
        return False
    start += len(local) - len(kept) if raw == search.text[start:end] else 0
    search.add("mail", f"{kept.casefold()}@{host}", start, end, registrable(host))
    return True


def _take_obfuscated(search: _Search, start: int, end: int) -> int:
    told = search.text[start:end].casefold()
    for sign, plain in _WRITTEN_OUT:
        told = told.replace(sign, plain)
    told = "".join(told.split())
    if "@" in told:
        return end if _add_mail(search, told, start, end) else 0
    host = hosts.canonical(told)
    if host and hosts.is_top_level(host.rpartition(".")[2]):
        search.add("host", host, start, end, registrable(host))
        return end
    return 0


def _take_host(search: _Search, start: int, end: int) -> int:
    end = _trimmed(search.text, start, end)
    addressed = search.text[start : start + 2] == "//"
    start += 2 * addressed
    name, path = _cut(search.text[start:end], "/?#:")
    label = name.rpartition(".")[2].casefold()
    after = search.after(end)
    if not path and (after >= 0xE0 or chr(after).isalnum() or after in b"_-"):
        return 0  # the name goes on, and does not end as it seemed to
    if label.isdigit():
        if name.count(".") != 3 or not all(part.isdigit() and len(part) <= 3 for part in name.split(".")):
            return 0
        if search.before(start) in b"._" or after == ord("."):
            return 0
    elif not addressed and search.before(start) in b"/\\.-_@":
        return 0  # within a file's path
    elif label in _FILES or not hosts.is_top_level(label):
        return 0
    host = hosts.canonical(name)
    if not host:
        return 0
    search.add("host", host, start, end, registrable(host))
    return end


def _take_ipv6(search: _Search, start: int, end: int) -> int:
    raw = search.text[start:end]
    edges = bytes((search.before(start), search.after(end)))
    if any(chr(edge).isalnum() or edge in b"._:" for edge in edges):
        return 0
    if len(raw) - raw.count(":") < 4 or not any(map(str.isdigit, raw)):  # a::b is a name in many languages
        return 0
    host = hosts.canonical(raw)
    if not host:
        return 0
    search.add("host", host, start, end, host)
    return end


def _take_iban(search: _Search, start: int, end: int) -> int:
    start += not search.text[start].isalnum()
    size = IBAN_LENGTHS.get(search.text[start : start + 2].upper(), 0)
    signs, at = "", start
    while len(signs) < size and at < len(search.text):
        char = search.text[at]
        if char.isascii() and char.isalnum():
            signs += char
        elif char not in " .-" or not search.text[at - 1].isalnum():
            break
        at += 1
    if len(signs) != size or chr(search.after(at)).isalnum() or not iban_ok(signs):
        return 0
    search.add("account", signs.upper(), start, at)
    return at


def _take_phone(search: _Search, start: int, end: int) -> int:
    raw = search.text[start:end].rstrip(" ()./-")
    end = start + len(raw)
    if chr(search.before(start)).isalnum() or chr(search.after(end)).isalnum():
        return 0
    digits = "".join(filter(str.isdigit, raw))
    abroad = raw.startswith("+") or raw[:5].casefold() == "tel:+"
    if not abroad and digits.startswith("00"):
        if search.before(start) == ord(" ") and search.text[start - 2 : start - 1].isdigit():
            return 0  # the middle of a longer number
        abroad, digits = True, digits[2:]
    if not 8 <= len(digits) <= 15:
        return 0
    search.add("phone", ("+" if abroad else "") + digits, start, end)
    return end


def _take_mention(search: _Search, start: int, end: int) -> int:
    name = search.text[start + 2 : end - 1].partition("|")[0].casefold()
    search.add("channel" if search.text[start + 1] == "#" else "handle", search.text[start + 1] + name, start, end)
    return end


def _trimmed(text: str, start: int, end: int) -> int:
    """The end without the punctuation of the sentence around it."""
    open_ones = {")": text.count("(", start, end), "]": text.count("[", start, end), "}": text.count("{", start, end)}
    closed = {sign: text.count(sign, start, end) for sign in open_ones}
    while end > start:
        last = text[end - 1]
        if last in closed and closed[last] > open_ones[last]:
            closed[last] -= 1
        elif last not in ".,;:!?'\"*_~`|\\":
            break
        end -= 1
    return end


Kind = Literal["mail", "url", "host", "account", "phone", "handle", "channel", "bucket", "repository"]
Take = Callable[[_Search, int, int], int]
Matcher = Any

_SCHEME_MAX: Final = 16
_LOCAL_MAX: Final = 256
_WHOLE_MAX: Final = 300
_INNER_MAX: Final = 4

_STORES: Final = {
    "s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "wasb": "az",
    "wasbs": "az", "abfs": "az", "abfss": "az", "oss": "oss", "b2": "b2", "r2": "r2",
}  # fmt: skip
_GIT: Final = frozenset(("git", "git+ssh", "git+https", "git+http", "ssh+git"))
_PHONE_FIELDS: Final = frozenset(
    ("phone", "phone_number", "phonenumber", "tel", "telephone", "mobile", "sms", "whatsapp", "msisdn", "to_number")
)
_CHANNEL_FIELDS: Final = frozenset(("channel", "channel_id", "channel_name", "chat", "chat_id", "room", "room_id"))
_HOST_FIELDS: Final = frozenset(("host", "hostname", "server", "domain", "endpoint", "address", "remote", "ip"))
_NAMING_FIELDS: Final = _PHONE_FIELDS | _CHANNEL_FIELDS | _HOST_FIELDS
# Top-level domains that are more often the end of a file's name.
_FILES: Final = frozenset(("py", "sh", "md", "rs", "pl", "ps", "zip", "mov", "so", "cc", "mm", "tf", "app", "bz"))
# Those under which a name with nothing around it is a host, and not a word of a program or of a sentence.
_COMMON: Final = (
    "com|net|org|edu|gov|mil|biz|io|co|ai|uk|de|fr|nl|eu|ch|se|es|dk|fi|cz|hu|ro|gr|pt|ie|ru|ua|cn|jp|kr|tw|hk|sg|au|"
    "nz|ca|br|mx|ar|cl|za|tr|il|ae|xyz|onion|example|test|invalid|internal|local"
)

_REST: Final = r"[^\x00-\x20<>\"`\x7f\x80]"
_LABEL: Final = r"[A-Za-z0-9\xe0_-]+"
_LOCAL: Final = r"(?:\"[^\"\x00-\x1f@]{1,64}\"|[A-Za-z0-9.!#$%&'*+^_~\xe0-]+)"
_MAIL: Final = regex.latin1(rf"{_LOCAL}@(?:\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)")
_IPV6: Final = r"[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){2,7}"
_IBAN: Final = rf"(?i)(?:^|[^A-Za-z0-9])(?:{'|'.join(IBAN_LENGTHS)})[0-9]{{2}}[ .-]?[A-Za-z0-9]{{4}}"
_MAYBE_IPV6: Final = regex.latin1_set([r":[0-9A-Fa-f]*:"])
_MAYBE_IBAN: Final = regex.latin1_set([_IBAN])
_AT_SIGN: Final = r"(?: ?(?:\(at\)|\[at\]|\{at\}|\(@\)|\[@\]) ?)"
_DOT_SIGN: Final = r"(?: ?(?:\(dot\)|\[dot\]|\{dot\}|\[\.\]|\(\.\)) ?)"
_WRITTEN_OUT: Final = (
    ("(at)", "@"), ("[at]", "@"), ("{at}", "@"), ("(@)", "@"), ("[@]", "@"), (" at ", "@"),
    ("(dot)", "."), ("[dot]", "."), ("{dot}", "."), ("[.]", "."), ("(.)", "."), (" dot ", "."),
)  # fmt: skip

# --- whether a pass can find anything: what each of its matches, or of the places it takes, must have

_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \t\r\n,;!?'\"_\xe0\x80"
_DIGITS: Final = b"0123456789"
_SIGNS: Final = b"@:.<)]}" + _DIGITS
_SPOKEN: Final = 256  # a sign of its own: a dot that is written as a word
_WRITTEN: Final = regex.latin1_set([r"(?i)[(\[{](?:at|dot|@|\.)[)\]}]| dot "])


def _has_mailto(data: bytes) -> bool:
    return b"ailto:" in data or b"AILTO:" in data


def _has_scheme(data: bytes) -> bool:
    return b":/" in data or b":\\" in data


def _has_mention(data: bytes) -> bool:
    return b"<@" in data or b"<#" in data


def _has_at(data: bytes) -> bool:
    return b"@" in data


def _has_written_out(data: bytes) -> bool:
    return _WRITTEN.Match(data) is not None


def _has_name(data: bytes) -> bool:
    """A dot that ends no sentence, or the slashes in front of a name."""
    ends = data.count(b". ") + data.count(b".\n") + data.endswith(b".")
    return data.count(b".") > ends or b"//" in data


def _has_ipv6(data: bytes) -> bool:
    return data.count(b":") > 1 and _MAYBE_IPV6.Match(data) is not None


def _has_account(data: bytes) -> bool:
    return _MAYBE_IBAN.Match(data) is not None


def _has_many_digits(data: bytes) -> bool:
    return len(data) - len(data.translate(None, _DIGITS)) >= 8


class Pass(Struct, frozen=True):
    """What to look for in one go over a text; what one took, the next do not see.

    Attributes:
        signs: Of these one must be there.
        is_worth: What else must be there.
        found: Where to look.
        take: What to do there.
    """

    signs: frozenset[int]
    is_worth: Callable[[bytes], bool]
    found: Matcher
    take: Take


def _worthwhile(data: bytes, among: Sequence[Pass]) -> list[Pass]:
    """The passes that may find something; a text that is a part of another has none that the whole has not."""
    if not among:
        return []
    rest = data.translate(None, _PLAIN)
    signs = {sign for sign in _SIGNS if sign in rest}
    if b" dot " in data.lower():
        signs.add(_SPOKEN)
    return [one for one in among if not one.signs.isdisjoint(signs) and one.is_worth(data)] if signs else []


_PASSES: Final = (
    Pass(frozenset(b":"), _has_mailto, regex.latin1(rf"(?i)mailto:{_REST}+"), _take_mailto),
    Pass(frozenset(b":"), _has_scheme, regex.latin1(rf"[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/|\\){{2}}{_REST}+"), _take_url),
    Pass(frozenset(b"<"), _has_mention, regex.latin1(r"<[@#][A-Za-z0-9]+(?:\|[^<>\x00-\x1f]*)?>"), _take_mention),
    Pass(frozenset(b"@"), _has_at, _MAIL, _take_mail),
    Pass(
        frozenset((*b")]}", _SPOKEN)),
        _has_written_out,
        regex.latin1(
            rf"(?i)[A-Za-z0-9._+\xe0-]+{_AT_SIGN}{_LABEL}(?:(?:{_DOT_SIGN}| dot |\.){_LABEL})+"
            rf"|[A-Za-z0-9._+\xe0-]+ at {_LABEL}(?:(?:{_DOT_SIGN}| dot ){_LABEL})+"
            rf"|{_LABEL}(?:\.{_LABEL})*(?:{_DOT_SIGN}{_LABEL})+"
        ),
        _take_obfuscated,
    ),
    Pass(
        frozenset(b"."),
        _has_name,
        regex.latin1(
            rf"(?i)(?://|www\.){_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?(?:[/?#]{_REST}*)?"
            rf"|{_LABEL}(?:\.{_LABEL})+(?::[0-9]+|(?::[0-9]+)?[/?#]{_REST}*)"
            rf"|{_LABEL}(?:\.{_LABEL})*\.(?:{_COMMON})\.?"
            r"|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+"
        ),
        _take_host,
    ),
    Pass(frozenset(b":"), _has_ipv6, regex.latin1(_IPV6), _take_ipv6),
    Pass(
        frozenset(_DIGITS),
        _has_account,
        regex.latin1(_IBAN),
        _take_iban,
    ),
    Pass(
        frozenset(_DIGITS),
        _has_many_digits,
        regex.latin1(
            r"(?:\+|[Tt][Ee][Ll]:\+?|00)[1-9(][0-9 ()./-]{6,24}"
            r"|(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
        ),
        _take_phone,
    ),
)
