"""A certificate authority for one broker: it signs, and its key is never written down."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from headrace.stream.errors import BrokerError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

DAYS = 3650
MISSING = "a secure broker needs the package cryptography: install headrace[local]"


class Certificate(NamedTuple):
    """Hold a certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def encrypted(self, password: str) -> bytes:
        """Return the private key encrypted by a password."""
        from cryptography.hazmat.primitives import serialization as s

        key = s.load_pem_private_key(self.key, None)
        hidden = s.BestAvailableEncryption(password.encode())
        return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, hidden)


class Authority:
    """Sign certificates for servers and clients.

    Raises:
        BrokerError: the package cryptography, of the extra `local`, is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise BrokerError(MISSING) from None
        self._name, self._key = name, ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self._key, hosts=None, days=DAYS)

    def issue(self, name: str, *, hosts: tuple[str, ...] = (), days: int = DAYS) -> Certificate:
        """Sign a certificate for a new key.

        Args:
            name: the common name of its subject.
            hosts: names and addresses for which a server may show it.
            days: until it expires; one of less than zero has expired.
        """
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        return Certificate(self._sign(name, key, hosts=hosts, days=days), private)

    def _sign(self, name: str, key: object, *, hosts: tuple[str, ...] | None, days: int) -> bytes:
        """Return a certificate as PEM; the authority's own if `hosts` is None."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        def named(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  for mypy
        own, now = hosts is None, datetime.now(UTC)
        begin = now + timedelta(days=min(days, 0) - 1)
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self._name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=own, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=own,
                    crl_sign=own,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not own:
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def hosts_of(certificate: bytes) -> list[str]:
    """Return the names and addresses that a server's certificate (PEM) is for.

    Raises:
        BrokerError: the package cryptography is not installed; or it is no such certificate.
    """
    try:
        from cryptography import x509
    except ImportError:
        raise BrokerError(MISSING) from None
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        raise BrokerError("broker.crt is no certificate of a server: delete its folder") from None
    return [str(name.value) for name in names]


def _general(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
