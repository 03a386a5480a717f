"""Which series is read, and the words of each refusal."""

from __future__ import annotations

from typing import Any

import pydicom
import pytest

from inference.answers import Refused
from inference.suitability import Chosen, check, facts_of, in_stack_order
from tests.unit.inference.samples import contract, facts, series


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"modality": "CT"}, "modality", "the study has CT images and this model reads MR only."),
        ({"modality": ""}, "modality", "the study has unnamed images"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, "image-type", "secondary captures"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "image-type", "(LOCALIZER)"),
        ({"body_part": "KNEE"}, "anatomy", "the images are labelled KNEE and this model reads images of a head only."),
        ({"photometric": "RGB"}, "photometric", "the images are RGB"),
        ({"rows": 64}, "matrix", "no more than 64 pixels a side"),
    ],
)
def test_each_requirement_refuses_in_its_own_words(changed: dict[str, Any], code: str, words: str) -> None:
    """A study in which no image meets a requirement is refused with that requirement's code, in a plain sentence."""
    refused = check(contract(), series(30, **changed))
    assert isinstance(refused, Refused)
    assert refused.code == code
    assert refused.sentence.startswith("Not read, because ")
    assert refused.sentence.endswith(".")
    assert words in refused.sentence


def test_a_study_without_images_is_refused() -> None:
    """Nothing to read is a refusal of its own, not an empty answer."""
    assert check(contract(), []) == Refused("no-images", "Not read, because the study has no images.")


def test_a_short_series_is_refused_with_both_numbers() -> None:
    """A series below the minimum is refused, naming its length and the least that is needed."""
    refused = check(contract(), series(4))
    assert isinstance(refused, Refused)
    assert refused.code == "too-few-images"
    assert "4 images" in refused.sentence
    assert "at least 5" in refused.sentence


def test_unsuitable_images_beside_a_suitable_series_do_not_refuse_it() -> None:
    """A localizer and a CT in the same study leave the MR series to be read."""
    mixed = [*series(10), facts(90, modality="CT"), facts(91, image_type=("LOCALIZER",))]
    chosen = check(contract(), mixed)
    assert isinstance(chosen, Chosen)
    assert len(chosen.images) == 10


def test_a_series_with_contrast_agent_goes_before_a_longer_one_without() -> None:
    """The series that is most like the training images is read; that there were others is said."""
    plain = series(100, series_uid="1.2.4", contrast_agent="")
    chosen = check(contract(), [*plain, *series(20)])
    assert isinstance(chosen, Chosen)
    assert chosen.series_uid == "1.2.3"
    assert any("2 series" in sentence and "20 images" in sentence for sentence in chosen.limits)


def test_a_missing_contrast_agent_is_a_limit_not_a_refusal() -> None:
    """A series without contrast agent is read, and the answer says what that means for it."""
    with_agent, without = check(contract(), series(20)), check(contract(), series(20, contrast_agent=""))
    assert isinstance(with_agent, Chosen)
    assert isinstance(without, Chosen)
    (sentence,) = set(without.limits) - set(with_agent.limits)
    assert "contrast agent" in sentence


def test_the_stack_is_ordered_by_place_before_number() -> None:
    """Images are ordered along the slices' normal, whatever their instance numbers say."""
    shuffled = [facts(number, position=-float(number)) for number in (2, 3, 1)]
    assert [image.instance_number for image in in_stack_order(shuffled)] == [3, 2, 1]


def test_without_geometry_the_stack_is_ordered_by_number() -> None:
    """One image without geometry makes the instance numbers decide for all."""
    shuffled = [facts(3), facts(1, position=None), facts(2)]
    assert [image.instance_number for image in in_stack_order(shuffled)] == [1, 2, 3]


def test_facts_survive_a_header_with_nothing_in_it() -> None:
    """An empty header gives empty facts, so that it is refused in words and does not raise."""
    empty = facts_of(pydicom.Dataset(), "a.dcm", "1", "2", "3")
    assert (empty.modality, empty.rows, empty.number_of_frames, empty.position) == ("", 0, 1, None)
    assert isinstance(check(contract(), [empty]), Refused)


def test_facts_take_the_place_along_the_normal() -> None:
    """The position of a sagittal slice is its distance along the left-right axis."""
    ds = pydicom.Dataset()
    ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    ds.ImagePositionPatient = [12.5, -100, 80]
    assert facts_of(ds, "a.dcm", "1", "2", "3").position == pytest.approx(-12.5)
