"""Folding: disguised text becomes plain, genuine text of any script stays itself, and places can be told."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.text import look_alikes, normalise
from sidecar.core.text.normalise import bare, clean, fold, hidden, separator_free, skeleton, visible, well_formed

PLAIN = "the courier leaves at noon with the sealed ledger"

CYRILLIC = str.maketrans("aeocpxyis", "аеосрхуіѕ")
GREEK = str.maketrans("aoviup", "αονιυρ")
SMALL_CAPITALS = str.maketrans("abcdefghijklmnoprstuvwz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡᴢ")


def between(text: str, sign: str) -> str:
    return sign.join(text)


def shifted(text: str, first: int, base: str = "a") -> str:
    return "".join(chr(first + ord(char) - ord(base)) if char.isalpha() else char for char in text)


@pytest.mark.parametrize(
    ("disguise", "text"),
    [
        ("Cyrillic letters", PLAIN.translate(CYRILLIC)),
        ("Greek letters", PLAIN.translate(GREEK)),
        ("zero-width spaces", between(PLAIN, "\u200b")),
        ("word joiners", between(PLAIN, "\u2060")),
        ("soft hyphens", between(PLAIN, "\u00ad")),
        ("combining grapheme joiners", between(PLAIN, "\u034f")),
        ("Hangul fillers", between(PLAIN, "\u115f")),
        ("variation selectors", between(PLAIN, "\ufe01")),
        ("tag characters", between(PLAIN, "\U000e0041")),
        ("left-to-right marks", between(PLAIN, "\u200e")),
        ("control characters", between(PLAIN, "\x00")),
        ("backspaces", between(PLAIN, "\x08")),
        ("C1 controls", between(PLAIN, "\x99")),
        ("private use", between(PLAIN, "\ue123")),
        ("unassigned", between(PLAIN, "\U000d1234")),
        ("capitals", PLAIN.upper()),
        ("fullwidth", shifted(PLAIN, 0xFF41)),
        ("mathematical bold", shifted(PLAIN, 0x1D41A)),
        ("mathematical monospace", shifted(PLAIN, 0x1D68A)),
        ("circled", shifted(PLAIN, 0x24D0)),
        ("circled on black", shifted(PLAIN, 0x1F150)),
        ("squared on black", shifted(PLAIN, 0x1F170)),
        ("regional indicators", shifted(PLAIN, 0x1F1E6)),
        ("small capitals", PLAIN.translate(SMALL_CAPITALS)),
        ("three marks a letter", "".join(char + "\u0300\u0301\u0302" * char.isalpha() for char in PLAIN)),
        ("struck through", "".join(char + "\u0336" * char.isalpha() for char in PLAIN)),
        ("enclosing circles", "".join(char + "\u20dd" * char.isalpha() for char in PLAIN)),
        ("foreign vowel signs", "".join(char + "\u0941" * char.isalpha() for char in PLAIN)),
        ("no-break spaces", PLAIN.replace(" ", "\u00a0")),
        ("ideographic spaces", PLAIN.replace(" ", "\u3000")),
        ("blank Braille cells for spaces", PLAIN.replace(" ", "\u2800")),
        ("wide Hangul fillers for spaces", PLAIN.replace(" ", "\u3164")),
        ("blank Braille cells between letters", between("ledger", "\u2800").join(PLAIN.split("ledger"))),
        ("override of direction", "\u202e" + PLAIN),
    ],
)
def test_a_disguise_is_folded_away(disguise: str, text: str) -> None:
    assert fold(text).text == PLAIN


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("Russian", "он сказал, что у нас рано утром соберутся все соседи, а сор уберут до ноября"),
        ("Ukrainian", "їхній сусід поїхав до києва і повернеться у суботу"),
        ("Bulgarian", "утре сутринта ще дойдат всички хора от офиса"),
        ("Greek", "για αυτο το θέμα θα μιλήσουμε αύριο το πρωί με τον υπεύθυνο"),
        ("Armenian", "վաղը առավոտյան կհանդիպենք գրասենյակում"),
        ("Georgian", "ხვალ დილით შევხვდებით ოფისში"),
        ("German", "die größte überraschung kam während der übergabe der schlüssel"),
        ("French", "l'élève reçoit la lettre où il a été noté"),
        ("Vietnamese", "việc giao hàng được dời sang chiều thứ ba tại đà nẵng"),
        ("Turkish", "bugün öğleden sonra görüşürüz"),
        ("Polish", "proszę o potwierdzenie adresu przesyłki"),
        ("Arabic", "تم تأكيد موعد التسليم يوم الثلاثاء"),
        ("Hebrew with points", "שָׁלוֹם לְכֻלָּם"),
        ("Persian", "می‌خواهم کتاب‌ها را ببینم".replace("\u200c", "")),
        ("Hindi", "कृपया मंगलवार को पता पुष्टि करें और ज़ें लिखें"),
        ("Thai", "กรุณายืนยันที่อยู่ภายในวันอังคาร"),
        ("Chinese", "请确认星期二的包裹"),
        ("Japanese", "ガイドブックを確認してください"),
        ("Korean", "화요일까지 주소를 확인해 주세요"),
    ],
)
def test_genuine_text_stays_itself(language: str, text: str) -> None:
    expected = text.replace("ß", "ss").replace("ı", "i")
    folded = fold(text)
    assert (folded.text, folded.mixed, folded.marks, folded.invisible) == (
        unicodedata.normalize("NFC", expected),
        0,
        0,
        0,
    )
    assert hidden(text) == ()


def test_a_disguised_word_is_found_in_english_and_a_true_one_left_in_russian() -> None:
    assert fold("please сору the file").text == "please copy the file"
    russian = "сосед видит, как рано утром сор уносит ветер"
    assert fold(russian).text == russian
    both = fold(
        "The minutes: please сору the list today. " + "Вот список жильцов нашего дома: сор, рак, нос. " * 3
    ).text
    assert "please copy the list" in both
    assert "сор, рак, нос" in both


def test_a_name_of_look_alikes_alone_is_folded() -> None:
    assert fold("аррӏе").text == "apple"


@pytest.mark.parametrize(
    "text",
    [
        "family 👨‍👩‍👧‍👦 and ❤️ and 🏳️‍🌈",
        "hands 🤝🏽 and 👩🏿‍🚀",
        "flags 🇩🇪 🇧🇷 and 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "keys 1️⃣ #️⃣",
        "می‌خواهم کتاب‌ها",
        "क्‍ष",
        "עברית \u200fabc\u200f עברית",
        "葛\U000e0100城",
        "\ufeffbeginning",
        "Nguyễn Thị Hường",
        "naïve café — “quoted” … 5 µm",
    ],
)
def test_what_scripts_and_emoji_call_for_is_not_counted_and_hides_nothing(text: str) -> None:
    folded = fold(text)
    assert (folded.invisible, folded.mixed, folded.marks, folded.overrides) == (0, 0, 0, 0)
    assert hidden(text) == ()


def test_what_is_odd_is_counted() -> None:
    assert fold(between("ledger", "\u200b")).invisible == 5
    assert fold("le\x00dger").invisible == 1
    assert fold("the lеdgеr and the sеаlеd bоx").mixed == 3
    assert fold("l\u0336e\u0336d\u0336").marks == 3
    assert fold("see invoice-\u202excod.exe").overrides == 1


def test_decomposed_and_composed_letters_fold_alike() -> None:
    text = "Việc giao hàng ở Đà Nẵng được xác nhận; größer, élève, čtvrtek, ガイド, ἀρχή"
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert fold(unicodedata.normalize(form, text)).text == fold(text).text


@given(
    st.text(alphabet="aeiouydAEIOUYD", min_size=1),
    st.lists(st.sampled_from("\u0300\u0301\u0302\u0303\u0306\u0309\u031b\u0323"), max_size=2),
)
def test_two_marks_compose_as_unicode_composes_them(letters: str, marks: list[str]) -> None:
    composed = unicodedata.normalize("NFC", letters + "".join(marks)).casefold()
    if not any(unicodedata.combining(char) for char in composed):
        assert fold(letters + "".join(marks)).text == unicodedata.normalize("NFC", composed)


def test_quotes_dashes_and_digits_become_plain() -> None:
    assert fold("“it’s” – № ١٢٣ ４５ … ½").text == '"it\'s" - no 123 45 ... 1/2'


HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=("Mn", "Me", "Cf", "Cs", "Co", "Cn")),
        st.sampled_from("abcАВСαβ\u200b\u0301\u0336ß\ufb03\u2800\u3164\U000e0041\ufe0f👩\u200d\x00 \n"),
    )
)


@given(HOSTILE)
def test_any_text_folds_and_every_place_maps_into_it(text: str) -> None:
    for view in (fold, clean, visible):
        folded = view(text)
        folded.text.encode()
        places = [folded.original(at) for at in range(len(folded.text) + 1)]
        assert places == sorted(places)
        assert all(0 <= place < len(text) for place in places[:-1])
        assert places[-1] == folded.size == len(text)
    hidden(text)


@given(st.lists(HOSTILE, max_size=6))
def test_places_point_at_the_words_that_were_found(pieces: list[str]) -> None:
    text = " ledger ".join(["", *pieces, ""])
    folded = fold(text)
    at = -1
    while (at := folded.text.find("ledger", at + 1)) >= 0:
        start, end = folded.original(at), folded.original(at + 5) + 1
        assert fold(text[start:end]).text == "ledger"


@given(HOSTILE)
def test_case_is_all_that_fold_takes_from_what_clean_leaves_of_ascii(text: str) -> None:
    plain = text.encode("ascii", "ignore").decode()
    assert clean(plain).text.lower() == fold(plain).text == visible(plain).text.lower()


def test_look_alikes_stay_in_the_view_for_addresses() -> None:
    assert visible("user＠раураӏ．com\u200b").text == "user@раураӏ.com"


@given(HOSTILE)
def test_bare_keeps_places_and_separator_free_keeps_letters(text: str) -> None:
    folded = fold(text).text
    assert len(bare(folded)) == len(folded)
    assert all(char.isalnum() or unicodedata.category(char)[0] in "MN" for char in separator_free(folded))


def test_bare_drops_accents_and_separator_free_all_but_letters_and_digits() -> None:
    assert bare(fold("Thë bóárd ørder łatwy").text) == "the board order latwy"
    assert separator_free(fold("Ke-y: 7F.3k/ü_Ж").text) == "key7f3küж"


@given(HOSTILE)
def test_lone_surrogates_become_replacement_characters_one_for_one(text: str) -> None:
    formed = well_formed(text)
    formed.encode()
    assert len(formed) == len(text)
    assert well_formed("a\ud800b\udfff") == "a\ufffdb\ufffd"


# --- hidden channels

SECRET = "meet me at pier 9"


def as_tags(text: str) -> str:
    return "".join(chr(0xE0000 + ord(char)) for char in text)


def as_selectors(text: str) -> str:
    return "".join(chr(0xFE00 + byte if byte < 16 else 0xE0100 + byte - 16) for byte in text.encode())


def as_bits(text: str, zero: str, one: str, width: int = 8, parted: str = "") -> str:
    return parted.join("".join((zero, one)[int(bit)] for bit in f"{ord(char):0{width}b}") for char in text)


def as_pairs(text: str, signs: str) -> str:
    return "".join(signs[(ord(char) >> shift) & 3] for char in text for shift in (6, 4, 2, 0))


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        ("tags", as_tags(SECRET)),
        ("tags in a flag", "🏴" + as_tags(SECRET) + "\U000e007f"),
        ("variation selectors", "😀" + as_selectors(SECRET)),
        (
            "a selector a letter",
            "".join(map("".join, zip("what a lovely day", map(as_selectors, SECRET), strict=True))),
        ),
        ("zero-width bits", as_bits(SECRET, "\u200b", "\u200c")),
        ("zero-width bits turned", as_bits(SECRET, "\u200c", "\u200b")),
        ("seven bits", as_bits(SECRET, "\u200b", "\u2060", 7)),
        ("parted letters", as_bits(SECRET, "\u200b", "\u200c", 8, "\u200d")),
        ("marks of direction", as_bits(SECRET, "\u200e", "\u200f")),
        ("invisible operators in pairs", as_pairs(SECRET, "\u2061\u2062\u2063\u2064")),
        ("pairs in another order", as_pairs(SECRET, "\u200d\u200b\u2060\u200c")),
        (
            "spread over the letters",
            "".join(a + b for a, b in zip("x" * 400, as_bits(SECRET, "\u200b", "\u200c"), strict=False)),
        ),
    ],
)
def test_a_hidden_channel_is_read(channel: str, payload: str) -> None:
    assert SECRET in hidden(f"Thanks, see you soon. {payload} Bye")


def test_many_flags_spelled_in_tags_are_read_as_text() -> None:
    flags = "".join("🏴" + as_tags(part) + "\U000e007f" for part in ("vaul", "tkey", "isun", "dert", "hest", "airs"))
    assert "hestairs" in "".join(hidden(flags))


def test_the_tables_take_what_the_data_says() -> None:
    assert normalise.is_settled("a")
    assert normalise.is_settled("ж")
    assert not normalise.is_settled("A")
    assert not normalise.is_settled("’")
    assert skeleton("modern") == skeleton("modem") == skeleton("мodern")
    assert skeleton("paypal") == skeleton("раураl") == skeleton("paypa1")
    assert skeleton("google") != skeleton("amazon")


def test_the_lists_of_look_alikes_name_each_letter_once_and_plain_ones_only() -> None:
    groups = [look_alikes.KIN, look_alikes.STRAY, look_alikes.LATIN, look_alikes.LOOSE]
    chars = [char for group in groups for listed in group.values() for char in listed]
    assert len(chars) == len(set(chars)) > 400
    assert all(
        target.isascii() and target.isalnum() and target.islower() != target.isdigit()
        for group in groups
        for target in group
    )
    assert not any(map(str.isascii, chars))
