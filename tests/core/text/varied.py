"""A varied set of patterns for tests of pattern sets: literals, classes, repeats, anchors, other scripts."""

from __future__ import annotations

from sidecar.core.text.scan import Pattern

_REGEXES = r"""
(?:akia|asia)[0-9a-z]{16}
gh[pousr]_[0-9a-z]{36}
glpat-[0-9a-z_-]{20}
xox[abprs]-[0-9a-z-]{10,60}
sk_(?:live|test)_[0-9a-z]{24}
aiza[0-9a-z_-]{35}
eyj[0-9a-z_-]{10,}\.eyj[0-9a-z_-]{10,}
-----begin (?:rsa |ec |openssh )?private key
(?:password|passwd|pwd)[ \t]{0,3}[:=][ \t]{0,3}[^ \t\r\n]{4,}
(?:api|secret)[ _-]?key[ \t]{0,3}[:=][ \t]{0,3}["']?[0-9a-z/+=_-]{16}
bearer [0-9a-z._~+/-]{20}
(?:postgres|mysql)(?:ql)?://[^ \t\r\n:@/]{1,20}:[^ \t\r\n:@/]{1,20}@
(?:^|[^0-9a-z])[0-9a-f]{64}(?:[^0-9a-z]|\z)
\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b
\b(?:[0-9]{4}[ -]?){3}[0-9]{4}\b
\b[a-z]{2}[0-9]{2}(?: ?[0-9a-z]{4}){3,7}
[0-9a-z._%+-]+@[0-9a-z-]+(?:\.[0-9a-z-]+)+
\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b
\b(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-[0-3][0-9]\b
(?:unless|if) you (?:do not|don't|refuse)
the (?:board|press)[^.\n]{0,40}(?:will|would) (?:learn|know)
you have (?:until|[0-9]+ (?:hours|minutes))
disable (?:the )?(?:logging|audit)
wenn du nicht
kündig(?:en|ung)
если ты не
(?:утром|вечером).{0,20}опубликую
[а-яё]{3,} [а-яё]{3,}
κάποιοι
私は知っている
你[的地得]秘密
사진을
صور
[à-ÿ]{2}
[\x{1F600}-\x{1F64F}]
[^\x00-\x{7f}]{4}
\Astart
(?:^|\n)line
end\z
a.c
(?s)open.{0,30}close
x{3,5}y
(?:ab|ba){2,}
[^a-z0-9 ]{6}
\w{12}
\W{5}
\d{9}
\D{40}\d
\bword\b
\Bord\B
no\b
(?i)Key[-_]ID
(?i)[A-F]{6}
\.\*\[\]\(\)\{\}
\t\t
q+?r
z*y
(?:l|ll|lll)m
0(?:1(?:2(?:3(?:4(?:5)))))?
""".strip().splitlines()

VARIED = tuple(Pattern(f"p{number:02d}", regex) for number, regex in enumerate(_REGEXES))
