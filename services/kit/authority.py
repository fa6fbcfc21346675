"""A certificate authority of one's own, for mutual TLS between the services of one installation.

    python -m services.kit.authority FOLDER parser trainer 10.0.0.7 ...

writes FOLDER/ca.pem, and for each name FOLDER/<name>/{certificate,key,ca}.pem: what P2M_TLS_CERTIFICATE, P2M_TLS_KEY
and P2M_TLS_CA want. The authority's own key stays in FOLDER/ca.key: keep it from the services. Running it again keeps
the authority and renews the certificates. An installation that has an authority does not need this.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_AUTHORITY_LIFE = 3650 * _DAY
_CERTIFICATE_LIFE = 365 * _DAY


class Authority:
    """Signs certificates with the key in `folder`; makes key and folder where they are absent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        if not (folder / "ca.key").exists():
            self._make()
        self._key = _read_key(folder / "ca.key")
        self._certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())

    def issue(self, name: str) -> Path:
        """The folder of a new certificate for host `name`, valid for this machine's loopback names too.

        It holds certificate.pem, key.pem and ca.pem. The certificate serves as a server's and as a client's.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = dict.fromkeys((name, "localhost", "127.0.0.1"))
        certificate = (
            _builder(name, self._certificate.subject, key.public_key(), _CERTIFICATE_LIFE)
            .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        _write_key(folder / "key.pem", key)
        (folder / "certificate.pem").write_bytes(_pem(certificate))
        (folder / "ca.pem").write_bytes(_pem(self._certificate))
        return folder

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject("p2m authority")
        certificate = (
            _builder("p2m authority", subject, key.public_key(), _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        (self._folder / "ca.pem").write_bytes(_pem(certificate))
        _write_key(self._folder / "ca.key", key)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)  # clocks differ
        .not_valid_after(now + life)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), f"{path} is no elliptic-curve key"
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def main(arguments: list[str]) -> int:
    """Issues a certificate for each name given after the folder."""
    if len(arguments) < 2:
        print("usage: python -m services.kit.authority FOLDER NAME...", file=sys.stderr)
        return 2
    authority = Authority(Path(arguments[0]))
    for name in arguments[1:]:
        print(authority.issue(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
