"""A real SMTP server on loopback whose mailbox is in memory: what is in it has been sent."""

from __future__ import annotations

import email
import email.policy
import socket
from collections import Counter
from typing import Any, Self

from aiosmtpd.controller import Controller


class PostOffice:
    """Takes every mail; use it within ``with``.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        delivered: What has been sent, in order.
    """

    def __init__(self) -> None:
        self.delivered: list[email.message.EmailMessage] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._controller = _Controller(self, self._door)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        """Called by aiosmtpd when a mail has come in whole."""
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, email.message.EmailMessage)
        self.delivered.append(mail)
        return "250 delivered"

    def sent_by(self, agent: str) -> list[email.message.EmailMessage]:
        """Mails of one agent."""
        return [mail for mail in self.delivered if _local_part(mail) == agent]

    def senders(self) -> Counter[str]:
        """How many mails each agent has sent."""
        return Counter(map(_local_part, self.delivered))

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


class _Controller(Controller):
    """aiosmtpd's, on a port that the machine chose: its own cannot say which one that was."""

    def __init__(self, post: PostOffice, door: socket.socket) -> None:
        host, port = door.getsockname()
        super().__init__(post, hostname=host, port=port)
        self._door = door

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._door)


def _local_part(mail: email.message.EmailMessage) -> str:
    return str(mail["From"]).partition("@")[0]
