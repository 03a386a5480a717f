"""The configuration: what is taken, what is refused, and in which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.settings import load, parse_routes
from deploy.wiring import listener_settings
from dicom_listener.settings import ClientTls, ListenerSettings, TlsSettings
from fhir_records.errors import SettingsError

EXAMPLE = """
[site]
timezone = "Asia/Kolkata"
statement = "For evaluation."

[dicom]
ae_title = "READER"
study_idle_seconds = 5

[[caller]]
ae_title = "CT1"
host = "10.0.0.5"
issuer = "HOSP"

[[destination]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
storage_commitment = true
release = "after_signing"
withdraw = "iocm"

[[orthanc]]
name = "archive"
url = "http://127.0.0.1:8042"

[[route]]
name = "brain MR"
when = 'study.Modality == "MR"'
models = ["brain_mr_tumour"]
results_to = ["pacs"]
forward_to = []
priority = "stat"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "wetread.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_documented_file_is_taken_whole(tmp_path: Path) -> None:
    """Every section and key of the documented example arrives where it belongs."""
    settings = load(write(tmp_path, EXAMPLE), {"WETREAD_HOME": str(tmp_path)})
    assert settings.home == tmp_path
    assert settings.file.site.timezone == "Asia/Kolkata"
    assert settings.file.dicom.ae_title == "READER"
    assert settings.file.caller[0].issuer == "HOSP"
    assert settings.file.destination[0].release == "after_signing"
    assert settings.file.orthanc[0].url == "http://127.0.0.1:8042"
    assert settings.file.route[0].priority == "stat"


def test_without_a_file_the_defaults_stand(tmp_path: Path) -> None:
    """The fixed ports and the AE title hold where nothing is configured."""
    settings = load(None, {"WETREAD_HOME": str(tmp_path)})
    assert settings.config_path is None
    assert (settings.file.dicom.ae_title, settings.file.dicom.port) == ("WETREAD", 11112)
    assert (settings.file.http.port, settings.file.hl7.port) == (8080, 2575)
    assert settings.public_url == "http://127.0.0.1:8080"


def test_the_file_in_the_home_is_found(tmp_path: Path) -> None:
    """`wetread.toml` in WETREAD_HOME is read when no other file is named."""
    path = write(tmp_path, "[http]\nport = 8123\n")
    settings = load(None, {"WETREAD_HOME": str(tmp_path)})
    assert settings.config_path == path
    assert settings.file.http.port == 8123


def test_an_environment_variable_wins_over_the_file(tmp_path: Path) -> None:
    """WETREAD_SECTION__KEY replaces one scalar and leaves the others."""
    environ = {"WETREAD_HOME": str(tmp_path), "WETREAD_DICOM__PORT": "11119", "WETREAD_SITE__STATEMENT": "Trial."}
    settings = load(write(tmp_path, EXAMPLE), environ)
    assert settings.file.dicom.port == 11119
    assert settings.file.dicom.ae_title == "READER"
    assert settings.file.site.statement == "Trial."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[dicom]\nport = 70000\n", "dicom, port"),
        ('[dicom]\nae_title = "A TITLE THAT IS TOO LONG"\n', "dicom, ae_title"),
        ("[dicom]\nprot = 11112\n", "dicom, prot"),
        ('[site]\ntimezone = "Mars/Olympus"\n', "IANA time zone"),
        ('[[caller]]\nae_title = "A"\n', "caller, number 1, host"),
        ('[[orthanc]]\nname = "a"\nurl = "ftp://x"\n', "orthanc, number 1, url"),
        ('[[orthanc]]\nname = "a"\nurl = "http://x"\nsr_classes = []\n', "orthanc, number 1, sr_classes"),
        ('[[orthanc]]\nname = "a"\nurl = "http://x"\nsr_classes = ["basic"]\n', "'comprehensive_3d', 'comprehensive'"),
        (
            '[[orthanc]]\nname = "a"\nurl = "http://x"\nsr_classes = ["enhanced", "enhanced"]\n',
            "each SOP class may be named once",
        ),
        ("[dicom]\nstudy_idle_seconds = 60\nstudy_max_seconds = 5\n", "study_max_seconds"),
        (EXAMPLE.replace('results_to = ["pacs"]', 'results_to = ["pax"]'), "results_to names pax"),
        (
            EXAMPLE.replace("forward_to = []", 'forward_to = ["pax"]'),
            "forward_to names pax; configured are: pacs",
        ),
        (EXAMPLE.replace('models = ["brain_mr_tumour"]', ""), "models and forward_to are both empty"),
        (EXAMPLE.replace('name = "archive"', 'name = "pacs"'), "given twice: pacs"),
        ("[dicom\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    """A wrong value, name or reference is refused with its place and what is allowed."""
    with pytest.raises(SettingsError) as raised:
        load(write(tmp_path, text), {"WETREAD_HOME": str(tmp_path)})
    assert words in str(raised.value)


def test_rules_without_a_file_are_taken_with_the_destinations_of_one(tmp_path: Path) -> None:
    """Rules that are only tried may name the configured destinations, and are refused in the same words."""
    settings = load(write(tmp_path, EXAMPLE), {"WETREAD_HOME": str(tmp_path)})
    (route,) = parse_routes('[[route]]\nname = "all on"\nwhen = "true"\nforward_to = ["archive"]\n', settings)
    assert (route.models, route.forward_to) == ((), ("archive",))
    for rules, words in (
        ("[[route]\n", "not valid TOML"),
        ("[site]\n", "allowed is \\[\\[route\\]\\] alone"),
        ("", "no \\[\\[route\\]\\]"),
        ('[[route]]\nname = "a"\nwhen = "true"\nforward_to = ["pax"]\n', "forward_to names pax"),
        ('[[route]]\nname = "a"\nwen = "true"\n', "route, number 1, when"),
    ):
        with pytest.raises(SettingsError, match=words):
            parse_routes(rules, settings)


def test_a_variable_that_names_nothing_is_refused(tmp_path: Path) -> None:
    """A misspelt variable does not pass unnoticed."""
    with pytest.raises(SettingsError, match="WETREAD_DICOM__PROT"):
        load(None, {"WETREAD_HOME": str(tmp_path), "WETREAD_DICOM__PROT": "1"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that was asked for and is not there stops the start."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml", {"WETREAD_HOME": str(tmp_path)})


LISTENER = """
[dicom]
processes = 3
max_associations_per_caller = 7
max_object_mb = 100
acse_timeout_seconds = 5

[dicom.tls]
certificate = "tls/wetread.pem"
key = "/etc/ssl/wetread.key"
client_ca = "tls/callers.pem"
crl = "tls/revoked.pem"

[[caller]]
ae_title = "CT1"
host = "ct1.example"
certificate_sha256 = "AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89"
study_idle_seconds = 5
expected_numbers = true
ask = "pacs"

[[destination]]
name = "pacs"
ae_title = "ORTHANC"
host = "pacs.example"
port = 2762
tls = true
tls_ca = "tls/pacs.pem"
tls_crl = "tls/revoked-pacs.pem"
"""


def test_what_the_listener_is_told_reaches_it(tmp_path: Path) -> None:
    """Limits, times, TLS files and callers' particulars arrive in the listener's own settings, paths made whole."""
    told = listener_settings(load(write(tmp_path, LISTENER), {"WETREAD_HOME": str(tmp_path / "home")}))
    assert (told.processes, told.max_associations_per_caller, told.max_object_bytes) == (3, 7, 100 * 2**20)
    assert (told.acse_timeout, told.dimse_timeout) == (5, 60)
    assert told.tls == TlsSettings(
        tmp_path / "tls" / "wetread.pem",
        Path("/etc/ssl/wetread.key"),
        client_ca=tmp_path / "tls" / "callers.pem",
        crl=tmp_path / "tls" / "revoked.pem",
    )
    (caller,) = told.callers
    assert caller.certificate_sha256 == "abcdef0123456789" * 4
    assert (caller.study_idle_seconds, caller.study_max_seconds, caller.expected_numbers) == (5, None, True)
    assert caller.ask is not None
    assert caller.ask.tls == ClientTls(ca=tmp_path / "tls" / "pacs.pem", crl=tmp_path / "tls" / "revoked-pacs.pem")


def test_the_defaults_are_those_of_the_listener(tmp_path: Path) -> None:
    """What nobody configured is what the listener itself takes for granted, but for the spool's watermark."""
    told = listener_settings(load(None, {"WETREAD_HOME": str(tmp_path)}))
    assert replace(told, min_free_bytes=0) == ListenerSettings(min_free_bytes=0)


def test_a_section_within_a_section_can_be_given_by_the_environment(tmp_path: Path) -> None:
    """`WETREAD_DICOM__TLS__KEY` wins over the file, and what names no setting there is refused."""
    environ = {"WETREAD_HOME": str(tmp_path), "WETREAD_DICOM__TLS__PORT": "2000"}
    tls = load(write(tmp_path, LISTENER), environ).file.dicom.tls
    assert tls is not None
    assert tls.port == 2000
    for name in ("WETREAD_DICOM__TLS", "WETREAD_DICOM__TLS__NONE", "WETREAD_DICOM__PORT__X", "WETREAD_CALLER__HOST"):
        with pytest.raises(SettingsError, match=f"{name} names no setting"):
            load(None, {"WETREAD_HOME": str(tmp_path), name: "1"})


TLS_OF_THE_SERVER = '[dicom.tls]\ncertificate = "a"\nkey = "b"\n'
CALLER = '[[caller]]\nae_title = "CT1"\nhost = "10.0.0.5"\n'
DESTINATION = '[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 104\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[caller]]\nae_title = "CT1"\nhost = "10.0.0.0/33"\n', "a network such as"),
        ('[[caller]]\nae_title = "CT1"\nhost = "10.0.0.256"\n', "an address"),
        ('[[caller]]\nae_title = "CT1"\nhost = "ct 1"\n', "a host name"),
        (f'{CALLER}certificate_sha256 = "12:34"\n', "64 hexadecimal digits"),
        (f'{CALLER}certificate_sha256 = "{"a" * 64}"\n', "needs [dicom.tls] with a client_ca"),
        (f'{TLS_OF_THE_SERVER}{CALLER}certificate_sha256 = "{"a" * 64}"\n', "needs [dicom.tls] with a client_ca"),
        (f'{TLS_OF_THE_SERVER}crl = "c"\n', "crl needs the client_ca"),
        (f'{DESTINATION}tls_crl = "c"\n', "need tls = true"),
        (f"{CALLER}study_idle_seconds = 7200\n", "study_max_seconds must not be less"),
        (f"{CALLER}study_max_seconds = 5\n", "study_max_seconds must not be less"),
        (f'{CALLER}ask = "pax"\n{DESTINATION}', "configured as [[destination]] are: pacs"),
        (f"{TLS_OF_THE_SERVER}port = 11112\n", "dicom.tls.port must differ"),
        ("[dicom.tls]\nport = 2762\n", "certificate"),
        (f'{DESTINATION}tls_ca = "a"\n', "need tls = true"),
        (f'{DESTINATION}tls = true\ntls_key = "a"\n', "needs the tls_certificate"),
        ("[dicom]\nmax_associations = 0\n", "max_associations"),
        ("[dicom]\nacse_timeout_seconds = 0\n", "acse_timeout_seconds"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, words: str) -> None:
    """Settings of the listener that contradict each other, or say nothing that can be, stop the start with a reason."""
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, text), {"WETREAD_HOME": str(tmp_path)})
    assert words in str(caught.value)
