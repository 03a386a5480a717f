"""What the server lays over a study's images: the stored maps, and what people marked."""

from __future__ import annotations

import base64

import pytest

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Act, ImageRef, Region, Role
from tests import seed
from tests.integration.web.forms import Enter
from tests.integration.web.signed import sign


@pytest.fixture
def study(database: Database) -> seed.Seeded:
    """A study that was read, with maps of its two key images."""
    with database.session() as session:
        seeded = seed.read_study(session, 1)
        assert seeded.read_id is not None
        seed.add_maps(session, session.get_one(tables.Study, seeded.study_id), seeded.read_id)
    return seeded


def address(study: seed.Seeded) -> str:
    """Where the overlays are asked for."""
    return f"/studies/{study.study_uid}/overlays"


def test_the_stored_maps_are_served_as_they_are(enter: Enter, study: seed.Seeded) -> None:
    """Each key image's map with its shape, levels and words; one that shows nothing says so and has no levels."""
    answer = enter(Role.CLINICIAN).get(address(study))
    content = answer.json()
    uid = f"{study.study_uid}.1"
    assert content["key_images"] == [
        {"series_uid": uid, "sop_uid": f"{uid}.{number}", "frame": None} for number in (2, 1)
    ]
    seen, nothing = content["maps"]
    levels = base64.b64decode(seen["levels"])
    assert seen["image"]["sop_uid"] == f"{uid}.2" and seen["model"] == "Brain MR tumour"
    assert len(levels) == seen["rows"] * seen["columns"] == seed.MAP_CELLS**2 and max(levels) > 230
    assert seen["words"] == "Where the model looked for its answer “Glioma”. Not a contour."
    assert nothing["levels"] == "" and nothing["words"].startswith("Nowhere in this image")
    assert content["regions"] == []


def test_overlays_are_for_those_who_may_see_the_study(browser: Enter, enter: Enter, study: seed.Seeded) -> None:
    """Nobody without a log-in gets any; of another study there is none."""
    answer = browser().get(address(study), headers={"Accept": "application/json"})
    assert answer.status_code in (303, 401) and "levels" not in answer.text
    assert enter().get("/studies/1.2.3/overlays").status_code == 404


def test_what_did_not_change_is_not_sent_again(enter: Enter, database: Database, study: seed.Seeded) -> None:
    """The entity tag answers 304 until somebody signs."""
    client = enter()
    tag = client.get(address(study)).headers["etag"]
    assert client.get(address(study), headers={"If-None-Match": tag}).status_code == 304
    sign(database, study, Act.CORRECT, label="meningioma")
    assert client.get(address(study), headers={"If-None-Match": tag}).status_code == 200


def test_a_correction_shows_its_region_and_whose_map_it_is(
    enter: Enter, database: Database, study: seed.Seeded
) -> None:
    """The region with the person's name; the map is said to be of the answer that the person has corrected."""
    uid = f"{study.study_uid}.1"
    region = Region(ImageRef(uid, f"{uid}.3", seed.MR), 10, 20, 30.5, 40)
    sign(database, study, Act.CORRECT, label="meningioma", region=region)
    content = enter().get(address(study)).json()
    (marked,) = content["regions"]
    assert marked == {
        "image": {"series_uid": uid, "sop_uid": f"{uid}.3", "frame": None},
        "left": 10,
        "top": 20,
        "width": 30.5,
        "height": 40,
        "words": "Marked by Dr Marie Curie",
    }
    assert "“Glioma”, which a person has corrected. Not a contour." in content["maps"][0]["words"]
    page = enter().get(f"/studies/{study.study_uid}").text
    assert 'href="#region-1"' in page and "Marked on image 3" in page


def test_what_was_entered_in_error_lays_nothing_over_an_image(
    enter: Enter, database: Database, study: seed.Seeded
) -> None:
    """After a rejection there are neither maps nor regions; the key image stays, for people to look."""
    uid = f"{study.study_uid}.1"
    sign(database, study, Act.CORRECT, region=Region(ImageRef(uid, f"{uid}.2", seed.MR), 1, 2, 3, 4))
    sign(database, study, Act.REJECT, version=2)
    content = enter().get(address(study)).json()
    assert content["maps"] == content["regions"] == [] and len(content["key_images"]) == 1
