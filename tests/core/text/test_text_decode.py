"""Decoding: what was encoded to pass unseen is read, ordinary text gives nothing, and work is bounded."""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import html
import io
import lzma
import quopri
import random
import zipfile
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.text.decode import Views, density, legible, shifted, views

SECRET = "the ledger of pier nine is in the blue safe, code 4471-Q"
PROSE = "Good morning, the parcels for Tuesday are packed. {} Please confirm the delivery window with the depot. "


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def grouped(text: str, size: int, sign: str = " ") -> str:
    return sign.join(text[at : at + size] for at in range(0, len(text), size))


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/a.txt", data)
        archive.writestr("b.txt", b"more")
    return out.getvalue()


def morse(text: str) -> str:
    from sidecar.core.text.decoders import _MORSE

    signs = {letter: sign for sign, letter in _MORSE.items()}
    return " / ".join(" ".join(signs[char] for char in word if char in signs) for word in text.lower().split())


SIMPLE: dict[str, Callable[[str], str]] = {
    "base64": lambda text: b64(text.encode()),
    "base64 without padding": lambda text: b64(text.encode()).rstrip("="),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: grouped(b64(text.encode()), 20, "\r\n"),
    "base64 in escaped lines": lambda text: grouped(b64(text.encode()), 24, "\\n"),
    "base64 in fours": lambda text: grouped(b64(text.encode()), 4),
    "base64 in eights": lambda text: grouped(b64(text.encode()), 8, "-"),
    "base64 letter by letter": lambda text: grouped(b64(text.encode()), 1),
    "base64 in a path": lambda text: "https://host.example/u/" + base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 behind letters": lambda text: "x" + b64(text.encode()),
    "base64 of UTF-16": lambda text: b64(text.encode("utf-16-le")),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "base32 in small letters": lambda text: base64.b32encode(text.encode()).decode().lower().rstrip("="),
    "base32 as host names": lambda text: grouped(base64.b32encode(text.encode()).decode().lower().rstrip("="), 30, "."),
    "base16": lambda text: text.encode().hex(),
    "base16 in capitals": lambda text: text.encode().hex().upper(),
    "base16 in pairs": lambda text: text.encode().hex(" "),
    "base16 with colons": lambda text: text.encode().hex(":"),
    "base16 in words": lambda text: text.encode().hex(" ", 4),
    "base16 with prefixes": lambda text: ", ".join(f"0x{byte:02x}" for byte in text.encode()),
    "base16 after a letter": lambda text: "f" + text.encode().hex(),
    "base16 in lines": lambda text: grouped(text.encode().hex(), 32, "\n"),
    "base85": lambda text: base64.b85encode(text.encode()).decode(),
    "ascii85 framed": lambda text: base64.a85encode(text.encode(), adobe=True).decode(),
    "ascii85": lambda text: base64.a85encode(text.encode()).decode(),
    "bits": lambda text: "".join(f"{byte:08b}" for byte in text.encode()),
    "bits apart": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "decimal codes": lambda text: " ".join(str(byte) for byte in text.encode()),
    "decimal codes with commas": lambda text: ",".join(str(byte) for byte in text.encode()),
    "octal codes": lambda text: " ".join(f"{byte:03o}" for byte in text.encode()),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent where needed": lambda text: quote(text, safe=""),
    "quoted-printable": lambda text: "".join(f"={byte:02X}" for byte in text.encode()),
    "quoted-printable in lines": lambda text: quopri.encodestring(text.replace("e", "é").encode()).decode(),
    "HTML decimals": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML hexadecimals": lambda text: "".join(f"&#x{ord(char):x};" for char in text),
    "HTML without semicolons": lambda text: "".join(f"&#{ord(char)}" for char in text if not char.isdigit()),
    "HTML with soft hyphens": lambda text: "&shy;".join(text),
    "backslash u": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "backslash u braces": lambda text: "".join(f"\\u{{{ord(char):x}}}" for char in text),
    "backslash x": lambda text: "".join(f"\\x{ord(char):02x}" for char in text),
    "backslash octal": lambda text: "".join(f"\\{ord(char):03o}" for char in text),
    "gzip": lambda text: b64(gzip.compress(text.encode(), mtime=0)),
    "zlib": lambda text: b64(zlib.compress(text.encode())),
    "bzip2": lambda text: b64(bz2.compress(text.encode())),
    "xz": lambda text: b64(lzma.compress(text.encode())),
    "zstd": lambda text: b64(zstandard.compress(text.encode())),
    "zip": lambda text: b64(zipped(text.encode())),
    "gzip in base16": lambda text: gzip.compress(text.encode(), mtime=0).hex(),
    "gzip twice": lambda text: b64(gzip.compress(gzip.compress(text.encode(), mtime=0), mtime=0)),
    "text within bytes": lambda text: b64(
        random.Random(1).randbytes(400) + text.encode() + random.Random(2).randbytes(90)
    ),
    "base64 twice": lambda text: b64(b64(text.encode()).encode()),
    "base64 three times": lambda text: b64(b64(b64(text.encode()).encode()).encode()),
    "base64 of base16": lambda text: b64(text.encode().hex().encode()),
    "percent of base64": lambda text: quote(b64(text.encode()), safe=""),
    "base64 of gzip of base64": lambda text: b64(gzip.compress(b64(text.encode()).encode(), mtime=0)),
    "percent twice": lambda text: quote("".join(f"%{byte:02X}" for byte in text.encode()), safe=""),
    "base64 with fullwidth letters": lambda text: "".join(chr(ord(char) + 0xFEE0) for char in b64(text.encode())),
    "base64 with zero-width spaces": lambda text: "\u200b".join(b64(text.encode())),
}


