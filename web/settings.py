"""What the web part is told; `deploy.settings` fills it in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from dicom_listener.settings import ClientTls, TlsSettings
from fhir_records.errors import SettingsError
from fhir_records.store.consent import ConsentPolicy


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the web part.

    Raises:
        SettingsError: `public_url` is no http or https address, or a time is not positive.
    """

    public_url: str  # as people reach it, "https://wetread.example.org"
    spool_root: Path  # where instances' file keys start
    statement: str  # the site's statement, on every page that shows a finding
    timezone: ZoneInfo  # times are shown in it
    version: str  # of Wetread
    secure_cookies: bool | None = None  # None: secure unless reached by plain http on this very machine
    session_hours: float = 12.0  # a log-in ends after so long, whatever happens
    idle_minutes: float = 60.0  # … or after nobody did anything for so long
    ae_title: str = "WETREAD"  # for the words on an empty worklist
    dicom_port: int = 11112
    min_free_bytes: int = 2 * 1024**3  # watermark of the spool's disk, as the listener's; below it we are not ready
    store_max_object_bytes: int = 4 * 1024**3  # of one object that comes by STOW-RS
    store_max_objects: int = 10_000  # in one STOW-RS request

    tls_files: tuple[tuple[str, TlsSettings | ClientTls], ...] = ()  # for monitoring: whose they are, and which

    organization: str = ""  # of the people who sign
    training_policy: ConsentPolicy = ConsentPolicy.OPT_IN  # for patients whom nobody asked
    identifier_scheme: str = ""  # coding scheme of their numbers (PS3.16 section 8); "": numbers are not written

    def __post_init__(self) -> None:
        parts = urlsplit(self.public_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(
                f"public_url is {self.public_url!r}; allowed: http://HOST[:PORT] or https://HOST[:PORT]."
            )
        if self.session_hours <= 0 or self.idle_minutes <= 0:
            raise SettingsError("session_hours and idle_minutes must be greater than 0.")

    @property
    def origin(self) -> str:
        """Scheme, host and port of `public_url`, as browsers write an Origin (RFC 6454)."""
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}".lower()

    def wants_secure_cookie(self, scheme: str, host: str) -> bool:
        """Whether a cookie set on a request over ``scheme`` to ``host`` must carry the Secure attribute."""
        if self.secure_cookies is not None:
            return self.secure_cookies
        return self.origin.startswith("https:") or scheme == "https" or not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
