"""Orthanc's REST API as seen by us, against a small HTTP server that answers as Orthanc does, and as it should not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dicom_listener import orthanc
from dicom_listener.orthanc import ChangeKind, OrthancNode, UploadOutcome
from fhir_records.errors import PeerRefused, PeerUnavailable, WetreadError

STUDY = "aaaaaaaa-bbbbbbbb-cccccccc-dddddddd-eeeeeeee"
PATIENT_NAME = "Nobody^Knows"


@dataclass
class Script:
    """What the server answers, and what it was asked."""

    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # path → status and body
    asked: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    cut_at: int | None = None  # bytes of a body after which the connection is closed

    def say(self, path: str, content: Any, status: int = 200) -> None:
        """Answer ``path`` with this JSON, or these bytes."""
        self.answers[path] = (status, content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture
def script() -> Script:
    """The script of the test's server; 404 for all that it does not name."""
    return Script()


@pytest.fixture
def node(script: Script) -> Iterator[OrthancNode]:
    """A node whose server follows the script."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.asked.append(self.path)
            time.sleep(script.delay_s)
            status, body = script.answers.get(self.path, (404, b"{}"))
            with suppress(BrokenPipeError):  # who asked may have given up
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: script.cut_at])
            if script.cut_at is not None:
                self.close_connection = True

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield OrthancNode("archive", f"http://127.0.0.1:{server.server_port}", timeout_s=2.0)
    finally:
        server.shutdown()
        server.server_close()


def describe(script: Script, instances: dict[str, tuple[str, str]]) -> None:
    """Let the server hold one study: Orthanc's instance id → SOP Instance UID and modality of its series."""
    script.say(f"/studies/{STUDY}", {"MainDicomTags": {"StudyInstanceUID": "1.2.3"}, "IsStable": True})
    modalities = sorted({modality for _, modality in instances.values()})
    script.say(
        f"/studies/{STUDY}/series?expand",
        [{"ID": f"series-{modality}", "MainDicomTags": {"Modality": modality}} for modality in modalities],
    )
    script.say(
        f"/studies/{STUDY}/instances?expand",
        [
            {"ID": key, "ParentSeries": f"series-{modality}", "MainDicomTags": {"SOPInstanceUID": sop_uid}}
            for key, (sop_uid, modality) in instances.items()
        ],
    )
    for key, (sop_uid, _) in instances.items():
        script.say(f"/instances/{key}/file", sop_uid.encode())


def test_changes_are_told_in_order_and_other_kinds_left_out(script: Script, node: OrthancNode) -> None:
    """Stable studies and new instances come with their sequence numbers; what else Orthanc logs does not."""
    kinds = ["NewInstance", "NewSeries", "NewStudy", "StableSeries", "StableStudy"]
    lines = [
        {"ChangeType": kind, "Date": "20260101T120000", "Seq": 8 + n, "ResourceType": "Study", "ID": f"id{n}"}
        for n, kind in enumerate(kinds)
    ]
    script.say("/changes?since=7&limit=1000", {"Changes": lines, "Last": 12, "Done": False})
    changes, last, done = orthanc.changes_since(node, 7)
    assert [(change.sequence, change.kind, change.orthanc_id) for change in changes] == [
        (8, ChangeKind.NEW_INSTANCE, "id0"),
        (12, ChangeKind.STABLE_STUDY, "id4"),
    ]
    assert (last, done) == (12, False)


@pytest.mark.parametrize(("end", "expected"), [(7, 7), (3, 3), (0, 0)])
def test_an_empty_page_says_where_the_log_ends(script: Script, node: OrthancNode, end: int, expected: int) -> None:
    """A log that ends before our place is told apart from one in which nothing is new, whatever `Last` the page has."""
    script.say("/changes?since=7&limit=1000", {"Changes": [], "Last": 7, "Done": True})
    script.say("/changes?last", {"Changes": [], "Last": end, "Done": True})
    assert orthanc.changes_since(node, 7) == ((), expected, True)


def test_only_unknown_images_are_fetched(script: Script, node: OrthancNode) -> None:
    """Reports, key objects and segmentations, and images that are known, are not even asked for."""
    describe(
        script,
        {"a": ("1.1", "MR"), "b": ("1.2", "SR"), "c": ("1.3", "MR"), "d": ("1.4", "SEG"), "e": ("1.5", "KO")},
    )
    objects = list(orthanc.fetch_study(node, STUDY, known={"1.3"}.__contains__))
    assert objects == [b"1.1"]
    assert [path for path in script.asked if path.endswith("/file")] == ["/instances/a/file"]


def test_an_object_deleted_meanwhile_is_passed_over(script: Script, node: OrthancNode) -> None:
    """What Orthanc no longer has when it is asked for does not keep the other objects back."""
    describe(script, {"a": ("1.1", "MR"), "b": ("1.2", "MR")})
    del script.answers["/instances/a/file"]
    assert list(orthanc.fetch_study(node, STUDY, known=lambda _: False)) == [b"1.2"]


