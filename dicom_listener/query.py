"""Query SCU: whether another node has an object of ours (PS3.4 Annex C, Study Root)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from dicom_listener.sender import SUCCESS, associated
from dicom_listener.settings import Node, SenderSettings
from fhir_records.errors import PeerRefused, PeerUnavailable

_PENDING = (0xFF00, 0xFF01)  # PS3.4 table C.4-1


def has_object(node: Node, settings: SenderSettings, study_uid: str, series_uid: str, sop_uid: str) -> bool:
    """Whether ``node`` lists the object when it is asked for it by its UIDs.

    Raises:
        PeerUnavailable: the node does not answer.
        PeerRefused: it takes no queries of the Study Root model, or refuses this one.
    """
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID, asked.SeriesInstanceUID, asked.SOPInstanceUID = study_uid, series_uid, sop_uid
    model = StudyRootQueryRetrieveInformationModelFind
    found = False
    with associated(node, settings, [build_context(model)]) as assoc:
        try:
            for status, answer in assoc.send_c_find(asked, model):
                if "Status" not in status:
                    raise PeerUnavailable(f"{node.name} gave no answer to C-FIND.")
                if status.Status in _PENDING:
                    # Some nodes ignore a key that they do not support, and list everything.
                    found = found or (answer is not None and answer.get("SOPInstanceUID") == sop_uid)
                elif status.Status != SUCCESS:
                    words = f"{node.name} answered C-FIND with {status.Status:04X}."
                    raise PeerRefused(words, status=int(status.Status))
        except (OSError, RuntimeError, ValueError) as error:
            raise PeerUnavailable(f"{node.name} ended the association.") from error
    return found
