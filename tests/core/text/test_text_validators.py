"""Validators: right numbers pass, and one wrong digit does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.text import validators as v

# Published test numbers and made-up ones, none of them anybody's.
RIGHT: dict[Callable[[str], bool], list[str]] = {
    v.luhn_ok: ["79927398713", "4111 1111 1111 1111", "378282246310005"],
    v.card_ok: ["4111-1111-1111-1111", "5555 5555 5555 4444", "378282246310005", "6011111111111117"],
    v.iban_ok: [
        "DE89 3704 0044 0532 0130 00",
        "gb82west12345698765432",
        "NO93 8601 1117 947",
        "FR1420041010050500013M02606",
    ],
    v.us_ssn_ok: ["536-90-4399", "212 09 9998"],
    v.us_routing_ok: ["021000021", "122105155"],
    v.uk_nino_ok: ["AB 12 34 56 C", "jg103759a"],
    v.uk_nhs_ok: ["943 476 5919", "4010232137"],
    v.de_tax_id_ok: ["86095742719", "65 929 970 489"],
    v.fr_nir_ok: ["2 55 08 14 168 025 38", "1 80 12 2A 004 003 48"],
    v.es_dni_ok: ["12345678Z", "X1234567L", "54362315-K"],
    v.in_aadhaar_ok: ["2341 2341 2346", "9999 4105 7058"],
}

WRONG: dict[Callable[[str], bool], list[str]] = {
    v.luhn_ok: ["79927398710", "0", "", "4111x1111"],
    v.card_ok: ["4111 1111 1111 1112", "0000 0000 0000 0000", "1111111111111117", "42"],
    v.iban_ok: [
        "DE89 3704 0044 0532 0130 01",
        "DE89",
        "XX89370400440532013000",
        "DEXX370400440532013000",
        "DE89३70400440532013000",
    ],
    v.us_ssn_ok: ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "536-90-0000", "078-05-1120", "123"],
    v.us_routing_ok: ["021000022", "000000000", "991000021"],
    v.uk_nino_ok: ["GB 12 34 56 C", "AB 12 34 56 E", "DA123456A", "A1123456A"],
    v.uk_nhs_ok: ["943 476 5918", "0000000000", "943476591"],
    v.de_tax_id_ok: ["86095742710", "06095742719", "11111111111", "12345678901"],
    v.fr_nir_ok: ["2 55 08 14 168 025 39", "9 55 08 14 168 025 38", "2 55 08"],
    v.es_dni_ok: ["12345678A", "W1234567L", "1234567Z"],
    v.in_aadhaar_ok: ["2341 2341 2347", "1341 2341 2346", "23412341234"],
}


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, texts in RIGHT.items() for text in texts])
def test_a_right_number_passes(check: Callable[[str], bool], text: str) -> None:
    assert check(text)


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, texts in WRONG.items() for text in texts])
def test_a_wrong_number_does_not(check: Callable[[str], bool], text: str) -> None:
    assert not check(text)


@pytest.mark.parametrize(
    ("check", "text"),
    [(check, text) for check in RIGHT if check not in (v.us_ssn_ok, v.uk_nino_ok) for text in RIGHT[check]],
)
def test_no_single_wrong_digit_passes(check: Callable[[str], bool], text: str) -> None:
    for at, char in enumerate(text):
        for digit in "0123456789" if char.isdigit() else "":
            assert check(text[:at] + digit + text[at + 1 :]) == (digit == char), (at, digit)


@given(st.sampled_from(list(RIGHT)), st.text(max_size=40) | st.text("0123456789 -.²٣𝟗ABXYZ", max_size=40))
def test_any_text_is_taken(check: Callable[[str], bool], text: str) -> None:
    assert check(text) in (True, False)
