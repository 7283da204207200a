"""What is inside the agent's own organisation: by configuration, else by what trusted words show."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Literal

from sidecar.core.reading import Destination

PERSONAL_MAIL = frozenset(
    """gmail.com googlemail.com outlook.com hotmail.com live.com msn.com yahoo.com yahoo.co.uk yahoo.fr yahoo.de
    ymail.com icloud.com me.com mac.com aol.com proton.me protonmail.com pm.me gmx.com gmx.de gmx.net gmx.at web.de
    t-online.de freenet.de mail.com mail.ru yandex.ru yandex.com qq.com 163.com 126.com sina.com naver.com daum.net
    hanmail.net zoho.com fastmail.com hey.com tutanota.com tuta.com orange.fr wanadoo.fr free.fr laposte.net sfr.fr
    libero.it virgilio.it alice.it tiscali.it telenet.be skynet.be ziggo.nl kpnmail.nl xs4all.nl bluewin.ch
    terra.com.br uol.com.br bol.com.br hotmail.fr hotmail.it hotmail.es hotmail.co.uk rediffmail.com o2.pl wp.pl
    onet.pl interia.pl seznam.cz centrum.cz""".split()  # noqa: SIM905 - one name a line would hide the rest
)
"""Registrable domains of public mail providers: a mailbox there is a person's own, whoever the person works for."""

Relation = Literal["inside", "outside", "personal", "unknown"]


class Organisation:
    """Tells inside from outside.

    Args:
        domains: Registrable domains that are the operator's own; when given, nothing else is inside.
        partners: Registrable domains that count as inside for sending, though not as own.
    """

    def __init__(self, domains: Iterable[str] = (), partners: Iterable[str] = ()) -> None:
        self.domains = frozenset(domain.lower() for domain in domains)
        self.partners = frozenset(domain.lower() for domain in partners)

    def is_personal(self, domain: str) -> bool:
        return domain in PERSONAL_MAIL and domain not in self.domains

    def relation(self, where: Destination, learned: Container[str] = ()) -> Relation:
        """Where a destination stands. `learned`: own domains that trusted words of this session showed.

        Loopback and private addresses are inside; a channel, handle, account or phone number is `unknown`.
        """
        if where.kind in ("channel", "handle", "account", "phone"):
            return "unknown"
        domain = where.domain or where.address
        if domain in self.domains or domain in self.partners:
            return "inside"
        if is_local(where.address):
            return "inside"
        if where.kind == "mail" and self.is_personal(domain):
            return "personal"
        if self.domains:
            return "outside"
        if domain in learned:
            return "inside"
        return "outside" if _some(learned) else "unknown"


def is_local(host: str) -> bool:
    """Whether a host is this machine or a private network."""
    if host in ("localhost", "::1") or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa")):
        return True
    parts = host.split(".")
    if len(parts) != 4 or not all(part.isdigit() and len(part) <= 3 for part in parts):
        return False
    first, second = int(parts[0]), int(parts[1])
    return first in (10, 127) or (first == 192 and second == 168) or (first == 172 and 16 <= second <= 31)


def _some(learned: Container[str]) -> bool:
    return bool(learned)
