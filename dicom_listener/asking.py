"""Query SCU: how many instances a PACS says that a study has (PS3.4 Annex C, Study Root, STUDY level)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context

from dicom_listener.sender import associated
from dicom_listener.settings import Node, SenderSettings
from fhir_records.errors import PeerRefused, PeerUnavailable

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SUCCESS = 0x0000
_PENDING = {0xFF00, 0xFF01}  # PS3.4 section C.4.1.1.4
# An answer that never ends is none; Study Instance UID is unique, so one match is what there can be.
_MOST_ANSWERS = 10


@dataclass(frozen=True, slots=True)
class StudyNumbers:
    """What a PACS says that it has of a study; None: it does not say."""

    instances: int | None  # Number of Study Related Instances (0020,1208)
    series: int | None  # Number of Study Related Series (0020,1206)


def study_numbers(node: Node, settings: SenderSettings, study_uid: str) -> StudyNumbers | None:
    """Ask ``node`` how much it has of a study; None: it does not know the study.

    Raises:
        PeerUnavailable: the node does not answer.
        PeerRefused: it does not answer such questions, or answers with a failure.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_uid
    identifier.NumberOfStudyRelatedSeries = None
    identifier.NumberOfStudyRelatedInstances = None
    found: StudyNumbers | None = None
    with associated(node, settings, [build_context(STUDY_ROOT_FIND)]) as assoc:
        try:
            for place, (status, answer) in enumerate(assoc.send_c_find(identifier, STUDY_ROOT_FIND)):
                if "Status" not in status or place > _MOST_ANSWERS:
                    raise PeerUnavailable(f"{node.name} did not finish its answer to C-FIND.")
                if status.Status in _PENDING:
                    if answer is not None and str(answer.get("StudyInstanceUID", "")) == study_uid:
                        found = StudyNumbers(
                            _number(answer, "NumberOfStudyRelatedInstances"),
                            _number(answer, "NumberOfStudyRelatedSeries"),
                        )
                elif status.Status != SUCCESS:
                    raise PeerRefused(f"{node.name} answered C-FIND with {status.Status:04X}.", status=status.Status)
        except (ValueError, AttributeError, OSError, RuntimeError) as error:
            raise PeerUnavailable(f"{node.name} ended the association.") from error
    return found


def _number(ds: Dataset, keyword: str) -> int | None:
    try:
        number = int(str(ds.get(keyword) or 0))
    except ValueError:
        return None
    return number if 0 < number < 2**31 else None
