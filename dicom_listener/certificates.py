"""Certificates, keys and lists of revoked certificates as files: when they end, whom they name, what is wrong.

Reading alone: `tls` uses the files, and `ssl` checks what peers show.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from dicom_listener.settings import ClientTls, TlsSettings
from fhir_records.errors import SettingsError

SOON: Final = dt.timedelta(days=30)

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_LIST: Final = b"-----BEGIN X509 CRL-----"
_LIST_END: Final = b"-----END X509 CRL-----"
_BEGIN: Final = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a file stops to be of use."""

    part: str  # "certificate", "authorities" or "revoked"
    path: Path
    at: dt.datetime  # UTC: of the first certificate, authority or list in the file that ends


@dataclass(frozen=True, slots=True)
class Fault:
    """Something about a file that a person should know."""

    words: str
    works: bool = True  # False: with it there is no TLS


def expiries(settings: TlsSettings | ClientTls) -> Iterator[Expiry]:
    """When each of the files ends.

    Raises:
        SettingsError: one cannot be read.
    """
    for part, path in _files(settings):
        if part == "revoked":
            ends = [_next_update(one) for one in read_lists(path)]
        else:
            ends = [one.not_valid_after_utc for one in read_certificates(path)]
        if ends:
            yield Expiry(part, path, min(ends))


def faults(settings: TlsSettings | ClientTls, now: dt.datetime, hosts: Iterable[str] = ()) -> Iterator[Fault]:
    """What is wrong with the files, or soon will be.

    Args:
        settings: where they are.
        now: the time.
        hosts: names and addresses of this machine, for the server's certificate.

    Raises:
        SettingsError: one cannot be read.
    """
    for part, path in _files(settings):
        if part == "revoked":
            yield from _of_lists(read_lists(path), now)
            authorities = settings.client_ca if isinstance(settings, TlsSettings) else settings.ca
            yield from _without_list(read_certificates(authorities) if authorities else (), read_lists(path))
        else:
            yield from _of_times(part, read_certificates(path), now)
    if settings.certificate is not None:
        is_server = isinstance(settings, TlsSettings)
        own = read_certificates(settings.certificate)[0]
        yield from _of_key(own, settings.key or settings.certificate)
        yield from _of_usage(own, is_server=is_server)
        if is_server:
            yield from _of_names(own, tuple(hosts))


def read_certificates(path: Path) -> Sequence[x509.Certificate]:
    """The certificates of a PEM file, at least one.

    Raises:
        SettingsError: it cannot be read, or holds none.
    """
    try:
        # A key may stand in the same file.
        found = x509.load_pem_x509_certificates(_blocks(path, _CERTIFICATE))
    except ValueError as error:
        raise SettingsError(f"{path} holds no certificate that can be read; allowed is PEM.") from error
    return found


def read_lists(path: Path) -> Sequence[x509.CertificateRevocationList]:
    """The lists of revoked certificates of a PEM file, at least one, and nothing besides.

    Raises:
        SettingsError: it cannot be read, holds none, or holds a certificate, which would be trusted by being there.
    """
    content = _read(path)
    if content.count(_BEGIN) != content.count(_LIST) or _LIST not in content:
        raise SettingsError(f"{path} must hold lists of revoked certificates (PEM, X509 CRL) and nothing besides.")
    parts = [_LIST + part.partition(_LIST_END)[0] + _LIST_END for part in content.split(_LIST)[1:]]
    try:
        return [x509.load_pem_x509_crl(part) for part in parts]
    except ValueError as error:
        raise SettingsError(f"{path} holds a list of revoked certificates that cannot be read.") from error


def _files(settings: TlsSettings | ClientTls) -> Iterator[tuple[str, Path]]:
    authorities = settings.client_ca if isinstance(settings, TlsSettings) else settings.ca
    for part, path in (("certificate", settings.certificate), ("authorities", authorities), ("revoked", settings.crl)):
        if path is not None:
            yield part, path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error


def _blocks(path: Path, begin: bytes) -> bytes:
    end = begin.replace(b"BEGIN", b"END")
    parts = _read(path).split(begin)[1:]
    return b"\n".join(begin + part.partition(end)[0] + end for part in parts)


