"""From a phantom's images to every object that speaks of its mass, and what a person makes of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import RenderingError
from fhir_records.model import Act, Presence
from fhir_records.renderings import kinds, plain_words
from fhir_records.renderings.fhir import render_report
from inference.registry import RegisteredModel
from tests.integration.outlined_heads import SLICES, VOXEL_MM3, OutlinedStudy, register, true_mass
from tests.peers import dciodvfy, dsrdump


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RegisteredModel:
    """The model that outlines bright masses, registered."""
    return register(tmp_path_factory.mktemp("outlining"))


@pytest.fixture
def study(database: Database, tmp_path: Path, model: RegisteredModel) -> OutlinedStudy:
    """A record and a place for files."""
    return OutlinedStudy(database, tmp_path, model)


def fhir_volumes(study: OutlinedStudy, result_id: int) -> list[float]:
    """The volumes of the Observation, in mL."""
    texts = {one.type: one.text for one in render_report(study.report(result_id))}
    parts = json.loads(texts["Observation"]).get("component", [])
    coded = [(part["code"].get("coding", [{}])[0].get("code"), part["valueQuantity"]) for part in parts]
    volumes = [quantity for code, quantity in coded if code == "118565006"]
    assert {(volume["unit"], volume["code"]) for volume in volumes} <= {("mL", "mL")}
    return [volume["value"] for volume in volumes]


def test_a_mass_is_outlined_measured_and_said_everywhere(study: OutlinedStudy, tmp_path: Path) -> None:
    """The mask lies on the phantom's mass, and record, SR, SEG, FHIR, page and words say the same volume of it."""
    result = study.read(1)
    finding = result.finding
    assert finding is not None and finding.presence is Presence.PRESENT and finding.code.meaning == "Mass"
    (said,) = finding.segments
    made = study.render(result.id)
    assert {kinds.SR, kinds.SEGMENTATION, kinds.SECONDARY_CAPTURE, kinds.KEY_OBJECTS} <= set(made)
    for kind, content in made.items():
        path = tmp_path / f"{kind}.out.dcm"
        path.write_bytes(content)
        errors, warnings = dciodvfy(path)
        assert not errors, (kind, errors)
        assert not warnings or kind not in (kinds.SR, kinds.SEGMENTATION), (kind, warnings)

    seg = hd.seg.segread(tmp_path / f"{kinds.SEGMENTATION}.out.dcm")
    described = seg.get_segment_description(1)
    assert (described.segment_label, described.tracking_uid) == ("Mass", said.tracking_uid)
    assert tuple(described.RecommendedDisplayCIELabValue) == hd.color.CIELabColor.from_rgb(246, 186, 70).value
    uids = [f"{study.study_uid}.1.{number}" for number in range(1, SLICES + 1)]
    mask = np.zeros((SLICES, 256, 256), bool)
    with_it = [uid for uid in uids if uid.encode() in made[kinds.SEGMENTATION]]
    sources = {
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: number
        for number, item in enumerate(seg.PerFrameFunctionalGroupsSequence)
    }
    for uid, number in sources.items():
        mask[uids.index(uid)] = seg.pixel_array[number].astype(bool)
    assert set(sources) <= set(with_it)
    truth = true_mass(1)
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    print(f"dice {dice:.3f}, {said.volume_mm3 / 1000:.1f} mL of {truth.sum() * VOXEL_MM3 / 1000:.1f}")
    # The mean over a centimetre draws the mass a little too small, always.
    assert dice > 0.85
    assert not mask[~truth].sum() > 0.02 * mask.sum()

    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    counted = mask.sum() * float(np.prod(measures.PixelSpacing)) * float(measures.SpacingBetweenSlices)
    assert counted == pytest.approx(said.volume_mm3, rel=1e-4)
    content = hd.sr.srread(io.BytesIO(made[kinds.SR])).content
    (group,) = content.get_volumetric_roi_measurement_groups()
    assert float(group.get_measurements()[0].value) == said.volume_mm3
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert fhir_volumes(study, result.id) == [round(said.volume_mm3 / 1000, 4)]
    words = f"Outlined by the model: mass {said.volume_mm3 / 1000:.1f} mL."
    assert words in plain_words.sentences(result)
    page = dcmread(io.BytesIO(made[kinds.SECONDARY_CAPTURE]))
    assert words in page.ImageComments and words in dsrdump(tmp_path / f"{kinds.SR}.out.dcm").replace("\\n", " ")
    # The line around it, in its colour; the amber of the page's own marks is elsewhere.
    panel = page.pixel_array[260:820, 520:1000]
    assert (np.abs(panel.astype(int) - [246, 186, 70]).max(axis=-1) < 24).sum() > 300


def test_nothing_outlined_is_said_without_a_segmentation(study: OutlinedStudy) -> None:
    """A head without a mass: no Segmentation, no volume anywhere, and the answer says no."""
    result = study.read(1, lesion=False)
    assert result.finding is not None and result.finding.presence is Presence.ABSENT
    assert result.finding.segments == ()
    made = study.render(result.id)
    assert kinds.SEGMENTATION not in made and kinds.SR in made
    assert fhir_volumes(study, result.id) == []
    assert plain_words.headline(result).startswith("No mass of the brain (probability")
    assert not hd.sr.srread(io.BytesIO(made[kinds.SR])).content.get_volumetric_roi_measurement_groups()


def test_a_signature_keeps_the_outline_and_a_correction_takes_it_away(study: OutlinedStudy) -> None:
    """Accepted, the Segmentation is written again under UIDs of its own; corrected, the machine's outline goes."""
    first = study.read(2)
    before = dcmread(io.BytesIO(study.render(first.id)[kinds.SEGMENTATION]))
    accepted = study.sign(Act.ACCEPT)
    after = dcmread(io.BytesIO(study.render(accepted.id)[kinds.SEGMENTATION]))
    assert after.SOPInstanceUID != before.SOPInstanceUID and after.PixelData == before.PixelData
    assert [one.TrackingUID for one in after.SegmentSequence] == [one.TrackingUID for one in before.SegmentSequence]
    corrected = study.sign(Act.CORRECT, 2, label="no mass")
    assert corrected.finding is not None and corrected.finding.presence is Presence.ABSENT
    assert corrected.finding.segments == ()
    assert kinds.SEGMENTATION not in study.render(corrected.id)
    assert fhir_volumes(study, corrected.id) == []
    assert not any("Outlined" in sentence for sentence in plain_words.sentences(corrected))


def test_outlines_that_are_gone_or_changed_stop_the_rendering(study: OutlinedStudy, database: Database) -> None:
    """A volume is never said of outlines that do not have it."""
    result = study.read(3)
    with database.session() as session:
        mask = session.scalars(select(tables.SegmentMask)).first()
        assert mask is not None
        session.delete(mask)
    with pytest.raises(RenderingError, match="another volume"):
        study.render(result.id)
    with database.session() as session:
        for row in session.scalars(select(tables.SegmentMask)):
            session.delete(row)
        session.flush()
        session.delete(session.scalars(select(tables.Segmentation)).one())
    with pytest.raises(RenderingError, match="none of them is kept"):
        study.render(result.id)


def test_images_that_make_no_volume_are_refused_in_every_form(study: OutlinedStudy) -> None:
    """A stack that does not say where it lies is refused in words, and the refusal is written."""
    result = study.read(1, FrameOfReferenceUID="")
    assert result.refusal is not None and result.refusal.code == "geometry"
    made = study.render(result.id)
    assert kinds.SR in made and kinds.SEGMENTATION not in made
