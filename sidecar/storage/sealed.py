"""Blobs of state that are believed only if this sidecar wrote them: a header, the bytes and a keyed hash.

Layout: magic (8 bytes), length of the header (4, big endian), header (msgpack), payload, HMAC-SHA256 of the blob's
name and of all before it. Reading decodes plain data and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from sidecar.errors import ConfigError
from sidecar.storage.sqlite import check_file, sync_directory

SCHEMA = 1
MAX_PAYLOAD_BYTES = 64 * 2**20
_MAGIC = b"SIDECAR\x01"
_MAX_HEADER_BYTES = 4096
_MAC_BYTES = 32
_KEY_BYTES = 32

Reason = Literal[
    "not a checkpoint",
    "pickle",
    "truncated",
    "damaged",
    "wrong key",
    "other tenant",
    "newer schema",
    "older schema",
    "no cursor",
]


class Header(Struct, frozen=True):
    """Where a blob comes from.

    Attributes:
        code: Version of the program that wrote it.
        policy: Digest of the policy then in force; known, not checked, since policies may change.
        length: Of the payload, bytes.
    """

    schema: int
    code: str
    policy: str
    tenant: str
    created_ns: int
    length: int
    sha256: bytes


class RefusedError(Exception):
    """The blob is not believed; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        self.reason: Reason = reason
        super().__init__(reason)


def load_key(path: Path) -> bytes:
    """The key that blobs are sealed with, made at the first start in a file of mode 0600.

    Raises:
        ConfigError: The file is open to others, not ours, or no key.
    """
    if not check_file(path):
        _create_key(path)
    try:
        with path.open("rb") as file:
            key = file.read(_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"is not a key of {_KEY_BYTES} bytes; remove it to start with a new one", file=str(path))
    return key


def seal(name: str, payload: bytes, *, key: bytes, tenant: str, policy: str, code: str, created_ns: int) -> bytes:
    """The blob called `name` with its header and keyed hash.

    Raises:
        ValueError: `payload` is longer than `MAX_PAYLOAD_BYTES`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a blob holds at most {MAX_PAYLOAD_BYTES} bytes, this has {len(payload)}")
    header = msgspec.msgpack.encode(
        Header(SCHEMA, code[:64], policy[:256], tenant, created_ns, len(payload), hashlib.sha256(payload).digest())
    )
    if len(header) > _MAX_HEADER_BYTES:
        raise ValueError("the tenant's name is too long")
    blob = b"".join((_MAGIC, len(header).to_bytes(4, "big"), header, payload))
    return blob + _mac(key, name, blob)


def unseal(name: str, blob: bytes, *, key: bytes, tenant: str) -> tuple[Header, bytes]:
    """Header and payload of a blob that this sidecar sealed under that name for that tenant.

    Raises:
        RefusedError: Anything about it is not as `seal` leaves it.
    """
    if not blob.startswith(_MAGIC):
        raise RefusedError("pickle" if blob[:1] == b"\x80" and blob[1:2] <= b"\x05" else "not a checkpoint")
    start = len(_MAGIC) + 4
    header_bytes = int.from_bytes(blob[len(_MAGIC) : start], "big")
    if header_bytes > _MAX_HEADER_BYTES:
        raise RefusedError("damaged")
    if len(blob) < start + header_bytes + _MAC_BYTES:
        raise RefusedError("truncated")
    try:
        header = msgspec.msgpack.decode(blob[start : start + header_bytes], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError("damaged") from error
    payload = blob[start + header_bytes : -_MAC_BYTES]
    if len(payload) != header.length:
        raise RefusedError("truncated" if len(payload) < header.length else "damaged")
    # Nothing read so far is believed yet; it only names the reason.
    if not hmac.compare_digest(_mac(key, name, blob[:-_MAC_BYTES]), blob[-_MAC_BYTES:]):
        whole = hashlib.sha256(payload).digest() == header.sha256
        raise RefusedError("wrong key" if whole else "damaged")
    if header.tenant != tenant:
        raise RefusedError("other tenant")
    if header.schema != SCHEMA:
        raise RefusedError("newer schema" if header.schema > SCHEMA else "older schema")
    return header, payload


def _mac(key: bytes, name: str, blob: bytes) -> bytes:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    encoded = name.encode("utf-8", "surrogatepass")
    mac.update(len(encoded).to_bytes(4, "big") + encoded)
    mac.update(blob)
    return mac.digest()


def _create_key(path: Path) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, secrets.token_bytes(_KEY_BYTES))
        os.fsync(fd)
    finally:
        os.close(fd)
    new.rename(path)
    sync_directory(path.parent)
