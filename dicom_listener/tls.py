"""DICOM over TLS: the BCP 195 profile of PS3.15 annex B.12, for the listener and for the sender.

TLS 1.2 and 1.3, forward secrecy and authenticated encryption alone, no compression, no renegotiation. A peer that
offers less is refused; nothing falls back to a plain connection.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import structlog

from dicom_listener.gate import NothingSaid
from dicom_listener.settings import ClientTls, TlsSettings
from fhir_records.errors import SettingsError

log = structlog.get_logger(__name__)

# RFC 9325 section 4.2: ECDHE with AES-GCM. DCMTK's and Java's defaults are among them. TLS 1.3 has its own, all sound.
CIPHERS = "ECDHE+AESGCM"


class ServerTls:
    """The server's side, its files read again when they change.

    Args:
        settings: where the files are.
        handshake_s: seconds that a handshake may take, from its first byte to its last.

    Raises:
        SettingsError: a file cannot be read, or does not fit the others.
    """

    def __init__(self, settings: TlsSettings, handshake_s: float) -> None:
        self._settings = settings
        self._handshake_s = handshake_s
        self._lock = threading.Lock()
        self._stamps = self._seen()
        self._context = _server_context(settings)

    def secure(self, connection: socket.socket) -> ssl.SSLSocket:
        """TLS over a connection, the handshake done; blocking as the connection was.

        Raises:
            NothingSaid: the peer closed the connection without a word.
            ConnectionError: there was no handshake; says why. Either way the connection is closed.
        """
        timeout = connection.gettimeout()
        try:
            connection.settimeout(self._handshake_s)
            _await_first_byte(connection)
            secured = self.context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except NothingSaid:
            connection.close()
            raise
        except (OSError, ValueError) as error:
            connection.close()
            raise ConnectionError(f"no TLS: {_words(error)}") from error
        try:
            secured.do_handshake()
            secured.settimeout(timeout)
        except (OSError, ValueError) as error:
            secured.close()
            raise ConnectionError(f"no TLS: {_words(error)}") from error
        return secured

    def context(self) -> ssl.SSLContext:
        """What new connections are secured with; the former one where the files on the disk are broken."""
        with self._lock:
            stamps = self._seen()
            if stamps != self._stamps:
                self._stamps = stamps
                self._read_again()
            return self._context

    def _read_again(self) -> None:
        try:
            self._context = _server_context(self._settings)
        except SettingsError as error:
            log.error("the TLS files changed and cannot be used; the former ones stay in use", reason=str(error))
        else:
            log.info("the TLS files were read again")

    def _seen(self) -> list[tuple[int, int, int] | None]:
        """What changes with the files."""
        settings = self._settings
        return [_stamp(path) for path in (settings.certificate, settings.key, settings.client_ca, settings.crl) if path]


def _await_first_byte(connection: socket.socket) -> None:
    """Return when a byte is there, which stays where it is.

    Raises:
        NothingSaid: the peer went instead.
        TimeoutError: neither happened within the connection's time-out.
    """
    with suppress(ConnectionResetError):
        if connection.recv(1, socket.MSG_PEEK):
            return
    raise NothingSaid("the peer closed the connection without a word")


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """What a connection to a peer is secured with: its certificate is checked, and that it names the host.

    Raises:
        SettingsError: a file cannot be read, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if settings.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, settings.ca)
    if settings.certificate is not None:
        _load_chain(context, settings.certificate, settings.key or settings.certificate)
    if settings.crl is not None:
        _load_revoked(context, settings.crl)
    return context


def usable(settings: TlsSettings | ClientTls) -> None:
    """See that connections can be secured with these files.

    Raises:
        SettingsError: they cannot; says which file, and why.
    """
    if isinstance(settings, TlsSettings):
        _server_context(settings)
    else:
        client_context(settings)


def no_handshake(settings: ClientTls, host: str, port: int, timeout_s: float) -> str:
    """Why there is no TLS connection to a peer, in words; "" where there is one, or the reason is another.

    For people who look for a mistake: the library that sends does not say it.
    """
    try:
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            client_context(settings).wrap_socket(connection, server_hostname=settings.server_name or host) as secured,
        ):
            # With TLS 1.3 the peer looks at our certificate only now.
            secured.settimeout(min(1.0, timeout_s))
            secured.recv(1)
    except ssl.SSLError as error:
        return _words(error)
    except (OSError, SettingsError):
        return ""
    return ""


def certificate_sha256(connection: socket.socket | None) -> str:
    """The SHA-256 of the certificate that the peer showed, in hexadecimal digits; "" where it showed none."""
    if not isinstance(connection, ssl.SSLSocket):
        return ""
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


def _server_context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_chain(context, settings.certificate, settings.key)
    if settings.client_ca is not None:
        _load_authorities(context, settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if settings.crl is not None:
        _load_revoked(context, settings.crl)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # An encrypted key would have the process ask for its password at the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The TLS certificate {certificate} and its key {key} cannot be used: {_words(error)}."
        ) from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"The certificates of {path} cannot be used: {_words(error)}.") from error


def _load_revoked(context: ssl.SSLContext, path: Path) -> None:
    """Check each certificate of a chain against its authority's list (RFC 5280 section 6.3); one without is refused."""
    # Here, for most listeners never need it, and every acceptor would carry it.
    from dicom_listener.certificates import read_lists

    read_lists(path)  # a certificate in this file would be trusted
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"The lists of {path} cannot be used: {_words(error)}.") from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _no_password() -> str:
    raise ValueError("the key is encrypted; allowed is a key without a password, readable by this user alone")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _words(error: Exception) -> str:
    """Why, as OpenSSL or the system names it; without the peer's bytes."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "broken").replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "the handshake took too long"
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
