"""What the server gives the viewer of what a model outlined, to whom, and when no more."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Act, Role
from tests import outlined, seed
from tests.integration.web.forms import Enter
from tests.integration.web.signed import sign


@pytest.fixture
def study(database: Database) -> seed.Seeded:
    """A study with two things outlined, one on three slices, one on one; the first image lies highest."""
    with database.session() as session:
        return outlined.outlined_study(session, 1, outlined.Layout(reverse=True))


def overlays(study: seed.Seeded) -> str:
    """Where the overlays are asked for."""
    return f"/studies/{study.study_uid}/overlays"


def test_each_segment_has_name_volume_colour_and_a_line_of_its_own(enter: Enter, study: seed.Seeded) -> None:
    """The words say the volume, the colours are the result's, no two lines are dashed alike."""
    (read,) = enter(Role.CLINICIAN).get(overlays(study)).json()["outlines"]
    mass, oedema = read["segments"]
    assert read["words"] == "Brain MR tumour"
    assert (mass["key"], mass["number"], mass["name"]) == (f"{study.read_id}-1", 1, "Mass")
    volume = sum(outlined.mass_on(number).sum() for number in (1, 2, 3)) * 1.5 * 1.1 * 5 / 1000
    assert mass["words"] == f"mass {volume:.1f} mL"
    assert tuple(mass["colour"]) == outlined.MASS_COLOUR and tuple(oedema["colour"]) == outlined.OEDEMA_COLOUR
    assert mass["dash"] == "" != oedema["dash"]


def test_the_masks_are_those_that_were_stored_each_with_its_image(enter: Enter, study: seed.Seeded) -> None:
    """Every mask lies on the image that it was drawn on, bit by bit; images with nothing on them are named, too."""
    client = enter(Role.CLINICIAN)
    address = client.get(overlays(study)).json()["outlines"][0]["address"]
    content = client.get(address).json()
    uid = f"{study.study_uid}.1"
    assert [image["sop_uid"] for image in content["images"]] == [f"{uid}.{number}" for number in (4, 3, 2, 1)]
    assert (content["rows"], content["columns"]) == (outlined.ROWS, outlined.COLUMNS)
    found = {}
    for mask in content["masks"]:
        number = int(content["images"][mask["place"]]["sop_uid"].rpartition(".")[2])
        bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(mask["bits"])), np.uint8))
        found[mask["segment"], number] = bits.reshape(outlined.ROWS, outlined.COLUMNS).astype(bool)
        assert mask["pixels"] == found[mask["segment"], number].sum()
    assert set(found) == {(1, 1), (1, 2), (1, 3), (2, 2)}
    for (segment, number), mask in found.items():
        assert (mask == (outlined.mass_on if segment == 1 else outlined.oedema_on)(number)).all()


def test_outlines_are_for_those_who_may_see_the_study(browser: Enter, enter: Enter, study: seed.Seeded) -> None:
    """Nobody without a log-in gets any; another study, or another read, has none."""
    address = f"/studies/{study.study_uid}/outlines/{study.read_id}"
    answer = browser().get(address, headers={"Accept": "application/json"})
    assert answer.status_code in (303, 401) and "bits" not in answer.text
    client = enter()
    assert client.get(address).status_code == 200
    assert client.get(f"/studies/1.2.3/outlines/{study.read_id}").status_code == 404
    assert client.get(f"/studies/{study.study_uid}/outlines/99999").status_code == 404


def test_an_accepted_outline_stays_and_is_not_sent_twice(enter: Enter, database: Database, study: seed.Seeded) -> None:
    """The entity tag answers 304; a signature makes a new version, whose outline is the same."""
    client = enter()
    address = f"/studies/{study.study_uid}/outlines/{study.read_id}"
    first = client.get(address)
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get(address, headers=tag).status_code == 304
    sign(database, study, Act.ACCEPT)
    second = client.get(address, headers=tag)
    assert second.status_code == 200 and second.json() == first.json()


@pytest.mark.parametrize(("act", "more"), [(Act.CORRECT, {"label": "meningioma"}), (Act.REJECT, {})])
def test_what_a_person_corrected_or_rejected_is_drawn_no_more(
    enter: Enter, database: Database, study: seed.Seeded, act: Act, more: dict[str, object]
) -> None:
    """The machine's outline goes with its answer: neither listed, nor served, nor linked."""
    client = enter()
    page = client.get(f"/studies/{study.study_uid}").text
    assert f'href="#outline-{study.read_id}-1"' in page and "Outlined by the model" in page
    sign(database, study, act, **more)
    assert client.get(overlays(study)).json()["outlines"] == []
    assert client.get(f"/studies/{study.study_uid}/outlines/{study.read_id}").status_code == 404
    assert "#outline-" not in client.get(f"/studies/{study.study_uid}").text


def test_a_damaged_mask_is_an_error_and_never_a_wrong_line(
    enter: Enter, database: Database, study: seed.Seeded
) -> None:
    """Bits that do not fit their image, or none at all, are answered with an error."""
    client = enter()
    address = f"/studies/{study.study_uid}/outlines/{study.read_id}"
    for bits in (zlib.compress(b"\xff" * 7), b"not zlib"):
        with database.session() as session:
            session.scalars(select(tables.SegmentMask)).first().bits = bits  # type: ignore[union-attr]
        assert client.get(address).status_code == 500
    with database.session() as session:
        for row in session.scalars(select(tables.SegmentMask)):
            session.delete(row)
        session.flush()
        session.delete(session.scalars(select(tables.Segmentation)).one())
    answer = client.get(address)
    assert answer.status_code == 404 and "none of them is kept" in answer.text