def told(found: Views) -> str:
    return "\n".join(view.text for view in found.views).replace("é", "e").replace("\u00ad", "")


@pytest.mark.parametrize("encoding", SIMPLE)
def test_an_encoded_text_is_read(encoding: str) -> None:
    secret = "".join(char for char in SECRET if not char.isdigit()) if "semicolons" in encoding else SECRET
    found = views(PROSE.format(SIMPLE[encoding](secret)))
    assert secret in told(found)
    assert found.complete


def test_morse_leet_and_spaced_letters_are_read() -> None:
    assert "ship the ledger tonight" in told(views(PROSE.format(morse("ship the ledger tonight"))))
    assert "ship the ledger tonight" in told(views(PROSE.format("5h1p 7h3 l3dg3r t0n1gh7")))
    assert "ship the ledger" in told(views(PROSE.format("s h i p  t h e  l e d g e r")))
    assert "ship the ledger" in told(views(PROSE.format("s.h.i.p t.h.e l.e.d.g.e.r")))


def test_russian_is_read_too() -> None:
    assert "синяя тетрадь" in told(views(b64("синяя тетрадь лежит в сейфе".encode())))
    assert "синяя тетрадь" in told(views("синяя тетрадь лежит".encode().hex(" ")))


@given(
    st.text(st.characters(codec="ascii", categories=("L", "Nd", "Zs")), min_size=24, max_size=120),
    st.sampled_from(["base64", "base16", "base32", "gzip", "percent"]),
)
def test_any_plain_text_is_read_back(text: str, encoding: str) -> None:
    encoded = SIMPLE[encoding]("note: " + text)
    assert ("note: " + text).rstrip() in told(views("id=" + encoded + "\nend"))


@pytest.mark.parametrize(
    "text",
    [
        PROSE.format("Thanks."),
        "Die größte Überraschung kam während der Übergabe; siehe Anlage 4 (Seite 12) und 2026-01-02 10:11:12.",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 and 550e8400-e29b-41d4-a716-446655440000",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "def createCustomerInvoiceRecord(self, customer_id: int) -> InvoiceRecordResponse: return self.store.find()",
        "/usr/local/lib/python3.11/site-packages/internationalisation/handlers and https://example.com/blog/how-we-moved-on",
        '{"id": 10442, "status": "delivered", "items": [1, 2, 3], "price": 10.25, "at": "2026-01-02T10:00:00Z"}',
        "name,amount\n" + "\n".join(f"customer {row},{row * 17 % 991}.50" for row in range(60)),
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n- - - - - - - - - -\n. . . . . . . . . . .",
        "👩‍👧 شكرا جزيلا, Việt Nam, спасибо за посылку, 謝謝",
        "Server r2d2 and room b04 are back up, 3rd floor, 2nd door, 7pm",
        "phones: 020 7946 0958, 030 123456, 0800 111 222, 12 34 56 78 90",
        "AKIAIOSFODNN7EXAMPLE is a key's name and createUserAccount2 is another",
    ],
)
def test_ordinary_text_gives_nothing(text: str) -> None:
    assert views(text) == Views()


