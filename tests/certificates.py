"""Certificates made for a test by OpenSSL's program: an authority, and what it signs."""

from __future__ import annotations

import datetime as dt
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

    def issue(self, name: str, *, days: int = 2, host: str = HOST, usage: str = "") -> Issued:
        """A certificate for ``host`` that this authority signs; its files are called ``name``.

        Args:
            name: of the files, and of whom it is for.
            days: that it is valid.
            host: a name or an address; "": it names none.
            usage: its Extended Key Usage, such as "clientAuth"; "": it says nothing.
        """
        certificate, key, request = (self.folder / f"{name}{end}" for end in (".pem", ".key", ".csr"))
        extensions = self.folder / f"{name}.ext"
        kind = "IP" if host[:1].isdigit() else "DNS"
        lines = [
            "basicConstraints = CA:FALSE",
            *([f"subjectAltName = {kind}:{host}"] if host else []),
            *([f"extendedKeyUsage = {usage}"] if usage else []),
        ]
        extensions.write_text("\n".join(lines))
        _openssl("req", "-new", *_new_key(key), "-subj", f"/CN={name}", "-out", str(request))
        signed_by = ["-CA", str(self.certificate), "-CAkey", str(self.folder / f"{self.name}.key"), "-CAcreateserial"]
        _openssl(
            *["x509", "-req", "-in", str(request), *signed_by, "-days", str(days)],
            *["-extfile", str(extensions), "-out", str(certificate)],
        )
        return Issued(certificate, key)

    def revoke(self, *revoked: Issued, ended: bool = False) -> Path:
        """A new list of the certificates that this authority has revoked: these and the former ones.

        Args:
            revoked: certificates of its own.
            ended: the list was made the day before yesterday, for one day.
        """
        config, database = self.folder / f"{self.name}.cnf", self.folder / f"{self.name}.index"
        if not config.exists():
            database.write_text("")
            settings = f"database = {database}\ndefault_md = sha256\ndefault_crl_days = 1"
            config.write_text(f"[ca]\ndefault_ca = own\n[own]\n{settings}\n")
        signed_by = ["-cert", str(self.certificate), "-keyfile", str(self.folder / f"{self.name}.key")]
        for one in revoked:
            _openssl("ca", "-config", str(config), *signed_by, "-revoke", str(one.certificate))
        today = dt.datetime.now(dt.UTC)
        times = [f"{today - dt.timedelta(days=days):%Y%m%d%H%M%SZ}" for days in (2, 1)]
        when = ["-crl_lastupdate", times[0], "-crl_nextupdate", times[1]] if ended else []
        path = self.folder / f"{self.name}.crl"
        _openssl("ca", "-config", str(config), *signed_by, "-gencrl", *when, "-out", str(path))
        return path


def authority(folder: Path, name: str = "authority", *, days: int = 2) -> Authority:
    """A new authority with its files in ``folder``, valid for so many days."""
    folder.mkdir(parents=True, exist_ok=True)
    own = Authority(folder, name)
    _openssl(
        *["req", "-x509", *_new_key(folder / f"{name}.key"), "-subj", f"/CN={name}", "-days", str(days)],
        *["-addext", "keyUsage = critical, keyCertSign, cRLSign", "-out", str(own.certificate)],
    )
    return own


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(path)]


def _openssl(*arguments: str) -> None:
    subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)
