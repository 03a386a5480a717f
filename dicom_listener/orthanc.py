"""Orthanc's REST API: which studies changed, their objects, and a result stored back.

The library's errors end here: what went wrong is a `PeerUnavailable` (try again) or a `PeerRefused` (trying again will
not mend it). Orthanc's own error texts may quote patient data and go no further than this file.
Source: the Orthanc Book, "REST API of Orthanc" and "Tracking changes".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import requests
import structlog
from orthanc_api_client import ChangeType, OrthancApiClient
from orthanc_api_client import exceptions as orthanc_errors

from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.identities import log_id

_log = structlog.get_logger(__name__)

# Series that are no images to read: reports, key object selections, presentation states, segmentations, plans,
# registrations, documents, waveforms (PS3.3 section C.7.3.1.1.1, PS3.16 CID 32 and 34). Never fetched.
NOT_READ_MODALITIES = frozenset(
    {
        *("SR", "KO", "PR", "SEG", "DOC", "REG", "FID", "RWV", "PLAN", "ASMT", "STAIN", "TEXTUREMAP", "M3D"),
        *("RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "RTSEGANN", "ANN"),
        *("ECG", "EPS", "EEG", "EMG", "EOG", "HD", "RESP", "AU", "POS"),
    }
)

# Changes a request returns at most; Orthanc's own default is 100.
CHANGES_PER_PAGE = 1000

# HTTP answers that another attempt may turn into a success, besides every 5xx.
_TRANSIENT = frozenset({408, 409, 423, 425, 429})


@dataclass(frozen=True, slots=True)
class OrthancNode:
    """An Orthanc that is followed through its REST API."""

    name: str
    url: str
    username: str = ""  # "": no log-in
    password: str = field(default="", repr=False)
    timeout_s: float = 30.0  # to connect, and between two parts of an answer

    @property
    def source(self) -> str:
        """How the record names the door that this Orthanc's objects came through."""
        return f"orthanc:{self.name}"


class ChangeKind(StrEnum):
    """What a change says, as far as following is concerned (Orthanc's ``ChangeType``)."""

    STABLE_STUDY = "StableStudy"
    NEW_INSTANCE = "NewInstance"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of Orthanc's log of changes."""

    sequence: int
    kind: ChangeKind
    orthanc_id: str  # of the study, or of the instance


@dataclass(frozen=True, slots=True)
class OrthancInstance:
    """One instance as Orthanc lists it."""

    orthanc_id: str
    sop_uid: str
    modality: str


@dataclass(frozen=True, slots=True)
class OrthancStudy:
    """A study as Orthanc lists it."""

    orthanc_id: str
    study_uid: str
    stable: bool  # nothing arrived there for Orthanc's ``StableAge``
    instances: tuple[OrthancInstance, ...]


class UploadOutcome(StrEnum):
    """How Orthanc took an object."""

    STORED = "stored"
    ALREADY_STORED = "already stored"


class _Client(OrthancApiClient):  # type: ignore[misc]  # the library is not typed
    """The library's client with the time limit that it lacks."""

    def __init__(self, node: OrthancNode) -> None:
        self._timeout_s = node.timeout_s
        # The library joins by RFC 3986: without the slash the last part of a proxied path would be lost.
        super().__init__(node.url.rstrip("/") + "/", user=node.username or None, pwd=node.password or None)

    def get(self, endpoint: str, **options: Any) -> requests.Response:
        """GET with the node's time limit."""
        return self._answer(super().get(endpoint, timeout=self._timeout_s, **options))

    def post(self, endpoint: str, **options: Any) -> requests.Response:
        """POST with the node's time limit."""
        return self._answer(super().post(endpoint, timeout=self._timeout_s, **options))

    def delete(self, endpoint: str, **options: Any) -> requests.Response:
        """DELETE with the node's time limit."""
        return self._answer(super().delete(endpoint, timeout=self._timeout_s, **options))

    @staticmethod
    def _answer(response: requests.Response | None) -> requests.Response:
        # The library gives None where requests raised what it does not know, a broken transfer for one.
        if response is None:
            raise orthanc_errors.ConnectionError
        return response


