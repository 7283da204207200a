"""Pattern sets: one answer from both engines, and patterns that could not have one are refused by name."""

from __future__ import annotations

import base64
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from varied import VARIED

from sidecar.core.text import scan
from sidecar.core.text.scan import Pattern, PatternSet, check
from sidecar.errors import ConfigError


@pytest.fixture(scope="module")
def both() -> tuple[PatternSet, PatternSet]:
    return PatternSet(VARIED), PatternSet(VARIED, engine="hyperscan")


# --- refusals


@pytest.mark.parametrize(
    ("regex", "because"),
    [
        ("", "empty text"),
        ("a*", "empty text"),
        ("a|", "empty text"),
        ("(?:a?b?)", "empty text"),
        ("^", "empty text"),
        (r"\b", "without a character"),
        (r"a|\b", "without a character"),
        (".", "nearly every text"),
        (".+", "nearly every text"),
        ("[^\n]", "nearly every text"),
        ("a$", r"\\z"),
        (r"a\s", "vertical tab"),
        (r"\S+a", "vertical tab"),
        (r"[\s]a", "vertical tab"),
        (r"a\v", "x0b"),
        (r"a\Z", r"\\z"),
        (r"\pLx", "versions of Unicode"),
        (r"[\p{Greek}]x", "versions of Unicode"),
        ("(?i)straße", "versions of Unicode"),
        (r"a\Cb", "split"),
        (r"\Qa.b\E", "escaped"),
        (r"(a)\1", "back-references"),
        (r"a\h", "not an escape"),
        (r"a\07", "back-references"),
        (r"\x4", "write"),
        (r"\x{110000}", "no character"),
        (r"\x{d800}", "no character"),
        ("(?=a)b", r"only \(...\)"),
        ("(?P<n>a)", r"only \(...\)"),
        ("a(?i)b", r"only \(...\)"),
        ("(?m)^a", r"only \(...\)"),
        ("a^b", "may begin"),
        ("x(?:^|a)b", "may begin"),
        (r"a\zb", r"follow \\z"),
        (r"(?:a|\z)b", r"follow \\z"),
        (r"(?:a(?:b|\z)|c)d", r"follow \\z"),
        ("(?:^a|b)+", "cannot be repeated"),
        ("a**", "repeats nothing"),
        ("a++", "repeats nothing"),
        ("a{2}{3}", "repeats nothing"),
        (r"\b*a", "repeats nothing"),
        ("+a", "repeats nothing"),
        ("{a}", "repeats nothing"),
        ("a{,3}b", "write"),
        ("a{x}", "write"),
        ("a{2,1}", "RE2"),
        ("a{2000}", "RE2"),
        ("(a", "not closed"),
        ("a)", "closes nothing"),
        ("[a", "not closed"),
        ("[]", "empty class|not closed"),
        ("[[:alpha:]]", "inside a class"),
        ("[z-a]", "RE2"),
        (r"[a-\d]", "RE2"),
        ("a\\", "not an escape"),
        ("x" * 5000, "5000 bytes"),
        (".{0,400}x", "steps"),
        ("(?:[^a]{1,50} ){1,50}", "steps|RE2"),
        ("\ud800", "surrogate"),
        (r"\bяма", "only ASCII"),
        (r"яма\b", "only ASCII"),
        (r"[а-я]\b", "only ASCII"),
        ("AKIA[0-9]{4}", "write 'a'"),
        ("[A-Z]{4}", "write 'a'"),
        ("don’t", 'write "\'"'),
        ("straße", "write 'ss'"),
    ],
)
def test_a_pattern_that_has_no_one_meaning_is_refused_by_name(regex: str, because: str) -> None:
    with pytest.raises(ConfigError, match=because) as refused:
        check([Pattern("good", "good"), Pattern("rule.7", regex)])
    assert refused.value.key == "rule.7"


def test_two_patterns_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two patterns") as refused:
        PatternSet([Pattern("x", "a"), Pattern("x", "b")])
    assert refused.value.key == "x"


def test_patterns_for_text_as_told_may_have_capitals() -> None:
    assert PatternSet([Pattern("key", "AKIA[0-9A-Z]{4}")], folded=False).match("AKIA12BC akia12bc") == ("key",)
    check([Pattern("any case", "(?i)AKIA[0-9A-Z]{4}"), Pattern("not capital", "[^A-Z ]x")])


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="re2 or hyperscan"):
        PatternSet([Pattern("x", "a")], engine="pcre")


