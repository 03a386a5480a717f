"""The configuration: what is taken, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings import load, parse_routes
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
