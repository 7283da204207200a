"""Certificates made for a test: an authority, and what it signs."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority; its own certificate stands in `path`."""

    def __init__(self, folder: Path, name: str = "authority", now: datetime.datetime | None = None) -> None:
        self._folder, self._name = folder, name
        self._now = now or datetime.datetime.now(datetime.UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._made(self._subject, self._key, True, [], DAY, DAY)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(certificate)

    def issue(
        self, name: str, *, since: datetime.timedelta = DAY, until: datetime.timedelta = DAY
    ) -> tuple[Path, Path]:
        """A certificate for `name`, ``localhost`` aside nothing else, and its key: valid from `since` ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        stem = f"{self._name}-{name}"
        certificate_path, key_path = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        certificate_path.write_bytes(self._made(subject, key, False, [name], since, until))
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_path, key_path

    def _made(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signs: bool,
        names: list[str],
        since: datetime.timedelta,
        until: datetime.timedelta,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - since)
            .not_valid_after(self._now + until)
            .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
