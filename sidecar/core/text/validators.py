"""Whether a number is of the kind that it looks like: check digits and ranges, nothing looked up.

Each takes the text as written, with blanks, dots or dashes between its parts, and refuses what is not ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_SEPARATORS: Final = str.maketrans("", "", " .-\t\u00a0")

# Length of an IBAN by country: SWIFT's IBAN registry.
IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip


def luhn_ok(text: str) -> bool:
    """Payment cards, IMEI and the like: at least two digits with a right Luhn check digit (ISO/IEC 7812-1)."""
    digits = _digits(text)
    if len(digits) < 2:
        return False
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(odd) + sum(2 * digit - 9 * (digit > 4) for digit in even)) % 10 == 0


def card_ok(text: str) -> bool:
    """A payment card: 12 to 19 digits of an issuer in use, not all the same, with a right check digit."""
    digits = _digits(text)
    return 12 <= len(digits) <= 19 and digits[0] in (2, 3, 4, 5, 6) and len(set(digits)) > 1 and luhn_ok(text)


def iban_ok(text: str) -> bool:
    """An IBAN: the country's length, and 1 modulo 97 (ISO 13616)."""
    plain = text.translate(_SEPARATORS).upper()
    if (
        not (plain.isascii() and plain.isalnum())
        or len(plain) != IBAN_LENGTHS.get(plain[:2])
        or not plain[2:4].isdigit()
    ):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def us_ssn_ok(text: str) -> bool:
    """A US social security number that can have been issued (area not 000, 666 or 9xx; no part all zeros)."""
    digits = _digits(text)
    if len(digits) != 9:
        return False
    area, group, serial = _number(digits[:3]), _number(digits[3:5]), _number(digits[5:])
    well_known = (78_05_1120, 219_09_9999, 123_45_6789)  # printed on cards and forms
    return area not in (0, 666) and area < 900 and group > 0 and serial > 0 and _number(digits) not in well_known


def us_routing_ok(text: str) -> bool:
    """A US bank's routing number (ABA): nine digits, weights 3, 7, 1."""
    digits = _digits(text)
    prefix = _number(digits[:2]) if len(digits) == 9 else 99
    issued = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    return issued and any(digits) and _weighted(digits, (3, 7, 1) * 3) % 10 == 0


def uk_nino_ok(text: str) -> bool:
    """A UK national insurance number: prefix in use, six digits, A to D."""
    plain = text.translate(_SEPARATORS).upper()
    if not plain.isascii() or len(plain) != 9 or not plain[:2].isalpha() or not plain[2:8].isdigit():
        return False
    prefix = plain[:2]
    return (
        plain[8] in "ABCD"
        and prefix[0] not in "DFIQUV"
        and prefix[1] not in "DFIOQUV"
        and prefix not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    )


def uk_nhs_ok(text: str) -> bool:
    """A UK NHS number: ten digits, modulo 11."""
    digits = _digits(text)
    return len(digits) == 10 and any(digits) and _weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def de_tax_id_ok(text: str) -> bool:
    """A German tax identification number: eleven digits, one of the first ten repeated (ISO 7064 mod 11, 10)."""
    digits = _digits(text)
    if len(digits) != 11 or digits[0] == 0 or len(set(digits[:10])) not in (8, 9):
        return False
    product = 10
    for digit in digits[:10]:
        product = ((digit + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == digits[10]


def fr_nir_ok(text: str) -> bool:
    """A French social security number (NIR): 13 signs and a key modulo 97; 2A and 2B stand for Corsica."""
    plain = text.translate(_SEPARATORS).upper()
    if len(plain) != 15 or plain[:1] not in "123478":
        return False
    number = plain[:13].replace("2A", "19").replace("2B", "18") if plain[5:7] in ("2A", "2B") else plain[:13]
    if not (number.isascii() and number.isdigit() and plain[13:].isascii() and plain[13:].isdigit()):
        return False
    return 97 - int(number) % 97 == int(plain[13:])


def es_dni_ok(text: str) -> bool:
    """A Spanish identity number (DNI, NIE): eight digits, or X, Y, Z and seven, and a letter."""
    plain = text.translate(_SEPARATORS).upper()
    number = {"X": "0", "Y": "1", "Z": "2"}.get(plain[:1], plain[:1]) + plain[1:8]
    if len(plain) != 9 or not (number.isascii() and number.isdigit()):
        return False
    return plain[8] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def in_aadhaar_ok(text: str) -> bool:
    """An Indian Aadhaar number: twelve digits, not beginning with 0 or 1, Verhoeff check digit."""
    digits = _digits(text)
    if len(digits) != 12 or digits[0] < 2:
        return False
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _dihedral(check, _PERMUTED[place % 8][digit])
    return check == 0


def _dihedral(a: int, b: int) -> int:
    """The product of two symmetries of the pentagon, rotations 0 to 4 and reflections 5 to 9."""
    turn, turned = a % 5, b % 5
    if a < 5:
        return (turn + turned) % 5 + (5 if b >= 5 else 0)
    return (turn - turned) % 5 + (0 if b >= 5 else 5)


def _permutations() -> list[tuple[int, ...]]:
    step = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    rows = [tuple(range(10))]
    for _ in range(7):
        rows.append(tuple(step[digit] for digit in rows[-1]))
    return rows


_PERMUTED: Final = _permutations()


def _digits(text: str) -> list[int]:
    """The digits of `text`, none when there is anything else in it."""
    plain = text.translate(_SEPARATORS)
    return [ord(char) - 48 for char in plain] if plain.isascii() and plain.isdigit() else []


def _number(digits: Sequence[int]) -> int:
    value = 0
    for digit in digits:
        value = value * 10 + digit
    return value


def _weighted(digits: Sequence[int], weights: Sequence[int]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True))