@contextmanager
def _connected(node: OrthancNode) -> Iterator[_Client]:
    """A client of the node; everything that goes wrong with it comes out as ours.

    Raises:
        PeerUnavailable: it does not answer, answers with a server error, or not as an Orthanc.
        PeerRefused: it answered, and said no.
    """
    try:
        client = _Client(node)
        try:
            yield client
        finally:
            client.close()
    except orthanc_errors.HttpError as error:
        status = int(error.http_status_code or 0)
        if status in (401, 403):
            raise PeerRefused(f"Orthanc {node.name} refuses the log-in (HTTP {status}).") from error
        if status >= 500 or status in _TRANSIENT:
            raise PeerUnavailable(f"Orthanc {node.name} answered with HTTP {status}.") from error
        raise PeerRefused(f"Orthanc {node.name} refused the request (HTTP {status}).") from error
    except orthanc_errors.OrthancApiException as error:
        raise PeerUnavailable(f"Orthanc {node.name} does not answer.") from error
    except requests.RequestException as error:
        raise PeerUnavailable(f"Orthanc {node.name} does not answer as an Orthanc does.") from error


def _malformed(node: OrthancNode) -> PeerUnavailable:
    return PeerUnavailable(f"Orthanc {node.name} does not answer as an Orthanc does.")


def changes_since(
    node: OrthancNode, last: int, *, limit: int = CHANGES_PER_PAGE
) -> tuple[tuple[Change, ...], int, bool]:
    """The changes after sequence number ``last``, oldest first, at most about ``limit`` lines of Orthanc's log.

    Returns:
        The changes that matter to following; the sequence number to go on from; whether that is the end for now. A
        sequence number lower than ``last`` says that Orthanc's database is another one than it was.

    Raises:
        PeerUnavailable, PeerRefused: see `_connected`.
    """
    with _connected(node) as client:
        try:
            lines, new_last, done = client.get_changes(since=last, limit=limit)
            if not lines:
                # Versions differ in what they call the last one of an empty page; this is the log's own end.
                end = int(client.get_json("changes?last")["Last"])
                return (), min(last, end), True
            kinds = {ChangeType.STABLE_STUDY: ChangeKind.STABLE_STUDY, ChangeType.NEW_INSTANCE: ChangeKind.NEW_INSTANCE}
            changes = tuple(
                Change(int(line.sequence_id), kinds[line.change_type], str(line.resource_id))
                for line in lines
                if line.change_type in kinds
            )
            return changes, int(new_last), bool(done)
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(node) from error


def describe_study(node: OrthancNode, orthanc_study_id: str) -> OrthancStudy | None:
    """What Orthanc has of a study; None where it has it no longer.

    Raises:
        PeerUnavailable, PeerRefused: see `_connected`.
    """
    with _connected(node) as client:
        try:
            study = client.get_json(f"studies/{orthanc_study_id}")
            series = client.get_json(f"studies/{orthanc_study_id}/series?expand")
            instances = client.get_json(f"studies/{orthanc_study_id}/instances?expand")
            modalities = {one["ID"]: str(one["MainDicomTags"].get("Modality", "")).strip() for one in series}
            return OrthancStudy(
                orthanc_id=orthanc_study_id,
                study_uid=str(study["MainDicomTags"]["StudyInstanceUID"]),
                stable=bool(study["IsStable"]),
                instances=tuple(
                    OrthancInstance(
                        orthanc_id=str(one["ID"]),
                        sop_uid=str(one["MainDicomTags"]["SOPInstanceUID"]),
                        # A series that came between the two requests is an image series until its bytes say otherwise.
                        modality=modalities.get(one["ParentSeries"], ""),
                    )
                    for one in instances
                ),
            )
        except orthanc_errors.ResourceNotFound:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _malformed(node) from error


