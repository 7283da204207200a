"""Grants: permission for one exact act, once, for a short time, signed so that no other program can make one.

What a grant stands for is its digest: SHA-256 of the tool, its arguments, the session and the policy in force, as
canonical JSON. Whoever executes the act redeems it; the store sees to it that this happens once (`consume_grant`), and
that a pause makes it void.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from sidecar.core.alerts import Decision
from sidecar.core.events import SessionKey
from sidecar.storage import Grant, Instant
from sidecar.storage.sealed import load_key

KEY_FILE = "grants.key"
MAX_LIFE_S = 60.0

_TAG = b"agent-sidecar grant v1\0"
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


class SignedGrant(Struct, frozen=True):
    """What the executor is handed.

    Attributes:
        expires_ns: Wall clock, for people; what counts is the row in the store, by the clock since boot.
    """

    grant_id: str
    digest: bytes
    expires_ns: int
    signature: bytes


class Minted(Struct, frozen=True):
    """A new grant: the row to be stored with the decision, and what is handed out once that is done."""

    row: Grant
    signed: SignedGrant


def digest(tool: str, arguments: Any, session: SessionKey, policy: str) -> bytes:
    """What a grant stands for.

    Args:
        arguments: As decoded from JSON; the order of keys does not matter, every character does.
        policy: Digest of the policy in force.
    """
    act = [tool, arguments, session.realm, session.id, policy]
    return hashlib.sha256(_TAG + _canonical(act).encode()).digest()


class Grants:
    """Makes and checks grants.

    Args:
        key: 32 bytes, the private key.
        life_s: How long a grant is good for, at most `MAX_LIFE_S`.
    """

    def __init__(self, key: bytes, *, life_s: float = MAX_LIFE_S) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        self._public = self._key.public_key()
        self._life_ns = int(min(life_s, MAX_LIFE_S) * 1e9)

    @classmethod
    def load(cls, data_dir: Path, *, life_s: float = MAX_LIFE_S) -> Grants:
        """With the key of this installation, made at the first start in a file of mode 0600.

        Raises:
            ConfigError: The file is open to others, not ours, or no key.
        """
        return cls(load_key(data_dir / KEY_FILE), life_s=life_s)

    @property
    def public_key(self) -> bytes:
        """For those who check signatures elsewhere: 32 bytes."""
        return self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def mint(self, decision: Decision, arguments: Any, policy: str, now: Instant) -> Minted:
        """A grant for an act that is allowed."""
        expires = Instant(now.at_ns + self._life_ns, now.boot_ns + self._life_ns, now.boot_id)
        stands_for = digest(decision.tool, arguments, decision.session, policy)
        grant_id = secrets.token_hex(16)
        signature = self._key.sign(_signed(grant_id, stands_for, expires.at_ns))
        row = Grant(
            grant_id=grant_id,
            digest=stands_for,
            session=decision.session,
            expires=expires,
            role=decision.agent.role,
            decision_id=decision.event_id,
        )
        return Minted(row, SignedGrant(grant_id, stands_for, expires.at_ns, signature))

    def minter(
        self, which: Literal["none", "irreversible", "every"], policy: Callable[[], str]
    ) -> Callable[[Decision, Any], Minted | None]:
        """Makes a grant for each allow that somebody redeems; for `service.Service`.

        Args:
            policy: Digest of the policy in force.
        """

        def mint(decision: Decision, arguments: Any) -> Minted | None:
            if which == "every" or (which == "irreversible" and decision.irreversible):
                return self.mint(decision, arguments, policy(), Instant.now())
            return None

        return mint

    def is_genuine(self, grant: SignedGrant) -> bool:
        """Whether we made it and nobody has changed it."""
        return is_genuine(grant, self._public)


def is_genuine(grant: SignedGrant, key: Ed25519PublicKey) -> bool:
    """Whether the holder of `key` made this grant and nobody has changed it."""
    try:
        key.verify(grant.signature, _signed(grant.grant_id, grant.digest, grant.expires_ns))
    except (InvalidSignature, OverflowError, UnicodeEncodeError):
        return False
    return True


def _signed(grant_id: str, stands_for: bytes, expires_ns: int) -> bytes:
    return b"".join((_TAG, grant_id.encode(), b"\0", stands_for, expires_ns.to_bytes(8, "big")))
