"""The configuration: the only reader of the environment and of the file.

The file is TOML (`WETREAD_CONFIG`, or `wetread.toml` in `WETREAD_HOME`). Every scalar in it can be given as
`WETREAD_SECTION__KEY`, which wins over the file. Whatever is wrong is named with its place and what is allowed; nothing
starts on a configuration that is not valid.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fhir_records.errors import SettingsError
from fhir_records.model import Priority

DEFAULT_HOME = "~/.local/share/wetread"
# PS3.5 section 6.2: an AE has 1 to 16 characters of the default repertoire, no backslash, no space alone.
AeTitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
]
# What a caller's host may be: letters, digits, hyphens and dots (RFC 1123), or what ipaddress takes.
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("allowed are the names of the IANA time zone database, such as Asia/Kolkata") from error
    return name


def _caller_host(host: str) -> str:
    numeric = "/" in host or ":" in host or re.fullmatch(r"[0-9.]+", host)
    try:
        ipaddress.ip_network(host, strict=False)
    except ValueError as error:
        if numeric or not _HOST_NAME.fullmatch(host):
            raise ValueError("allowed are an address, a network such as 10.0.5.0/24, and a host name") from error
    return host


def _sha256(digits: str) -> str:
    plain = digits.replace(":", "").lower()
    if not re.fullmatch(r"([0-9a-f]{64})?", plain):
        raise ValueError("allowed are the 64 hexadecimal digits of a SHA-256, with colons between them or without")
    return plain


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(_Section):
    """`[site]`: where this installation stands."""

    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    statement: str = Field("Not a certified medical device. For evaluation.", min_length=1, max_length=400)
    organization: str = Field("", max_length=64)


class DicomTls(_Section):
    """`[dicom.tls]`: DICOM over TLS; where the section is absent there is none."""

    certificate: Path
    key: Path
    port: Port = 2762
    client_ca: Path | None = None
    crl: Path | None = None
    only: bool = False

    @model_validator(mode="after")
    def _crl_fits(self) -> DicomTls:
        if self.crl and not self.client_ca:
            raise ValueError("crl needs the client_ca whose callers it revokes")
        return self


class Dicom(_Section):
    """`[dicom]`: the listener."""

    ae_title: AeTitle = "WETREAD"
    host: str = "0.0.0.0"  # noqa: S104 -- who may send is decided by the callers' list, only this machine by default
    port: Port = 11112
    study_idle_seconds: Seconds = 60
    study_max_seconds: Seconds = 3600
    processes: int = Field(0, ge=0, le=64)
    max_associations: int = Field(200, ge=1, le=1000)
    max_associations_per_caller: int = Field(50, ge=1, le=1000)
    max_connections_per_minute: int = Field(6000, ge=1, le=1_000_000)
    max_object_mb: int = Field(8192, ge=1, le=1_048_576)
    min_bytes_per_second: int = Field(1024, ge=0)
    acse_timeout_seconds: Seconds = 30
    dimse_timeout_seconds: Seconds = 60
    network_timeout_seconds: Seconds = 300
    min_free_mb: int = Field(1024, ge=0)
    tls: DicomTls | None = None


class Http(_Section):
    """`[http]`: pages and programs' interfaces."""

    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: str = ""  # as people reach it; "" is http://127.0.0.1 and the port
    secure_cookies: bool | None = None
    session_hours: float = Field(12, gt=0, le=24 * 7)
    idle_minutes: float = Field(60, gt=0)
    store_max_object_mb: int = Field(4096, ge=1, le=1024**2)
    store_max_objects: int = Field(10_000, ge=1, le=1_000_000)


class Hl7(_Section):
    """`[hl7]`: HL7 v2 over MLLP."""

    port: Port = 2575


class Inference(_Section):
    """`[inference]`: how models are run."""

    threads: int = Field(1, ge=1, le=64)


class Signing(_Section):
    """`[signing]`: what a person's signature says."""

    signed_is_final: bool = False
    # PS3.16 section 8; "NPI" is a US physician's number, "99" and the site's letters a scheme of its own.
    identifier_scheme: str = Field("", max_length=16, pattern=r"^[A-Za-z0-9_.-]*$")


