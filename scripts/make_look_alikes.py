"""Writes sidecar/core/text/look_alikes.py from Unicode's confusables data, as confusable-homoglyphs ships it.

    python -m venv /tmp/look && /tmp/look/bin/pip install confusable-homoglyphs==3.3.1
    /tmp/look/bin/python scripts/make_look_alikes.py > sidecar/core/text/look_alikes.py

Only single letters and digits that look like one Latin letter or digit are taken. What compatibility decomposition
(NFKC) folds by itself, such as fullwidth or mathematical letters, is left out.
"""

from __future__ import annotations

import json
import string
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

KIN = (
    "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "DESERET", "GEORGIAN", "LISU", "OSAGE", "ELBASAN", "WARANG",
    "CANADIAN", "CARIAN", "LYCIAN", "OLD", "RUNIC", "TIFINAGH", "MIAO", "BAMUM",
)  # fmt: skip
STRAY = ("AHOM", "ETHIOPIC", "MALAYALAM", "MYANMAR", "ORIYA")

# Read as a Latin letter only beside Latin letters. Unicode does not list them, since no font makes them equal.
LOOSE = {
    "a": "λ",
    "b": "вьъβЪЂђ",
    "c": "ςҫ",
    "d": "δ",
    "e": "єэεЄЭ",
    "h": "нњћ",
    "k": "кќқκҡ",
    "m": "мӎ",
    "n": "пийлήηπИЙ",
    "o": "фθ",
    "r": "яЯ",
    "t": "тτ",
    "u": "цμЦ",
    "w": "шщωψШЩѿ",
    "x": "жχЖ",
    "y": "ч",
}

# Latin letters in other dress that NFKC leaves alone: small capitals, circled and squared on black, flag letters.
SMALL_CAPITALS = dict(zip("abcdefghijklmnopqrstuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ", strict=True))
DRESSED = (0x1F150, 0x1F170, 0x1F1E6)


def main() -> None:
    table = json.loads((Path(find_spec("confusable_homoglyphs").origin).parent / "confusables.json").read_text("utf-8"))
    kin: dict[str, list[str]] = {}
    stray: dict[str, list[str]] = {}
    latin: dict[str, list[str]] = {}
    for char, same in sorted(table.items()):
        targets = [entry["c"] for entry in same if entry["c"] in string.ascii_letters + string.digits]
        category = unicodedata.category(char) if len(char) == 1 and ord(char) > 127 else ""
        if len(targets) != 1 or category not in ("Ll", "Lu", "Lo", "Nd"):
            continue
        if unicodedata.normalize("NFKC", char).isascii():
            continue
        script, target = unicodedata.name(char).split()[0], targets[0]
        if category == "Nd" and target.lower() not in ("o", "l"):
            continue  # a digit stays the digit that it is
        # Unicode's prototype for every upright stroke is a small l; a capital of another script is rather an I.
        if target == "l" and category in ("Lu", "Lo") and char not in "Ӏӏ":
            target = "I"
        target = "l" if char in "Ӏӏ" else target
        where = latin if script == "LATIN" else kin if script in KIN else stray
        if where is not stray or category == "Nd" or script in STRAY:
            where.setdefault(target.lower(), []).append(char)
    for letter, char in SMALL_CAPITALS.items():
        latin.setdefault(letter, []).append(char)
    for first in DRESSED:
        for index, letter in enumerate(string.ascii_lowercase):
            latin.setdefault(letter, []).append(chr(first + index))
    out = sys.stdout
    out.write('"""Letters that look like Latin letters or digits.\n\n')
    out.write("Written by scripts/make_look_alikes.py from Unicode's confusables.txt (see UNICODE-LICENSE.txt)\n")
    out.write('and from the lists in that script; not edited by hand.\n"""\n\n')
    write(out, "KIN", kin, "Of scripts that share their letter forms with Latin; the same shape in most fonts.")
    write(out, "STRAY", stray, "Of other scripts; read as Latin only inside a Latin word.")
    write(out, "LATIN", latin, "Latin letters in another dress; always read as the plain letter.")
    known = {char for chars in (*kin.values(), *latin.values()) for char in chars}
    loose = {letter: [char for char in chars if char not in known] for letter, chars in LOOSE.items()}
    write(
        out, "LOOSE", loose, "Of kin scripts, alike to a hurried reader only; read as Latin only inside a Latin word."
    )


def write(out: object, name: str, table: dict[str, list[str]], about: str) -> None:
    print(f"# {about}\n{name} = {{", file=out)
    for letter, chars in sorted(table.items()):
        print(f'    "{letter}": "{"".join(dict.fromkeys(sorted(chars)))}",', file=out)
    print("}" + ("\n" if name != "LOOSE" else ""), file=out)


if __name__ == "__main__":
    main()