def test_without_hyperscan_re2_judges_and_hyperscan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "hyperscan", None)
    patterns = PatternSet([Pattern("x", "a")])
    assert patterns.match("cat") == ("x",)
    with pytest.raises(ConfigError, match="not installed"):
        patterns.compile_hyperscan()


def test_a_pattern_that_hyperscan_alone_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_objection", lambda text, folded: "")
    patterns = PatternSet([Pattern("fine", "a"), Pattern("odd", "a^b")])
    with pytest.raises(ConfigError, match="start anchors") as refused:
        patterns.compile_hyperscan()
    assert refused.value.key == "odd"


# --- one answer


def test_the_varied_set_is_not_trivial(both: tuple[PatternSet, PatternSet]) -> None:
    text = (
        "start glpat-abcdefghij0123456789 password: hunter22 dana@corp.example 10.0.0.1 2026-01-02 unless you refuse "
        "kündigung если ты не κάποιοι 私は知っている 你的秘密 صور àé 😀 abc xxxy abab word key_id .*[](){} end"
    )
    hits = both[0].match(text)
    assert len(hits) > 20
    assert hits == both[1].match(text) == tuple(sorted(hits))
    assert (both[0].engine, both[1].engine) == ("re2", "hyperscan")


CHARACTERS = st.one_of(
    st.characters(),
    st.sampled_from("abcdefxyz0123456789 .-_@:/'\n\r\t\v\f\x00\x1c\x85\u00a0\u2028\u200b"),
    st.sampled_from("éßıİſKàÿяёаΑας私的صÅ😀\U0001f1e9\ud800\udfff\ufeff\U0010ffff"),
    st.sampled_from(["start", "end", "line", "word", "abc", "xxxy", "если ты не", "kündigen", "key_id", "\n"]),
)
HOSTILE = st.lists(CHARACTERS, max_size=80).map("".join)


@settings(max_examples=400)
@given(HOSTILE)
def test_both_engines_agree_on_hostile_unicode(both: tuple[PatternSet, PatternSet], text: str) -> None:
    assert both[0].match(text) == both[1].match(text)


ATOMS = st.sampled_from(
    ["a", "b", "c", "1", " ", ".", "[a-c]", "[^a]", r"\w", r"\W", r"\d", r"\D", "[0-9x]", r"[^\w]", r"\.", r"\n", "é",
     "я", "[а-я]", "[^я]", r"\x{1F600}", r"\x41", "-", "(?:ab|c)", "(?:a|bc|[0-9])"]
)  # fmt: skip
REPEATS = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,3}", "{2,}", "*?", "+?"])
PIECES = st.tuples(st.sampled_from(["", "", "", r"\b", r"\B"]), ATOMS, REPEATS).map("".join)
BRANCHES = st.tuples(
    st.sampled_from(["", "", "", "^", r"\A"]),
    st.lists(PIECES, min_size=1, max_size=5).map("".join),
    st.sampled_from(["", "", "", r"\z", r"\b"]),
).map("".join)
REGEXES = st.tuples(
    st.sampled_from(["", "", "(?i)", "(?s)"]), st.lists(BRANCHES, min_size=1, max_size=3).map("|".join)
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(REGEXES, min_size=1, max_size=4), st.lists(HOSTILE, min_size=1, max_size=8))
def test_both_engines_agree_on_any_pattern_that_is_not_refused(regexes: list[str], texts: list[str]) -> None:
    patterns = []
    for number, regex in enumerate(regexes):
        pattern = Pattern(f"p{number}", regex)
        try:
            alone = PatternSet([pattern], folded=False)
        except ConfigError:
            continue
        try:
            alone.compile_hyperscan()
        except ConfigError as refused:
            if "can never match" not in refused.message or any(map(alone.match, texts)):
                raise
        else:
            patterns.append(pattern)
    re2_set = PatternSet(patterns, folded=False)
    hyperscan_set = PatternSet(patterns, engine="hyperscan", folded=False)
    for text in texts:
        assert re2_set.match(text) == hyperscan_set.match(text), regexes


WORDS = ["the", "parcel", "will", "be", "ready", "for", "dana", "at", "noon"]
PLANTS = ("glpat-0123456789abcdefghij", "dana@corp.example", " 123-45-6789 ", "unless you refuse", "если ты не", "xxxy")