def test_a_study_deleted_meanwhile_is_nothing(node: OrthancNode) -> None:
    """A study that Orthanc no longer has gives no objects and no error."""
    assert orthanc.describe_study(node, STUDY) is None
    assert list(orthanc.fetch_study(node, STUDY, known=lambda _: False)) == []
    assert orthanc.study_of_instance(node, "a") is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, PeerRefused),
        (401, PeerRefused),
        (403, PeerRefused),
        (409, PeerUnavailable),
        (413, PeerRefused),
        (429, PeerUnavailable),
        (500, PeerUnavailable),
        (503, PeerUnavailable),
        (507, PeerUnavailable),
    ],
)
def test_a_failure_status_says_whether_to_try_again(
    script: Script, node: OrthancNode, status: int, error: type[WetreadError]
) -> None:
    """Busy, broken and full are worth another attempt; refusals are not; Orthanc's own words are not repeated."""
    body = {"Message": f"no {PATIENT_NAME}", "Details": PATIENT_NAME, "OrthancStatus": 15}
    script.say("/instances", body, status)
    with pytest.raises(error) as raised:
        orthanc.upload(node, b"object")
    assert "archive" in str(raised.value)
    assert PATIENT_NAME not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "outcome"), [("Success", UploadOutcome.STORED), ("AlreadyStored", UploadOutcome.ALREADY_STORED)]
)
def test_an_upload_that_succeeds_says_how(
    script: Script, node: OrthancNode, status: str, outcome: UploadOutcome
) -> None:
    """Newly stored and already there are both successes, told apart."""
    script.say("/instances", {"ID": "x", "Status": status})
    assert orthanc.upload(node, b"object") is outcome


def test_an_object_that_is_filtered_out_counts_as_refused(script: Script, node: OrthancNode) -> None:
    """HTTP 200 alone is no success: an Orthanc whose filter dropped the object has refused it."""
    script.say("/instances", {"ID": "x", "Status": "FilteredOut"})
    with pytest.raises(PeerRefused):
        orthanc.upload(node, b"object")


@pytest.mark.parametrize("body", [b"<html>a web server</html>", b"[]", b'{"Status": {}}', b"null"])
def test_what_is_no_orthanc_is_unavailable(script: Script, node: OrthancNode, body: bytes) -> None:
    """Answers that no Orthanc gives are one clear error, wherever they come."""
    script.say("/changes?limit=1000", body)
    script.say("/instances/a/study", body)
    for rest in ("", "/series?expand", "/instances?expand"):
        script.say(f"/studies/{STUDY}{rest}", body)
    with pytest.raises(PeerUnavailable):
        orthanc.changes_since(node, 0)
    with pytest.raises(PeerUnavailable):
        orthanc.describe_study(node, STUDY)
    with pytest.raises(PeerUnavailable):
        orthanc.study_of_instance(node, "a")


def test_a_transfer_that_breaks_off_gives_no_object(script: Script, node: OrthancNode) -> None:
    """Half a file is an error, never an object."""
    describe(script, {"a": ("1.1", "MR")})
    study = orthanc.describe_study(node, STUDY)
    assert study is not None
    script.say("/instances/a/file", bytes(100_000))
    script.cut_at = 50_000
    with pytest.raises(PeerUnavailable):
        list(orthanc.fetch_objects(node, study, known=lambda _: False))


def test_a_server_that_says_nothing_is_given_up(script: Script, node: OrthancNode) -> None:
    """The time limit ends waiting for an answer."""
    script.delay_s = 5.0
    silent = OrthancNode("silent", node.url, timeout_s=0.2)
    started = time.monotonic()
    with pytest.raises(PeerUnavailable):
        orthanc.changes_since(silent, 0)
    assert time.monotonic() - started < 4.5


def test_nobody_there_is_unavailable() -> None:
    """A port that nobody listens on is a peer that is away."""
    with pytest.raises(PeerUnavailable, match="does not answer"):
        orthanc.changes_since(OrthancNode("away", "http://127.0.0.1:9", timeout_s=1.0), 0)


def test_a_path_before_orthanc_is_kept(script: Script, node: OrthancNode) -> None:
    """An Orthanc behind a proxy's path is asked under that path."""
    script.say("/pacs/orthanc/instances", {"Status": "Success"})
    assert orthanc.upload(OrthancNode("proxied", node.url + "/pacs/orthanc"), b"object") is UploadOutcome.STORED


def test_the_password_does_not_show() -> None:
    """A node can be printed without giving its password away."""
    assert "secret" not in repr(OrthancNode("archive", "http://pacs:8042", "wetread", "secret"))
