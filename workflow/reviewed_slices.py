"""Which images of a reviewed case teach a model what: a label for a study is not one for each of its slices.

What is absent from a study is absent from every slice that was looked at. What is present is known to be on the image
that a person marked, or on the model's key images where the person let them stand; the other slices get no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fhir_records.model import Finding, ImageRef, Presence, Region
from fhir_records.store.review_exports import ReviewedCase


class Basis(StrEnum):
    """Why an image has its label."""

    WHOLE_STUDY = "whole study"  # nothing is there, or the image is all that there is
    MARKED = "marked"  # the person marked it
    KEY_IMAGE = "key image"  # the model chose it for a finding, and the person let it stand


class Passed(StrEnum):
    """Why a case is not in an export."""

    WRONG_PATIENT = "somebody said that a result is about another patient"
    UNSETTLED = "it is not settled whose study it is"
    CONSENT = "the patient's consent does not allow it"
    REJECTED = "the result was rejected, and nobody said what is right instead"
    DISPUTED = "two people who signed it gave different answers"
    NOTHING_READ = "the model had refused to read it"
    UNCHANGED = "the model's answer was accepted as it was"
    NOT_MARKED = "the person sees something where the model saw nothing, and marked no image"
    HEAD = "its images are of a head"
    NO_IMAGE = "none of its images may leave"


@dataclass(frozen=True, slots=True)
class LabelledSlice:
    """One image with what it shows."""

    image: ImageRef
    label: str  # the model's own word
    basis: Basis
    region: Region | None = None  # where, in pixels of the frame


def why_passed(case: ReviewedCase, *, allowed: bool, include_unchanged: bool) -> Passed | None:
    """Why the case is not for training, or None where it is.

    Args:
        case: what a person has seen to.
        allowed: whether the patient's consent allows it.
        include_unchanged: whether answers that were only accepted are wanted.
    """
    finding = case.result.finding
    grounds = (
        (case.wrong_patient, Passed.WRONG_PATIENT),
        (not case.settled, Passed.UNSETTLED),
        (not allowed, Passed.CONSENT),
        (not case.result.is_signed, Passed.REJECTED),
        (case.disputed, Passed.DISPUTED),
        (finding is None, Passed.NOTHING_READ),
        (case.result.author is None and not include_unchanged, Passed.UNCHANGED),
        (not labelled_slices(case, 1), Passed.NOT_MARKED),
    )
    return next((why for holds, why in grounds if holds), None)


def labelled_slices(case: ReviewedCase, most: int) -> tuple[LabelledSlice, ...]:
    """The images of a signed case that its answer is about.

    Args:
        case: signed, with a finding.
        most: of a study in which nothing is, so many images at most, evenly spaced over those that were read.
    """
    finding = case.result.finding
    if finding is None:
        return ()
    read = case.result.images_read
    if finding.region is not None:
        return (LabelledSlice(finding.region.image, finding.label, Basis.MARKED, finding.region),)
    if finding.presence is Presence.ABSENT:
        return tuple(LabelledSlice(image, finding.label, Basis.WHOLE_STUDY) for image in _spaced(read, most))
    if len(read) == 1:
        return (LabelledSlice(read[0], finding.label, Basis.WHOLE_STUDY),)
    if not _shows_it(finding, case.first.finding):
        return ()
    return tuple(LabelledSlice(image, finding.label, Basis.KEY_IMAGE) for image in finding.key_images)


def _shows_it(finding: Finding, machine: Finding | None) -> bool:
    """Whether the key images were chosen for something that is there: the model's own, of a finding it called."""
    return finding.presence is Presence.PRESENT and machine is not None and machine.presence is Presence.PRESENT


def _spaced(images: Sequence[ImageRef], most: int) -> Sequence[ImageRef]:
    if len(images) <= most:
        return images
    # The middle of each of `most` equal parts.
    return [images[(2 * number + 1) * len(images) // (2 * most)] for number in range(most)]