class Training(_Section):
    """`[training]`: whose reviewed cases may train models."""

    consent: Literal["opt_in", "opt_out"] = "opt_in"


class Caller(_Section):
    """`[[caller]]`: who may send."""

    ae_title: AeTitle
    host: Annotated[str, AfterValidator(_caller_host)]
    issuer: str = Field("", max_length=64)
    certificate_sha256: Annotated[str, AfterValidator(_sha256)] = ""
    study_idle_seconds: Seconds | None = None
    study_max_seconds: Seconds | None = None
    expected_numbers: bool = False
    ask: str = ""


ObjectWord = Literal["sr", "sc", "map", "ko", "pdf", "seg"]


def _different(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) < len(words):
        raise ValueError("each kind of object may be named once")
    return words


def _different_classes(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) < len(words):
        raise ValueError("each SOP class may be named once")
    return words


SrClassWord = Literal["comprehensive_3d", "comprehensive", "enhanced"]
SrClasses = Annotated[tuple[SrClassWord, ...], Field(min_length=1), AfterValidator(_different_classes)]
EVERY_SR_CLASS: tuple[SrClassWord, ...] = ("comprehensive_3d", "comprehensive", "enhanced")


Objects = Annotated[tuple[ObjectWord, ...], Field(min_length=1), AfterValidator(_different)]


class Destination(_Section):
    """`[[destination]]`: where results go."""

    name: Name
    ae_title: AeTitle
    host: str = Field(min_length=1)
    port: Port
    objects: Objects = ("sr",)
    sr_classes: SrClasses = EVERY_SR_CLASS  # in which the report is offered, the first choice first
    storage_commitment: bool = False
    read_back: bool = False  # whether the destination is asked by C-FIND for what it took
    max_at_once: int = Field(2, ge=1, le=64)
    fallback: str = ""  # who gets what does not arrive in time
    fallback_after_seconds: Seconds = 3600
    release: Literal["at_once", "after_signing"] = "at_once"
    withdraw: Literal["iocm", "orthanc_rest", "manual"] = "manual"
    orthanc: str = ""  # for orthanc_rest: the [[orthanc]] through whose REST API is deleted
    rejection_title: Literal["113037", "113001"] = "113037"  # PS3.16 CID 7010
    rejection_reason: Literal["111218", "111219", "111220", "111221"] = "111220"  # PS3.16 CID 7011, for 113001
    timeout_seconds: Seconds = 30
    tls: bool = False
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str = ""
    tls_crl: Path | None = None

    @model_validator(mode="after")
    def _tls_fits(self) -> Destination:
        given = self.tls_ca or self.tls_certificate or self.tls_key or self.tls_server_name or self.tls_crl
        if given and not self.tls:
            raise ValueError("tls_ca, tls_certificate, tls_key, tls_server_name and tls_crl need tls = true")
        if self.tls_key and not self.tls_certificate:
            raise ValueError("tls_key needs the tls_certificate that it belongs to")
        return self


class Orthanc(_Section):
    """`[[orthanc]]`: an Orthanc whose stable studies are read through its REST API."""

    name: Name
    url: str = Field(pattern=r"^https?://[^\s]+$")
    username: str = ""
    password: str = ""
    objects: Objects = ("sr",)
    sr_classes: SrClasses = EVERY_SR_CLASS  # in which the report is offered, the first choice first
    poll_seconds: Seconds = 2
    read_back: bool = False  # whether it is asked for what it took
    withdraw: Literal["orthanc_rest", "manual"] = "manual"
    timeout_seconds: Seconds = 30


class Route(_Section):
    """`[[route]]`: which models read a study, and where the answers and the images go."""

    name: Name
    when: str = Field(min_length=1)
    models: tuple[str, ...] = ()
    results_to: tuple[str, ...] = ()
    forward_to: tuple[str, ...] = ()
    priority: Priority = Priority.ROUTINE