def study_of_instance(node: OrthancNode, orthanc_instance_id: str) -> str | None:
    """Orthanc's identifier of the study of an instance; None where it has the instance no longer.

    Raises:
        PeerUnavailable, PeerRefused: see `_connected`.
    """
    with _connected(node) as client:
        try:
            return str(client.get_json(f"instances/{orthanc_instance_id}/study")["ID"])
        except orthanc_errors.ResourceNotFound:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(node) from error


def fetch_objects(node: OrthancNode, study: OrthancStudy, *, known: Callable[[str], bool]) -> Iterator[bytes]:
    """The files (PS3.10) of the study's images that are not ``known``, one at a time.

    Series that are never read (`NOT_READ_MODALITIES`) are left where they are, and so is what was deleted meanwhile.

    Args:
        node: the Orthanc.
        study: what it has of the study.
        known: whether the object with this SOP Instance UID is here already, or was written by us.

    Raises:
        PeerUnavailable, PeerRefused: see `_connected`.
    """
    with _connected(node) as client:
        for instance in study.instances:
            if instance.modality in NOT_READ_MODALITIES or known(instance.sop_uid):
                continue
            try:
                content: bytes = client.instances.get_file(instance.orthanc_id)
            except orthanc_errors.ResourceNotFound:
                _log.warning("object is gone from Orthanc", orthanc=node.name, instance=log_id(instance.sop_uid))
                continue
            yield content


def fetch_study(node: OrthancNode, orthanc_study_id: str, *, known: Callable[[str], bool]) -> Iterator[bytes]:
    """`describe_study` and `fetch_objects` in one: nothing comes where Orthanc has the study no longer."""
    study = describe_study(node, orthanc_study_id)
    if study is not None:
        yield from fetch_objects(node, study, known=known)


def upload(node: OrthancNode, content: bytes) -> UploadOutcome:
    """Store one object (a PS3.10 file) in Orthanc.

    Raises:
        PeerUnavailable: Orthanc does not answer, or cannot store anything now (a full disk, say).
        PeerRefused: Orthanc does not take this object, or refuses the log-in.
    """
    with _connected(node) as client:
        try:
            answer = client.post("instances", data=content, headers={"Content-Type": "application/dicom"}).json()
            status = answer["Status"]
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(node) from error
    if status == "Success":
        return UploadOutcome.STORED
    if status == "AlreadyStored":
        return UploadOutcome.ALREADY_STORED
    # "FilteredOut": a filter of the site's own said no.
    raise PeerRefused(f"Orthanc {node.name} did not keep the object.")


def has_instance(node: OrthancNode, sop_uid: str) -> bool:
    """Whether Orthanc keeps the object with this SOP Instance UID.

    Raises:
        PeerUnavailable: Orthanc does not answer.
        PeerRefused: Orthanc refuses the log-in or the request.
    """
    with _connected(node) as client:
        return bool(_ids_of(client, node, sop_uid))


def remove(node: OrthancNode, sop_uid: str) -> int:
    """Delete the object with this SOP Instance UID from Orthanc, and see that it is gone.

    Returns:
        How many were deleted; 0 where it was not there.

    Raises:
        PeerUnavailable: Orthanc does not answer, or has it still.
        PeerRefused: Orthanc refuses the log-in or the request.
    """
    with _connected(node) as client:
        found = _ids_of(client, node, sop_uid)
        for orthanc_id in found:
            client.instances.delete(orthanc_id, ignore_errors=True)
        if found and _ids_of(client, node, sop_uid):
            raise PeerUnavailable(f"Orthanc {node.name} has the object still, after it was deleted.")
    return len(found)


def _ids_of(client: _Client, node: OrthancNode, sop_uid: str) -> list[str]:
    try:
        return [str(orthanc_id) for orthanc_id in client.lookup(sop_uid, filter="Instance")]
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(node) from error
