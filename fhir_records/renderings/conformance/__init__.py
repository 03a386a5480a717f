"""The gate: what we write is checked before it may leave, by rules that travel with us.

No table is fetched and no other program is needed. A fault names the attribute or the content item and the rule, never
a value: it is shown to administrators and written to the log.
"""

from __future__ import annotations

import io

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from fhir_records.renderings.conformance.air import air_faults, equipment_faults
from fhir_records.renderings.conformance.content_tree import tree_faults
from fhir_records.renderings.conformance.iod import iod_faults
from fhir_records.renderings.conformance.key_object_template import TID_2010, takes_back
from fhir_records.renderings.conformance.pixels import pixel_faults
from fhir_records.renderings.conformance.references import reference_faults
from fhir_records.renderings.conformance.relationships import relation_faults
from fhir_records.renderings.conformance.report_template import TID_1500
from fhir_records.renderings.conformance.values import value_faults
from fhir_records.renderings.kinds import SR_CLASSES

_LONGEST_LIST = 40  # faults; more would only repeat themselves


def faults_of(content: bytes) -> tuple[str, ...]:
    """What is wrong with an object of ours, a sentence each; empty: it may leave.

    `content` is a PS3.10 file. Checked are its file meta information, its IOD (modules, types, conditions, enumerated
    values), the form of every value, its pixels' size, its references, and for documents their template and what IHE
    AI Results demands.
    """
    try:
        ds = dcmread(io.BytesIO(content))
        ds.decode()
        found = [*_file_faults(ds), *iod_faults(ds), *value_faults(ds), *pixel_faults(ds), *reference_faults(ds)]
        if ds.get("SOPClassUID") in SR_CLASSES:
            found += [*tree_faults(ds, TID_1500), *relation_faults(ds), *air_faults(ds)]
        elif ds.get("SOPClassUID") == KeyObjectSelectionDocumentStorage:
            found += tree_faults(ds, TID_2010)
        if not takes_back(ds):
            found += equipment_faults(ds)
    except Exception as error:  # boundary: pydicom raises whatever a broken file brings about, and it must not leave
        return (f"The object cannot be read back: {type(error).__name__}.",)
    return tuple(dict.fromkeys(found))[:_LONGEST_LIST]


def _file_faults(ds: Dataset) -> list[str]:
    """PS3.10 section 7.1."""
    meta = ds.file_meta
    found = []
    if meta.get("MediaStorageSOPClassUID") != ds.get("SOPClassUID"):
        found.append("MediaStorageSOPClassUID is not the SOPClassUID.")
    if meta.get("MediaStorageSOPInstanceUID") != ds.get("SOPInstanceUID"):
        found.append("MediaStorageSOPInstanceUID is not the SOPInstanceUID.")
    if meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        found.append("TransferSyntaxUID is not Explicit VR Little Endian, in which all objects are written.")
    return found