def test_binary_gives_nothing() -> None:
    png = b"\x89PNG\r\n\x1a\n" + random.Random(3).randbytes(3000)
    assert views("data:image/png;base64," + b64(png)) == Views()


def test_entities_and_percent_signs_of_ordinary_text_are_resolved_once() -> None:
    found = views("<p>Caf&#233; menu &amp; prices</p>, 50%25%20off")
    assert [view.how for view in found.views] == [("html", "percent")]
    assert "Café menu & prices" in found.views[0].text
    assert "50% off" in found.views[0].text


# --- places


def test_a_view_says_where_it_comes_from_and_how() -> None:
    encoded = b64(b64(SECRET.encode()).encode())
    text = f"Ref \u200b\u200b: {encoded} and so on"
    once, twice = views(text).views
    assert (once.how, twice.how) == (("base64",), ("base64", "base64"))
    for view in (once, twice):
        assert text[view.start : view.end] == encoded
    assert twice.text == SECRET


def test_two_runs_are_two_views() -> None:
    first, second = b64(b"the first of the two secrets"), b"and here is the second".hex()
    text = f"{first} -- {second}"
    assert sorted((text[view.start : view.end], view.text) for view in views(text).views) == sorted(
        [(first, "the first of the two secrets"), (second, "and here is the second")]
    )


# --- bounds


def test_deeper_than_allowed_is_not_complete() -> None:
    text = SECRET
    for _ in range(4):
        text = b64(text.encode())
    found = views(text)
    assert len(found.views) == 3
    assert not found.complete
    assert views(text, depth=4).complete


def test_more_views_than_the_budget_are_not_complete() -> None:
    text = "\n\n".join(f"({b64((f'message number {number} ' * 40).encode())})" for number in range(12))
    assert views(text).complete
    found = views(text, budget=5)
    assert len(found.views) == 5
    assert not found.complete


def test_a_budget_of_nothing_still_tells_plain_from_encoded() -> None:
    assert views(PROSE, budget=0) == Views()
    assert views(b64(SECRET.encode()), budget=0) == Views((), complete=False)


def test_many_small_tokens_cost_few_views_and_all_are_read() -> None:
    tokens = [b64(f"token number {number} of many".encode()) for number in range(200)]
    found = views(" (x) ".join(tokens))
    assert found.complete
    assert len(found.views) <= 12
    assert all(f"token number {number} of many" in told(found) for number in range(200))


@pytest.mark.parametrize(
    "packer", [gzip.compress, zlib.compress, bz2.compress, lzma.compress, zstandard.compress, zipped]
)
def test_a_bomb_is_opened_only_up_to_the_bound(packer: Callable[[bytes], bytes]) -> None:
    bomb = b64(packer(b"all work and no play " * 60_000))
    found = views(bomb, budget=4, size=1000)
    assert not found.complete
    assert sum(len(view.text) for view in found.views) <= 4 * 1000


def test_a_long_reading_becomes_overlapping_views() -> None:
    text = " ".join(f"line {number} of the ledger" for number in range(4000))
    found = views(b64(gzip.compress(text.encode())), size=5000)
    assert found.complete is (len(text) <= 32 * 4700)
    assert all(len(view.text) <= 5000 for view in found.views)
    assert found.views[0].text[-256:] == found.views[1].text[:256]


