"""What ``wetread doctor`` says of the files of TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.doctor import Verdict, certificate_checks
from deploy.settings import load
from tests.certificates import Authority, authority

_CONFIG = """
[dicom]
host = "127.0.0.1"

[dicom.tls]
certificate = "{server}.pem"
key = "{key}.key"
client_ca = "authority.pem"
crl = "authority.crl"

[[destination]]
name = "pacs"
ae_title = "PACS"
host = "pacs.example"
port = 2762
tls = true
tls_ca = "{ca}.pem"
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority with everything that a sound installation has."""
    ours = authority(tmp_path_factory.mktemp("ours"), days=400)
    ours.issue("server", days=90)
    ours.issue("elsewhere", days=20, host="scanner.example")
    ours.revoke()
    return ours


def told(folder: Path, *, server: str = "server", key: str = "server", ca: str = "authority") -> list[tuple[str, ...]]:
    """Verdict, what and words of each check."""
    path = folder / "wetread.toml"
    path.write_text(_CONFIG.format(server=server, key=key, ca=ca))
    settings = load(path, {"WETREAD_HOME": str(folder)})
    return [(check.verdict, check.what, check.words) for check in certificate_checks(settings)]


def test_sound_files_are_good_until_their_first_end(ours: Authority) -> None:
    """One line for the listener and one for each destination, with the day of the first end."""
    found = told(ours.folder)
    assert [(verdict, what) for verdict, what, _ in found] == [
        (Verdict.GOOD, "TLS"),
        (Verdict.GOOD, "TLS to pacs"),
    ]
    assert all(words.startswith("good until 2") for _, _, words in found)


def test_what_ends_or_does_not_fit_is_named(ours: Authority) -> None:
    """A certificate for another machine that ends soon is to be looked at; another's key, or no file, is bad."""
    first, second, third = told(ours.folder, server="elsewhere", key="elsewhere", ca="none")
    assert first[:2] == second[:2] == (Verdict.LOOK, "TLS")
    assert "ends in 19 days" in first[2]
    assert "names scanner.example, and this machine is called 127.0.0.1" in second[2]
    assert third[:2] == (Verdict.BAD, "TLS to pacs")
    assert "none.pem cannot be read" in third[2]
    ((verdict, what, words),) = told(ours.folder, key="elsewhere")[:1]
    assert (verdict, what) == (Verdict.BAD, "TLS")
    assert "does not belong to the certificate" in words