@pytest.mark.parametrize("size", [16_384, 65_536])
@pytest.mark.parametrize("kind", ["base64", "base16", "digits", "prose", "any character"])
def test_what_is_planted_in_dense_text_is_found(both: tuple[PatternSet, PatternSet], kind: str, size: int) -> None:
    chance = random.Random(size)
    text = {
        "base64": lambda: base64.b64encode(chance.randbytes(size)).decode().lower(),
        "base16": lambda: chance.randbytes(size).hex(),
        "digits": lambda: "".join(chance.choices("0123456789", k=size)),
        "prose": lambda: " ".join(chance.choices(WORDS, k=size)),
        "any character": lambda: "".join(map(chr, chance.choices(range(0x20, 0xD000), k=size))),
    }[kind]()[:size]
    for plant in PLANTS:
        expected = PatternSet(VARIED).match(f" {plant} ")
        at = chance.randrange(size)
        planted = f"{text[:at]} {plant} {text[at:]}"
        hits = both[0].match(planted)
        assert expected
        assert set(expected) <= set(hits)
        assert hits == both[1].match(planted)


def test_the_engine_is_swapped_without_a_change_of_answer(both: tuple[PatternSet, PatternSet]) -> None:
    patterns = PatternSet(VARIED)
    text = "password: hunter22, unless you refuse"
    before = patterns.match(text)
    with ThreadPoolExecutor(1) as elsewhere:
        patterns.use(elsewhere.submit(patterns.compile_hyperscan).result())
    assert patterns.engine == "hyperscan"
    assert patterns.match(text) == before
    assert {"p08", "p19"} <= set(before)


def test_an_engine_of_other_patterns_is_not_taken() -> None:
    with pytest.raises(ValueError, match="other patterns"):
        PatternSet([Pattern("x", "a")]).use(PatternSet([Pattern("x", "b")]).compile_hyperscan())


def test_lone_surrogates_count_as_replacement_characters() -> None:
    patterns = [Pattern("odd", "a\ufffdb"), Pattern("question", r"a\?b")]
    for engine in ("re2", "hyperscan"):
        made = PatternSet(patterns, engine=engine)
        assert made.match("a\ud800b") == ("odd",)
        assert made.find("odd", "éa\udfffb") == [(1, 4)]


@pytest.mark.parametrize("engine", ["re2", "hyperscan"])
def test_no_patterns_and_no_text_match_nothing(engine: str) -> None:
    assert PatternSet([], engine=engine).match("anything") == ()
    assert PatternSet(VARIED, engine=engine).match("") == ()


@pytest.mark.parametrize("engine", ["re2", "hyperscan"])
def test_clones_serve_threads_at_once(engine: str) -> None:
    text = " ".join(PLANTS) * 200
    patterns = PatternSet(VARIED, engine=engine)
    expected = patterns.match(text)
    start = threading.Barrier(4)

    def work(own: PatternSet) -> bool:
        start.wait()
        return all(own.match(text) == expected for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [patterns.clone() for _ in range(4)]))


# --- places


def test_places_are_characters_leftmost_first_and_bounded() -> None:
    patterns = PatternSet([Pattern("num", r"\d+"), Pattern("lazy", "a.+?b"), Pattern("group", "(a|b)(c)")])
    text = "Ж12 私 345 😀6"
    assert [text[start:end] for start, end in patterns.find("num", text)] == ["12", "345", "6"]
    assert patterns.find("num", "1 " * 900, limit=3) == [(0, 1), (2, 3), (4, 5)]
    assert len(patterns.find("num", "1 " * 900)) == scan.SPANS_MAX
    assert patterns.find("lazy", "aXbYb") == [(0, 3)]
    assert patterns.find("group", "acbc") == [(0, 2), (2, 4)]


@settings(max_examples=100)
@given(HOSTILE)
def test_a_pattern_has_places_exactly_where_it_matches(both: tuple[PatternSet, PatternSet], text: str) -> None:
    hits = both[0].match(text)
    for pattern in VARIED:
        assert bool(both[0].find(pattern.name, text)) == (pattern.name in hits)


# --- time, as a ratio


def test_dense_text_costs_hyperscan_little_more_than_prose(both: tuple[PatternSet, PatternSet]) -> None:
    chance = random.Random(1)
    prose = " ".join(chance.choices(WORDS, k=20_000))[:65_536]
    dense = base64.b64encode(chance.randbytes(65_536)).decode().lower()[:65_536]

    def cost(text: str) -> float:
        both[1].match(text)
        spent = []
        for _ in range(7):
            begun = time.process_time_ns()
            both[1].match(text)
            spent.append(time.process_time_ns() - begun)
        return min(spent)

    assert cost(dense) < 6 * cost(prose)
