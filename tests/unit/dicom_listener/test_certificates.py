"""Files of certificates: when they end, and what a person is told about them before callers are refused."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_listener.certificates import SOON, expiries, faults, read_certificates, read_lists
from dicom_listener.settings import ClientTls, TlsSettings
from fhir_records.errors import SettingsError
from tests.certificates import Authority, Issued, authority
from tests.peers import HOST

# Certificates are made while the tests run, and are not valid before: maybe long after this file was read.
NOW = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"), days=400)


@pytest.fixture(scope="module")
def server(ours: Authority) -> Issued:
    return ours.issue("server", days=90)


def told(settings: TlsSettings | ClientTls, now: dt.datetime = NOW, *hosts: str) -> list[str]:
    """The faults in words, those that keep TLS from working marked."""
    return [f"{'' if fault.works else 'BAD: '}{fault.words}" for fault in faults(settings, now, hosts)]


def test_sound_files_have_no_fault_and_an_end(ours: Authority, server: Issued) -> None:
    """Of each file the first end is told; far from it nothing is wrong."""
    settings = TlsSettings(server.certificate, server.key, client_ca=ours.certificate, crl=ours.revoke())
    assert told(settings) == []
    ends = {end.part: (end.at - NOW) / DAY for end in expiries(settings)}
    assert ends == pytest.approx({"certificate": 90, "authorities": 400, "revoked": 1}, abs=0.1)


def test_what_ends_soon_or_has_ended_is_named(ours: Authority, server: Issued) -> None:
    """30 days before its end a certificate is named, after it TLS does not work; an old authority is only named."""
    settings = TlsSettings(server.certificate, server.key, client_ca=ours.certificate)
    end = read_certificates(server.certificate)[0].not_valid_after_utc
    assert told(settings, end - SOON - DAY) == []
    assert told(settings, end - SOON) == [f'the certificate "server" ends in 30 days, on {end.date()}']
    assert told(settings, end) == [f'BAD: the certificate "server" has ended on {end.date()}']
    assert told(settings, NOW - DAY)[0].startswith('BAD: the certificate "server" is not valid before')
    (_, last) = told(settings, NOW + 500 * DAY)
    assert last.startswith('the authority "authority" has ended on')


def test_lists_of_revoked_certificates_are_looked_at(ours: Authority, server: Issued, tmp_path: Path) -> None:
    """A list that nobody renewed, or that an authority lacks, is named before callers are refused for it."""
    settings = TlsSettings(server.certificate, server.key, client_ca=ours.certificate, crl=ours.revoke())
    assert told(settings, NOW + dt.timedelta(hours=20))[0].startswith('the list of certificates revoked by "authority"')
    assert told(settings, NOW + 2 * DAY)[0].startswith('BAD: the list of certificates revoked by "authority" has ended')
    others = authority(tmp_path / "others", "others")
    assert told(replace(settings, client_ca=others.certificate))[-1] == (
        'there is no list of certificates revoked by "others": whomever it signed is refused'
    )


def test_a_key_that_does_not_fit_or_is_open_to_all_is_named(ours: Authority, server: Issued, tmp_path: Path) -> None:
    """Another certificate's key, none at all, and one that everybody can read."""
    other = ours.issue("other", days=90)
    settings = TlsSettings(server.certificate, other.key)
    assert told(settings) == [f'BAD: the key {other.key} does not belong to the certificate "server"']
    assert "holds no private key" in told(replace(settings, key=server.certificate))[0]
    both = tmp_path / "both.pem"
    both.write_text(server.key.read_text() + server.certificate.read_text())
    both.chmod(0o600)
    assert told(ClientTls(certificate=both)) == []
    both.chmod(0o644)
    assert told(ClientTls(certificate=both)) == [f"the key {both} can be read by everybody on this machine"]


def test_a_certificate_for_something_else_is_named(ours: Authority) -> None:
    """A server's certificate must be for servers, a client's for clients; one that does not say is for both."""
    client, server = ours.issue("a-client", days=90, usage="clientAuth"), ours.issue("s", days=90, usage="serverAuth")
    for one, settings_of, words in (
        (client, TlsSettings, ['BAD: the certificate "a-client" is not for TLS servers (Extended Key Usage)']),
        (server, TlsSettings, []),
    ):
        assert told(settings_of(one.certificate, one.key)) == words
    assert told(ClientTls(certificate=client.certificate, key=client.key)) == []
    assert "is not for TLS clients" in told(ClientTls(certificate=server.certificate, key=server.key))[0]


@pytest.mark.parametrize(
    ("host", "called", "words"),
    [
        (HOST, (HOST, "pacs.example"), ""),
        ("pacs.example", ("PACS.example.",), ""),
        ("*.example", ("pacs.example",), ""),
        ("*.example", ("pacs.other.example",), "this machine is called pacs.other.example"),
        ("scanner.example", ("pacs.example",), "names scanner.example, and this machine is called pacs.example"),
        ("", (HOST,), "names no host"),
    ],
)  # fmt: skip
def test_whom_the_certificate_names(ours: Authority, host: str, called: tuple[str, ...], words: str) -> None:
    """Callers compare the name by which they reach us: a certificate for another machine is named."""
    issued = ours.issue(f"for-{host.replace('*', 'any') or 'nobody'}", days=90, host=host)
    found = told(TlsSettings(issued.certificate, issued.key), NOW, *called)
    assert len(found) == bool(words)
    assert all(words in fault for fault in found)


def test_files_that_are_something_else_are_refused(ours: Authority, server: Issued, tmp_path: Path) -> None:
    """No file, no certificate, a list with a certificate in it, or cut in the middle: an error names the file."""
    mixed, cut = tmp_path / "mixed.pem", tmp_path / "cut.pem"
    shutil.copyfile(ours.revoke(), mixed)
    assert len(read_lists(mixed)) == 1
    cut.write_text(mixed.read_text()[:-60])
    with mixed.open("a") as file:
        file.write(server.certificate.read_text())
    for read, path in (
        (read_lists, mixed),
        (read_lists, cut),
        (read_lists, server.certificate),
        (read_lists, tmp_path / "none.pem"),
        (read_certificates, server.key),
        (read_certificates, tmp_path / "none.pem"),
    ):
        with pytest.raises(SettingsError, match=path.name):
            read(path)
