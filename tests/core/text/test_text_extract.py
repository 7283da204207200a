"""Destinations: found in every spelling, in one canonical form, and nothing taken for one that is none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from sidecar.core.text import extract, hosts
from sidecar.core.text.extract import LIMIT, destinations, looks_like, registrable


def found(text: str, field: str = "arguments.body") -> list[tuple[str, str, str]]:
    return [(one.kind, one.address, text[one.start : one.end]) for one in destinations(field, text)]


def addresses(text: str, field: str = "arguments.body") -> list[tuple[str, str]]:
    return [(one.kind, one.address) for one in destinations(field, text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to Dana.Whit@Corp.Example, today", [("mail", "dana.whit@corp.example", "Dana.Whit@Corp.Example")]),
        ('"Dana W" <dana@corp.example>', [("mail", "dana@corp.example", "dana@corp.example")]),
        ("(dana@corp.example)", [("mail", "dana@corp.example", "dana@corp.example")]),
        ("dana+list@sub.corp.co.uk.", [("mail", "dana+list@sub.corp.co.uk", "dana+list@sub.corp.co.uk")]),
        ('"odd name"@corp.example', [("mail", '"odd name"@corp.example', '"odd name"@corp.example')]),
        ("x@[192.168.0.7]", [("mail", "x@192.168.0.7", "x@[192.168.0.7]")]),
        ("post@münchen.de", [("mail", "post@xn--mnchen-3ya.de", "post@münchen.de")]),
        ("почта@пример.рф", [("mail", "почта@xn--e1afmkfd.xn--p1ai", "почта@пример.рф")]),
        ("user＠full。example", [("mail", "user@full.example", "user＠full。example")]),
        ("ev\u200bil@exa\u00admple.net", [("mail", "evil@example.net", "ev\u200bil@exa\u00admple.net")]),
        ("name (at) host (dot) example", [("mail", "name@host.example", "name (at) host (dot) example")]),
        ("name[at]host[.]example", [("mail", "name@host.example", "name[at]host[.]example")]),
        ("reach me: john at corp dot example", [("mail", "john@corp.example", "john at corp dot example")]),
        ("see evil[.]example", [("host", "evil.example", "evil[.]example")]),
        ("see https://Web.Example/a?b=1.", [("url", "web.example", "https://Web.Example/a?b=1")]),
        ("(https://web.example/x_(y))", [("url", "web.example", "https://web.example/x_(y)")]),
        ("[t](https://web.example/x)", [("url", "web.example", "https://web.example/x")]),
        ("![p](//t.web.example/i.png?d=secret)", [("host", "t.web.example", "t.web.example/i.png?d=secret")]),
        ("<img src='https://t.example/i.png'>", [("url", "t.example", "https://t.example/i.png")]),
        ('{"u":"https:\\/\\/web.example\\/a"}', [("url", "web.example", "https:\\/\\/web.example\\/a")]),
        ("https://good.example@evil.example/x", [("url", "evil.example", "https://good.example@evil.example/x")]),
        ("https://user:pw@evil.example:8443/", [("url", "evil.example", "https://user:pw@evil.example:8443/")]),
        ("http://0x7f000001/", [("url", "127.0.0.1", "http://0x7f000001/")]),
        ("http://3232235521:80/a", [("url", "192.168.0.1", "http://3232235521:80/a")]),
        ("http://0300.0250.1/", [("url", "192.168.0.1", "http://0300.0250.1/")]),
        ("http://[2001:DB8::1]:80/", [("url", "2001:db8::1", "http://[2001:DB8::1]:80/")]),
        ("http://[::ffff:10.0.0.1]/", [("url", "10.0.0.1", "http://[::ffff:10.0.0.1]/")]),
        ("http://ev%69l.example/", [("url", "evil.example", "http://ev%69l.example/")]),
        ("wss://live.example/s", [("url", "live.example", "wss://live.example/s")]),
        ("visit www.shop.it/sale now", [("host", "www.shop.it", "www.shop.it/sale")]),
        ("upload to files.example:8080", [("host", "files.example", "files.example:8080")]),
        ("ask depot.example.net", [("host", "depot.example.net", "depot.example.net")]),
        ("ping 192.168.1.10 now", [("host", "192.168.1.10", "192.168.1.10")]),
        ("ask 10.0.0.1:53", [("host", "10.0.0.1", "10.0.0.1:53")]),
        ("route fe80::1ff:fe23:4567:890a", [("host", "fe80::1ff:fe23:4567:890a", "fe80::1ff:fe23:4567:890a")]),
        ("DE89 3704 0044 0532 0130 00 and", [("account", "DE89370400440532013000", "DE89 3704 0044 0532 0130 00")]),
        ("to gb82west12345698765432.", [("account", "GB82WEST12345698765432", "gb82west12345698765432")]),
        ("call +44 20 7946 0958.", [("phone", "+442079460958", "+44 20 7946 0958")]),
        ("call 0049 (30) 901820", [("phone", "+4930901820", "0049 (30) 901820")]),
        ("call (555) 234-5678", [("phone", "5552345678", "(555) 234-5678")]),
        ("s3://My-Bucket/key", [("bucket", "s3://my-bucket", "s3://My-Bucket/key")]),
        ("gs://stock/a b", [("bucket", "gs://stock", "gs://stock/a")]),
        ("git@code.example:t/tool.git", [("repository", "code.example/t/tool", "git@code.example:t/tool.git")]),
        ("ssh://git@code.example/t/x.git", [("repository", "code.example/t/x", "ssh://git@code.example/t/x.git")]),
        ("https://code.example/T/X.git", [("repository", "code.example/t/x", "https://code.example/T/X.git")]),
        ("scp notes.txt bob@drop.example:/tmp", [("host", "drop.example", "bob@drop.example")]),
        ("hey <@U12AB> in <#C34|ops>", [("handle", "@u12ab", "<@U12AB>"), ("channel", "#c34", "<#C34|ops>")]),
    ],
)  # fmt: skip
def test_a_destination_is_found_with_its_place(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert found(text) == expected


def test_several_readings_of_one_place_are_all_told() -> None:
    assert set(addresses("https://good.example\\@evil.example/x")) == {("url", "good.example"), ("url", "evil.example")}
    assert set(addresses("https://go.example/?u=https%3A%2F%2Fevil.example%2Fz")) == {
        ("url", "go.example"),
        ("url", "evil.example"),
    }
    assert set(addresses("mailto:a%40b.example?cc=c@d.example&bcc=e@f.example")) == {
        ("mail", "a@b.example"),
        ("mail", "c@d.example"),
        ("mail", "e@f.example"),
    }
    assert set(addresses("https://stock.s3.eu-west-1.amazonaws.com/k https://storage.googleapis.com/pile/k")) >= {
        ("bucket", "s3://stock"),
        ("bucket", "gs://pile"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "Good morning, the parcels are packed. The driver comes at 10:30, e.g. by the back door.",
        "main.py, lib.rs, run.sh, README.md and libc.so.6 in /usr/lib/x.co and src/core/text.io",
        "logger.info(user.name); np.array; std::vector<int> a::b; this.is.not it",
        "version 1.2.3 and v1.2.3.4.5, lodash@4.17.21, 12:30:45, 00:1a:2b:3c:4d:5e",
        "DE89 3704 0044 0532 0130 01 is no account, nor is GB82",
        "2026-01-02 10:00:00, 1234567890123456, 3.14159, 50 % - 60 %",
        "@dana and #general in a sentence, C# and a@ b",
        "ratio 1::2 and :: and ::1, order 12 0044 0532 0130 01",
        "",
    ],
)
def test_what_is_no_destination_is_left(text: str) -> None:
    assert addresses(text) == []


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("arguments.channel", "General", [("channel", "#general")]),
        ("arguments.to", "#ops-night", [("channel", "#ops-night")]),
        ("arguments.to", "@bob", [("handle", "@bob")]),
        ("arguments.phone", "0171 123 45 67", [("phone", "01711234567")]),
        ("arguments.host", "vault-2", [("host", "vault-2")]),
        ("arguments.target", " corriere.it ", [("host", "corriere.it")]),
        ("arguments.path", "main.py", []),
        ("arguments.text", "hello", []),
    ],
)
def test_a_bare_text_is_what_its_form_or_its_field_says(field: str, text: str, expected: list[tuple[str, str]]) -> None:
    assert addresses(text, field) == expected


def test_each_address_is_told_once_where_it_stands_first() -> None:
    text = "a@b.example, A@B.example, https://b.example/1 https://b.example/2"
    assert found(text) == [("mail", "a@b.example", "a@b.example"), ("url", "b.example", "https://b.example/1")]


def test_names_beyond_ascii_are_registrable_as_the_suffix_list_has_them() -> None:
    theirs = PublicSuffixList()
    rules = [rule.strip("!*.") for rule in sorted(theirs._publicsuffix) if "xn--" in rule]
    assert len(rules) > 400
    for rule in rules:
        for host in (rule, f"shop.{rule}", f"www.shop.{rule}"):
            assert registrable(host) == (theirs.privatesuffix(host) or host)
            assert hosts.is_top_level(rule) == (theirs.publicsuffix(rule, accept_unknown=False) is not None)


@pytest.mark.parametrize("host", ["a.xn--co-.uk", "a.b.xn--80Ak6Aa92E.com".lower(), "a.xn--.com", "xn--co-.uk"])
def test_a_label_in_odd_idna_form_is_no_suffix(host: str) -> None:
    assert registrable(host) == (PublicSuffixList().privatesuffix(host) or host)


def test_domains_are_registrable() -> None:
    assert [one.domain for one in destinations("f", "a@x.y.corp.co.uk https://u.pages.example.com 10.1.2.3")] == [
        "corp.co.uk",
        "example.com",
        "10.1.2.3",
    ]
    assert registrable("A.B.github.io") == "b.github.io"
    assert registrable("co.uk") == "co.uk"
    assert registrable("vault") == "vault"
    assert registrable("[2001:db8::1]") == "2001:db8::1"


def test_more_than_the_limit_is_cut_and_told() -> None:
    text = " ".join(f"u{number}@h{number}.example" for number in range(LIMIT + 50))
    cut = extract.extract("f", text)
    assert len(cut.destinations) == LIMIT
    assert not cut.complete
    assert extract.extract("f", text[: text.index("u200@")]).complete


@pytest.mark.parametrize(
    "unit",
    ["@", "a@a", "a.", "a.example ", "http://", "http://a ", "1 ", ":", "1::1 ", "de89 ", "DE89370400440532013001 ",
     ")", ".", " dot a", '"@', "x(at)", "mailto:", "https://a@", "[.]", "\\/", "+1", "a-", "<@", "://", "é.", "xn--"],
)  # fmt: skip
def test_hostile_text_is_bounded(unit: str) -> None:
    text = unit * (65_536 // len(unit))
    assert len(extract.extract("f", text).destinations) <= LIMIT
    assert len(extract.extract("f", "http://a.example/" + text).destinations) <= LIMIT


ODD = st.lists(
    st.one_of(
        st.characters(),
        st.sampled_from(
            ["@", ".", ":", "/", "//", "://", "http", "mailto:", "[", "]", "(at)", " dot ", "xn--", "DE89", "+", "%40"]
        ),
        st.sampled_from(["a", "example", ".com", "1", "0x", "\\", "<", ">", "#", "é", "。", "\u200b", "\ud800", "::"]),
    ),
    max_size=60,
).map("".join)


@settings(max_examples=300)
@given(ODD, st.sampled_from(["f", "a.host", "a.channel", "a.phone"]))
def test_any_text_is_taken_and_places_lie_within_it(text: str, field: str) -> None:
    for one in destinations(field, text):
        assert 0 <= one.start < one.end <= len(text)
        assert one.address
        assert one.field == field
        one.address.encode()


@given(st.from_regex(r"\A[a-z]{1,10}(\.[a-z]{1,10})?\Z"), st.from_regex(r"\A[a-z]{2,12}\Z"), ODD)
def test_an_address_is_found_between_anything_that_ends_it(local: str, name: str, around: str) -> None:
    text = f"{around}\n<{local}@{name}.example>\n{around}"
    assert ("mail", f"{local}@{name}.example") in addresses(text) or not extract.extract("f", text).complete


def test_nothing_is_fetched() -> None:
    program = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from sidecar.core.text.extract import destinations, registrable\n"
        "assert registrable('mail.corp.co.uk') == 'corp.co.uk'\n"
        "assert destinations('f', 'a@b.example https://c.d.example')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_suffix_list_is_loaded_when_it_is_first_needed() -> None:
    program = (
        "import sys\nimport sidecar.core.text.extract as e\nassert 'publicsuffixlist' not in sys.modules\n"
        "e.registrable('a.example')\nassert 'publicsuffixlist' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- hosts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("Example.COM.", "example.com"),
        ("faß.de", "xn--fa-hia.de"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("256.1.1.1", ""),
        ("1.2.3.4.5", ""),
        ("4294967296", ""),
        ("a..b", ""),
        ("a b", ""),
        ("a/b", ""),
        ("x" * 64 + ".example", ""),
        (".".join(["abcdefgh"] * 40), ""),
        ("", ""),
    ],
)
def test_hosts_have_one_spelling(host: str, expected: str) -> None:
    assert hosts.canonical(host) == expected


@given(ODD)
def test_any_host_is_taken(host: str) -> None:
    plain = hosts.canonical(host)
    assert plain.isascii()
    assert hosts.canonical(plain) == plain
    hosts.spelled(plain)
    registrable(host)


OWN = "northwind.com"


@pytest.mark.parametrize(
    ("other", "least", "most"),
    [
        ("northwind.com", 0, 0),
        ("mail.northwind.com", 0, 0),
        ("contoso.net", 0, 0),
        ("n0rthwind.com", 1, 1),
        ("nоrthwind.com", 1, 1),
        ("northwind.com.evil.net", 1, 1),
        ("northvvind.com", 1, 1),
        ("nortwhind.com", 0.9, 0.9),
        ("northwind.co", 0.9, 0.9),
        ("north-wind.com", 0.9, 0.9),
        ("northwinds.com", 0.9, 0.9),
        ("nerthwint.com", 0.75, 0.75),
        ("northwind-login.net", 0.8, 0.8),
        ("northwind.evil.net", 0.8, 0.8),
        ("north.wind.evil.net", 0.8, 0.8),
    ],
)
def test_look_alike_domains(other: str, least: float, most: float) -> None:
    assert least <= looks_like(OWN, other) <= most
    assert looks_like(OWN, other) == looks_like(other, OWN)


def test_look_alike_domains_in_punycode() -> None:
    assert looks_like("apple.com", "xn--80ak6aa92e.com") == 1


def test_look_alike_mailboxes() -> None:
    own = "dana.whitlock@corp.example"
    assert looks_like(own, own) == looks_like(own, "dana.whitlock+x@corp.example") == 0
    assert looks_like(own, "dana.whit1ock@corp.example") == 0.9
    assert looks_like(own, "danawhitlock@corp.example") == 0.8
    assert looks_like(own, "dana.whitlock@mail.example") == 0.5
    assert looks_like(own, "dana.whitlock@c0rp.example") == 1
    assert looks_like(own, "omar.reyes@corp.example") == 0
    assert looks_like("dana@corp.example", "dina@corp.example") == 0


@given(ODD, ODD)
def test_any_two_names_can_be_compared(a: str, b: str) -> None:
    assert 0 <= looks_like(a, b) <= 1
    assert looks_like(a, a) == 0