def _next_update(one: x509.CertificateRevocationList) -> dt.datetime:
    # RFC 5280 section 5.1.2.5 requires it; a list without it never ends.
    return one.next_update_utc or dt.datetime.max.replace(tzinfo=dt.UTC)


def _of_times(part: str, found: Sequence[x509.Certificate], now: dt.datetime) -> Iterator[Fault]:
    # Of several authorities one may end when its successor stands beside it.
    own = part == "certificate"
    for one in found:
        what = f"the {'certificate' if own else 'authority'} {_name(one)}"
        if one.not_valid_before_utc > now:
            yield Fault(f"{what} is not valid before {_day(one.not_valid_before_utc)}", works=not own)
        elif one.not_valid_after_utc <= now:
            yield Fault(f"{what} has ended on {_day(one.not_valid_after_utc)}", works=not own)
        elif one.not_valid_after_utc - now <= SOON:
            days = (one.not_valid_after_utc - now).days
            yield Fault(f"{what} ends in {days} days, on {_day(one.not_valid_after_utc)}")


def _of_lists(found: Sequence[x509.CertificateRevocationList], now: dt.datetime) -> Iterator[Fault]:
    """They live for days or weeks: one that is late is told, one that comes in time is not."""
    for one in found:
        ends = _next_update(one)
        whose = f"the list of certificates revoked by {_common_name(one.issuer)}"
        if ends <= now:
            yield Fault(f"{whose} has ended on {_day(ends)}: nobody is let in until there is a new one", works=False)
        elif ends - now <= min(SOON, (ends - one.last_update_utc) / 4):
            yield Fault(f"{whose} ends on {_day(ends)}, and there is no new one yet")


def _without_list(
    authorities: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList]
) -> Iterator[Fault]:
    told = {one.issuer for one in lists}
    for one in authorities:
        if one.subject not in told:
            yield Fault(f"there is no list of certificates revoked by {_name(one)}: whomever it signed is refused")


def _of_key(own: x509.Certificate, path: Path) -> Iterator[Fault]:
    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError:
        yield Fault(f"the key {path} has a password; allowed is a key without one", works=False)
        return
    except ValueError:
        yield Fault(f"{path} holds no private key that can be read", works=False)
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        yield Fault(f"the key {path} does not belong to the certificate {_name(own)}", works=False)
    if path.stat().st_mode & stat.S_IROTH:
        yield Fault(f"the key {path} can be read by everybody on this machine")


def _of_usage(own: x509.Certificate, *, is_server: bool) -> Iterator[Fault]:
    """RFC 5280 section 4.2.1.12: where a certificate says what it is for, it is for nothing else."""
    needed = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
    try:
        usage = own.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    except x509.ExtensionNotFound:
        return
    allowed = list(usage) if isinstance(usage, x509.ExtendedKeyUsage) else []
    if needed not in allowed and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in allowed:
        side = "servers" if is_server else "clients"
        yield Fault(f"the certificate {_name(own)} is not for TLS {side} (Extended Key Usage)", works=False)


def _of_names(own: x509.Certificate, hosts: Sequence[str]) -> Iterator[Fault]:
    """RFC 9525: callers compare the name by which they reach us with the Subject Alternative Names."""
    named = _names(own)
    if not named:
        yield Fault(f"the certificate {_name(own)} names no host: callers that check it refuse us")
    elif hosts and not any(_is_named(host, named) for host in hosts):
        yield Fault(
            f"the certificate {_name(own)} names {', '.join(sorted(named))}, and this machine is called"
            f" {', '.join(hosts)}: callers that check it may refuse us"
        )


def _names(own: x509.Certificate) -> frozenset[str]:
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    dns = (name.lower() for name in names.get_values_for_type(x509.DNSName))
    return frozenset((*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress))))


def _is_named(host: str, named: frozenset[str]) -> bool:
    try:
        return str(ipaddress.ip_address(host)) in named
    except ValueError:
        name = host.lower().rstrip(".")
    # RFC 9525 section 6.3: a wildcard stands for the whole leftmost label.
    return name in named or f"*.{name.partition('.')[2]}" in named


def _name(one: x509.Certificate) -> str:
    return _common_name(one.subject)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return f'"{found[0].value!s}"' if found else f'"{name.rfc4514_string()}"'


def _day(instant: dt.datetime) -> str:
    return instant.date().isoformat()
