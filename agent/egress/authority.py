"""A sandbox's own certificate authority: with it the proxy can be any server towards that sandbox, and towards nobody else.

Its key lies in the sandbox's folder on the host, root's alone, and dies with it. This file alone makes certificates.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LASTS = timedelta(days=365)
_LEAF_LASTS = timedelta(days=30)
_BACK = timedelta(days=1)
"""Certificates begin this much in the past: clocks differ."""

_KEPT = 256
"""Servers whose certificates are kept."""


class Authority:
    """The authority in `folder`, made there if it is absent or soon out of date. Raises OSError."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._key, self._certificate = self._load() or self._make()
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def certificate(self) -> bytes:
        """What the sandbox must trust (PEM)."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """The server's side of TLS as that host."""
        if host not in self._contexts:
            if len(self._contexts) >= _KEPT:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[host] = self._as(host)
        return self._contexts[host]

    def _as(self, host: str) -> ssl.SSLContext:
        name: x509.GeneralName
        try:
            name = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        builder = _begun(host[:64], self._certificate.subject, _LEAF_LASTS)
        builder = builder.public_key(self._leaf_key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _load_into(context, _pem(self._leaf_key) + certificate.public_bytes(serialization.Encoding.PEM))
        return context

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
        try:
            key = serialization.load_pem_private_key((self._folder / "authority.key").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((self._folder / "authority.pem").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        whole = isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
        lasting = certificate.not_valid_after_utc - datetime.now(UTC) > _LEAF_LASTS
        return (key, certificate) if isinstance(key, ec.EllipticCurvePrivateKey) and whole and lasting else None

    def _make(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        title = f"sandbox {self._name}"[:64]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
        builder = _begun(title, subject, _LASTS).public_key(key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self._folder / "authority.key", _pem(key))
        _write(self._folder / "authority.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return key, certificate


def _begun(name: str, issuer: x509.Name, lasts: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    builder = builder.issuer_name(issuer).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _BACK).not_valid_after(now + lasts)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(file: Path, content: bytes) -> None:
    new = file.with_name(f"{file.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as opened:
        opened.write(content)
    new.rename(file)


def _load_into(context: ssl.SSLContext, chain: bytes) -> None:
    """ssl takes a key only from a file: one in memory, that is gone afterwards."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
