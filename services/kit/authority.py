"""A certificate authority of one's own, for mutual TLS between the services of one installation.

    python -m services.kit.authority FOLDER parser trainer 10.0.0.7 ...

writes FOLDER/ca.pem, and for each name FOLDER/<name>/{certificate,key,ca}.pem: what P2M_TLS_CERTIFICATE, P2M_TLS_KEY
and P2M_TLS_CA want. The authority's own key stays in FOLDER/ca.key: keep it from the services. Running it again keeps
the authority and renews the certificates. An installation that has an authority does not need this.

Everything is renewed while the services run, which read their files anew (`certificates`):

    python -m services.kit.authority FOLDER                     new certificates for all names that there are
    python -m services.kit.authority FOLDER --new-authority     1. another authority; all trust both
    python -m services.kit.authority FOLDER                     2. all get certificates of the new one
    python -m services.kit.authority FOLDER --retire            3. the old one is trusted no more

Where the folders are copied to other machines, copy after each step, and let P2M_CONNECTION_AGE_S pass before the next.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import secrets
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_AUTHORITY_LIFE = 3650 * _DAY
_CERTIFICATE_LIFE = 365 * _DAY
_OLD = "ca.old.pem"


class Authority:
    """Signs certificates with the key in `folder`; makes key and folder where they are absent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        if not (folder / "ca.key").exists():
            self._make()
        self._load()

    @property
    def names(self) -> list[str]:
        """Whom it has issued certificates for."""
        return sorted(path.parent.name for path in self._folder.glob("*/certificate.pem"))

    def replace(self) -> None:
        """Makes another authority, which signs from now on. All names trust both until `retire`."""
        old = self._trusted()
        self._make()
        _write(self._folder / _OLD, old)
        self._load()
        self._tell()

    def retire(self) -> None:
        """Has nobody trust what authorities before this one have signed."""
        (self._folder / _OLD).unlink(missing_ok=True)
        self._tell()

    def _load(self) -> None:
        self._key = _read_key(self._folder / "ca.key")
        self._certificate = x509.load_pem_x509_certificate((self._folder / "ca.pem").read_bytes())

    def _trusted(self) -> bytes:
        """This authority's certificate, then those of the ones before it that are trusted still."""
        old = self._folder / _OLD
        return _pem(self._certificate) + (old.read_bytes() if old.exists() else b"")

    def _tell(self) -> None:
        for name in self.names:
            _write(self._folder / name / "ca.pem", self._trusted())

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
        _write(folder / "certificate.pem", _pem(certificate))
        _write(folder / "ca.pem", self._trusted())
        return folder

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # A name of its own: who trusts two authorities finds the one that signed by its name.
        name = f"p2m authority {secrets.token_hex(4)}"
        certificate = (
            _builder(name, _subject(name), key.public_key(), _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_key(self._folder / "ca.key", key)
        _write(self._folder / "ca.pem", _pem(certificate))


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
    _write(path, pem, 0o600)


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replaces a file at once: a service may read it at any moment."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    new.replace(path)


def main(arguments: list[str]) -> int:
    """Does what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m services.kit.authority",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="hosts to issue certificates for; none: all that there are")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--new-authority", action="store_true", help="another authority; all trust both")
    step.add_argument("--retire", action="store_true", help="the authorities before this one are trusted no more")
    args = parser.parse_args(arguments)
    if not args.names and not (args.folder / "ca.key").exists():
        parser.error(f"{args.folder} has no authority yet: name the hosts that it shall issue certificates for")
    authority = Authority(args.folder)
    if args.new_authority:
        authority.replace()
    elif args.retire:
        authority.retire()
    for name in args.names or ([] if args.new_authority or args.retire else authority.names):
        print(authority.issue(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