class File(_Section):
    """The whole file."""

    site: Site = Site()
    dicom: Dicom = Dicom()
    http: Http = Http()
    hl7: Hl7 = Hl7()
    inference: Inference = Inference()
    signing: Signing = Signing()
    training: Training = Training()
    caller: tuple[Caller, ...] = ()
    destination: tuple[Destination, ...] = ()
    orthanc: tuple[Orthanc, ...] = ()
    route: tuple[Route, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> File:
        names = [destination.name for destination in self.destination] + [orthanc.name for orthanc in self.orthanc]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names of [[destination]] and [[orthanc]] must differ; given twice: {', '.join(twice)}")
        archives = [orthanc.name for orthanc in self.orthanc]
        for destination in self.destination:
            if destination.storage_commitment and destination.read_back:
                raise ValueError(f'[[destination]] "{destination.name}": storage_commitment or read_back, not both')
            if destination.fallback and (destination.fallback not in names or destination.fallback == destination.name):
                others = ", ".join(name for name in names if name != destination.name) or "none"
                raise ValueError(
                    f'[[destination]] "{destination.name}": fallback is {destination.fallback!r}; others configured'
                    f" are: {others}"
                )
            if destination.withdraw == "orthanc_rest" and destination.orthanc not in archives:
                known = ", ".join(archives) or "none"
                raise ValueError(
                    f'[[destination]] "{destination.name}": withdraw = "orthanc_rest" needs orthanc = the name of an'
                    f" [[orthanc]]; it is {destination.orthanc!r}, configured are: {known}"
                )
        routes = [route.name for route in self.route]
        if len(set(routes)) < len(routes):
            raise ValueError("names of [[route]] must differ")
        for route in self.route:
            for key, given in (("results_to", route.results_to), ("forward_to", route.forward_to)):
                unknown = sorted(set(given) - set(names))
                if unknown:
                    known = ", ".join(names) or "none"
                    raise ValueError(
                        f'[[route]] "{route.name}": {key} names {", ".join(unknown)}; configured are: {known}'
                    )
            if not route.models and not route.forward_to:
                raise ValueError(f'[[route]] "{route.name}": models and forward_to are both empty; name one at least')
        return self

    @model_validator(mode="after")
    def _listener_fits(self) -> File:
        dicom = self.dicom
        if dicom.study_max_seconds < dicom.study_idle_seconds:
            raise ValueError("dicom.study_max_seconds must not be less than dicom.study_idle_seconds")
        if dicom.tls is not None and not dicom.tls.only and dicom.tls.port == dicom.port:
            raise ValueError("dicom.tls.port must differ from dicom.port, unless dicom.tls.only is true")
        known = [destination.name for destination in self.destination]
        for caller in self.caller:
            whose = f'[[caller]] "{caller.ae_title}"'
            idle, most = caller.study_idle_seconds, caller.study_max_seconds
            if (most or dicom.study_max_seconds) < (idle or dicom.study_idle_seconds):
                raise ValueError(f"{whose}: study_max_seconds must not be less than study_idle_seconds")
            if caller.ask and caller.ask not in known:
                names = ", ".join(known) or "none"
                raise ValueError(f"{whose}: ask names {caller.ask}; configured as [[destination]] are: {names}")
            if caller.certificate_sha256 and (dicom.tls is None or dicom.tls.client_ca is None):
                raise ValueError(f"{whose}: certificate_sha256 needs [dicom.tls] with a client_ca")
        return self


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the parts are told, and where all state lies."""

    home: Path  # WETREAD_HOME
    config_path: Path | None  # the file that was read, if any
    database_url: str | None  # None: the embedded server
    file: File

    @property
    def spool(self) -> Path:
        """Where received objects are kept."""
        return self.home / "spool"

    @property
    def models(self) -> Path:
        """Where registered models are kept."""
        return self.home / "models"

    def beside(self, path: Path) -> Path:
        """A file that the configuration names, relative to the configuration file's folder, or to the home."""
        folder = self.config_path.parent if self.config_path is not None else self.home
        return folder / path.expanduser()

    @property
    def public_url(self) -> str:
        """The address of the pages as people reach them."""
        return self.file.http.public_url.rstrip("/") or f"http://127.0.0.1:{self.file.http.port}"


def load(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration.

    Args:
        config: the file; else `WETREAD_CONFIG`; else `wetread.toml` in the home, if there is one.
        environ: the environment; the process's own where none is given.

    Raises:
        SettingsError: naming every place that is wrong, and what is allowed there.
    """
    environ = os.environ if environ is None else environ
    home = _home(environ)
    named = config or (Path(environ["WETREAD_CONFIG"]) if environ.get("WETREAD_CONFIG") else None)
    path = named or home / "wetread.toml"
    values: dict[str, Any] = {}
    if named is not None or path.is_file():
        values = _read(path)
    _overlay(values, environ)
    try:
        file = File.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_words(error, path if values else None)) from error
    return Settings(
        home=home,
        config_path=path.absolute() if named is not None or path.is_file() else None,
        database_url=environ.get("WETREAD_DATABASE_URL") or None,
        file=file,
    )


def parse_routes(rules: str, settings: Settings) -> tuple[Route, ...]:
    """The `[[route]]` tables in a text, with the destinations of the configuration.

    Raises:
        SettingsError: it is not valid TOML, or a route in it is not valid.
    """
    try:
        given = tomllib.loads(rules)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The rules are not valid TOML: {error}.") from error
    others = sorted(set(given) - {"route"})
    if others:
        raise SettingsError(f"The rules have {', '.join(others)}; allowed is [[route]] alone.")
    if not given.get("route"):
        raise SettingsError("There is no [[route]] in the rules.")
    places = settings.file.model_dump(include={"destination", "orthanc"})
    try:
        return File.model_validate({**places, **given}).route
    except ValidationError as error:
        raise SettingsError(_words(error, None)) from error


def child_environment(home: Path) -> dict[str, str]:
    """The environment for a Wetread of its own in ``home``, which nothing set for another one reaches."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WETREAD_")}
    return {**kept, "WETREAD_HOME": str(home)}


