"""All DICOM objects of one result, rendered at once from the same report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from fhir_records.errors import RenderingError
from fhir_records.model import Report, SaliencyMap
from fhir_records.renderings import kinds
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.renderings.encapsulated_pdf import render_pdf
from fhir_records.renderings.key_objects import render_ko
from fhir_records.renderings.parametric_map import render_map
from fhir_records.renderings.result_page import KeyPicture
from fhir_records.renderings.secondary_capture import render_sc
from fhir_records.renderings.segmentation import Segment, measured, render_seg


@dataclass(frozen=True, slots=True)
class NotRendered:
    """An object that did not come out, beside others that did."""

    kind: str
    reason: str  # without patient data


def render_objects(
    report: Report,
    evidence: Sequence[Dataset],
    wanted: Collection[str],
    *,
    maps: Sequence[SaliencyMap] = (),
    picture: KeyPicture | None = None,
    segments: Sequence[Segment] = (),
    signer: str = "",
) -> Iterator[DicomObject | NotRendered]:
    """The objects of the `wanted` kinds that the result has; the structured report always, and first.

    A kind that a result has none of (no key image, no map) is left out. `evidence` are the headers of
    `report.instances`, in the same order.

    Raises RenderingError where the structured report does not come out: without it nothing is sent at all.
    """
    # The report speaks of a Segmentation only where one is written.
    volumes = measured(report, evidence, segments) if kinds.SEGMENTATION in wanted else ()
    yield render_sr(report, evidence, volumes)
    makers: dict[str, Callable[[], DicomObject | None]] = {
        kinds.SECONDARY_CAPTURE: lambda: render_sc(report, evidence, picture, signer=signer),
        kinds.PARAMETRIC_MAP: lambda: render_map(report, evidence, maps),
        kinds.KEY_OBJECTS: lambda: render_ko(report, evidence),
        kinds.SEGMENTATION: lambda: render_seg(report, evidence, segments) if segments else None,
        kinds.ENCAPSULATED_PDF: lambda: render_pdf(report, evidence, picture, signer=signer),
    }
    for kind, make in makers.items():
        if kind not in wanted:
            continue
        try:
            made = make()
        except RenderingError as error:
            yield NotRendered(kind, str(error))
        else:
            if made is not None:
                yield made