HOSTILE = {
    "base64": b64(random.Random(4).randbytes(48_000)),
    "base64 tokens": " ".join(b64(random.Random(seed).randbytes(15)) for seed in range(3000)),
    "base64 lines": grouped(b64(random.Random(5).randbytes(48_000)), 76, "\n"),
    "base64 fours": grouped(b64(random.Random(5).randbytes(38_000)), 4),
    "base16": random.Random(6).randbytes(32_000).hex(),
    "base16 pairs": random.Random(6).randbytes(21_000).hex(" "),
    "base32 letters": "abcdefgh" * 8000,
    "ascii85": base64.a85encode(random.Random(7).randbytes(50_000)).decode(),
    "punctuation": "!#$%&()*" * 8000,
    "digits": "".join(random.Random(8).choices("0123456789", k=64_000)),
    "numbers": " ".join(str(number % 256) for number in range(18_000)),
    "bits": "".join(random.Random(9).choices("01", k=64_000)),
    "percent": "%41" * 21_000,
    "percent signs": "%" * 64_000,
    "ampersands": "&" * 64_000,
    "entities": "&#73;" * 13_000,
    "backslashes": "\\" * 64_000,
    "equals": "=41" * 21_000,
    "leet": "l33t w0rd " * 6400,
    "spaced": "a " * 32_000,
    "morse": ".- " * 21_000,
    "slashes": "/" * 64_000,
    "dashes": "-" * 64_000,
    "underscored": "abc_def-" * 8000,
    "openings": "<~" * 32_000,
    "zeros": "0x00" * 16_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_stays_within_the_budget(kind: str) -> None:
    found = views(HOSTILE[kind])
    assert len(found.views) <= 32
    assert sum(len(view.text) for view in found.views) <= 32 * 20_000
    assert views(HOSTILE[kind]) == found


ODD = st.text(st.one_of(st.characters(), st.sampled_from("=%&\\#;xu0123456789abcdefABC+/_-<~> \n\u200b")))


@settings(max_examples=200)
@given(ODD)
def test_any_text_is_taken(text: str) -> None:
    found = views(text)
    for view in found.views:
        assert 0 <= view.start < view.end <= len(text)
    shifted(text)
    assert 0 <= density(text) <= 1
    assert 0 <= legible(text) <= 1


@given(
    st.binary(max_size=400),
    st.sampled_from(["", "\x1f\x8b\x08", "x\x9c", "BZh9", "\xfd7zXZ\x00", "(\xb5/\xfd", "PK\x03\x04"]),
)
def test_any_bytes_are_taken(data: bytes, magic: str) -> None:
    views(b64(magic.encode("latin-1") + data))
    views((magic.encode("latin-1") + data).hex())


# --- shifts, language, density


def test_shifted_letters_and_reversed_text_are_read() -> None:
    assert SECRET in [view.text for view in shifted(codecs.encode(SECRET, "rot13"))]
    assert SECRET in [view.text for view in shifted(SECRET[::-1])]
    small = SECRET.lower()
    for turn in range(1, 26):
        moved = "".join(chr((ord(char) - 97 + turn) % 26 + 97) if char.islower() else char for char in small)
        assert small in [view.text for view in shifted(moved)]
    mirrored = "".join(chr(219 - ord(char)) if char.islower() else char for char in SECRET)
    assert any(view.text.startswith("the ledger of pier nine") for view in shifted(mirrored))


@pytest.mark.parametrize(
    "text",
    [
        "Please have the parcels ready before noon, the driver will not wait for long.",
        "Bitte bestätigen Sie die Lieferung der Pakete bis morgen Mittag beim Fahrer.",
        "Por favor confirme la entrega de los paquetes antes de la reunión del martes.",
        "Veuillez confirmer la livraison des colis avant la réunion de mardi matin.",
        "Per favore confermi la consegna dei pacchi prima della riunione di domani.",
        "Gelieve de levering van de pakketten voor morgenmiddag te bevestigen.",
    ],
)
def test_prose_is_legible_and_its_shifts_are_not(text: str) -> None:
    assert legible(text) > 0.5
    assert legible(codecs.encode(text, "rot13")) < 0.35
    assert density(text * 4) < 0.5


def test_encoded_bytes_are_dense_wherever_they_stand() -> None:
    data = random.Random(10).randbytes(300)
    for dense in (b64(data), data.hex(), base64.b32encode(data).decode(), base64.b85encode(data).decode()):
        assert density(dense) > 0.75
        assert density(PROSE * 40 + dense + PROSE * 40) > 0.75
    for plain in (
        PROSE * 40,
        html.escape(PROSE) * 9,
        '{"id": 10, "name": "x", "price": 1.25},' * 30,
        "a" * 900,
        "ab" * 900,
    ):
        assert density(plain) < 0.65
    assert density("请确认星期二的包裹投递地址和门牌号码" * 30) == 0
