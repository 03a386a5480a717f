"""Certificates made for a test by OpenSSL's program: an authority, and what it signs."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.peers import HOST, need


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        """Of the certificate, in hexadecimal digits."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


@dataclass(frozen=True)
class Authority:
    """Who signs certificates for a test."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """Its own certificate, PEM."""
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str, *, days: int = 2, host: str = HOST) -> Issued:
        """A certificate for ``host`` that this authority signs; its files are called ``name``."""
        certificate, key, request = (self.folder / f"{name}{end}" for end in (".pem", ".key", ".csr"))
        extensions = self.folder / f"{name}.ext"
        kind = "IP" if host[0].isdigit() else "DNS"
        extensions.write_text(f"subjectAltName = {kind}:{host}\nbasicConstraints = CA:FALSE\n")
        _openssl("req", "-new", *_new_key(key), "-subj", f"/CN={name}", "-out", str(request))
        signed_by = ["-CA", str(self.certificate), "-CAkey", str(self.folder / f"{self.name}.key"), "-CAcreateserial"]
        _openssl(
            *["x509", "-req", "-in", str(request), *signed_by, "-days", str(days)],
            *["-extfile", str(extensions), "-out", str(certificate)],
        )
        return Issued(certificate, key)


def authority(folder: Path, name: str = "authority") -> Authority:
    """A new authority with its files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    own = Authority(folder, name)
    _openssl(
        *["req", "-x509", *_new_key(folder / f"{name}.key"), "-subj", f"/CN={name}", "-days", "2"],
        *["-addext", "keyUsage = critical, keyCertSign, cRLSign", "-out", str(own.certificate)],
    )
    return own


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(path)]


def _openssl(*arguments: str) -> None:
    subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)