def demo_home() -> Path:
    """Where the demo keeps its state: the home, or a folder of its own in the home of a real installation."""
    home = _home(os.environ)
    return home / "demo" if (home / "wetread.toml").is_file() else home


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("WETREAD_HOME") or DEFAULT_HOME).expanduser().absolute()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The configuration file {path} is not valid TOML: {error}.") from error


def _overlay(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Put `WETREAD_SECTION__KEY` over the file's values."""
    for variable, value in environ.items():
        if not variable.startswith("WETREAD_") or "__" not in variable:
            continue
        section, _, key = variable.removeprefix("WETREAD_").lower().partition("__")
        *sections, key = [section, *key.split("__")]
        kind: type[_Section] | None = File
        table: Any = values
        for name in sections:
            kind = _section(kind, name)
            table = table.setdefault(name, {}) if isinstance(table, dict) else None
        if kind is None or key not in kind.model_fields or _section(kind, key) is not None:
            raise SettingsError(f"The environment variable {variable} names no setting.")
        if isinstance(table, dict):  # else the file is wrong there, and validation says so
            table[key] = value


def _section(kind: type[_Section] | None, name: str) -> type[_Section] | None:
    """The section of this name within another one; None where there is none, or a list of them."""
    field = kind.model_fields.get(name) if kind is not None else None
    kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()
    found = [one for one in kinds if isinstance(one, type) and issubclass(one, _Section)]
    return found[0] if found and get_origin(kinds[0]) is not tuple else None


def _words(error: ValidationError, path: Path | None) -> str:
    lines = [f"The configuration{f' {path}' if path else ''} is not valid:"]
    for item in error.errors(include_url=False, include_input=False):
        lines.append(f"  {_place(item['loc'])}: {item['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _place(loc: Sequence[int | str]) -> str:
    """`caller.1.host` as people count: the second [[caller]], host."""
    parts = [f"number {part + 1}" if isinstance(part, int) else part for part in loc]
    return ", ".join(parts) or "the file"
