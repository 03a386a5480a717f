"""What a store request is answered: status and Store Instances Response Module (PS3.18 sections 10.5.3 and I.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from dicom_listener.file_storing import Offered
from web.dicomweb_json import Json


class Failure(Enum):
    """Why an object was not stored: failure reason (PS3.18 table I.2-2) and words."""

    NO_SPACE = (0xA700, "the disk is too full")
    TOO_LARGE = (0xA701, "larger than is taken here")
    MISMATCH = (0xA900, "not the object that its file meta information names")
    OTHER_STUDY = (0xA901, "of another study than the request's")
    CANNOT_UNDERSTAND = (0xC000, "no DICOM object that can be stored")
    NOT_DICOM = (0xC001, "not application/dicom")
    PROCESSING = (0x0110, "could not be stored")

    @property
    def reason(self) -> int:
        """Failure Reason (0008,1197)."""
        return self.value[0]

    @property
    def words(self) -> str:
        """For people."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Kept:
    """An object that is safe."""

    offered: Offered
    apart: bool = False  # another object is known under its UID; this one is kept beside it and not delivered


@dataclass(frozen=True, slots=True)
class Failed:
    """An object, or a part that is none, that was not stored."""

    failure: Failure
    offered: Offered | None = None  # None: it could not be told what it was


@dataclass(slots=True)
class StoreResult:
    """What became of each part, in order."""

    kept: list[Kept] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Of parts."""
        return len(self.kept) + len(self.failed)

    @property
    def status(self) -> int:
        """Of the answer (PS3.18 table 10.5.3-1)."""
        if not self.failed:
            return 200
        if self.kept:
            return 202
        for failures, status in _STATUSES:
            if all(one.failure in failures for one in self.failed):
                return status
        return 409

    @property
    def study_uids(self) -> list[str]:
        """The studies of what is safe, in order."""
        return list(dict.fromkeys(one.offered.study_uid for one in self.kept))

    def words(self) -> str:
        """The failures in one line of ASCII, "" where there are none."""
        counts: dict[Failure, int] = {}
        for one in self.failed:
            counts[one.failure] = counts.get(one.failure, 0) + 1
        said = [f"{count} of {self.count}: {failure.words}" for failure, count in counts.items()]
        apart = sum(one.apart for one in self.kept)
        if apart:
            said.append(f"{apart} of {self.count}: kept apart, for another object is known under its UID")
        return "; ".join(said)


_STATUSES: tuple[tuple[frozenset[Failure], int], ...] = (
    (frozenset({Failure.NO_SPACE}), 503),
    (frozenset({Failure.TOO_LARGE}), 413),
    (frozenset({Failure.NOT_DICOM}), 415),
    (frozenset({Failure.CANNOT_UNDERSTAND, Failure.NOT_DICOM}), 400),
)


def response_module(result: StoreResult, base: str) -> Json:
    """The Store Instances Response Module (PS3.18 table I.2-1) in the DICOM JSON model; ``base``: of all addresses."""
    answer: Json = {}
    if len(result.study_uids) == 1:
        answer["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{result.study_uids[0]}"]}
    known = [_failure(one.failure) | _reference(one.offered) for one in result.failed if one.offered is not None]
    if known:
        answer["00081198"] = _sequence(known)  # Failed SOP Sequence
    answer["00081199"] = _sequence([_reference(one.offered) | _address(one.offered, base) for one in result.kept])
    unknown = [_failure(one.failure) for one in result.failed if one.offered is None]
    if unknown:
        answer["0008119A"] = _sequence(unknown)  # Other Failures Sequence
    return answer


def _reference(offered: Offered) -> Json:
    return {
        "00081150": {"vr": "UI", "Value": [offered.sop_class_uid]} if offered.sop_class_uid else {"vr": "UI"},
        "00081155": {"vr": "UI", "Value": [offered.sop_uid]} if offered.sop_uid else {"vr": "UI"},
    }


def _address(offered: Offered, base: str) -> Json:
    series = f"{base}/studies/{offered.study_uid}/series/{offered.series_uid}"
    return {"00081190": {"vr": "UR", "Value": [f"{series}/instances/{offered.sop_uid}"]}}


def _failure(failure: Failure) -> Json:
    return {"00081197": {"vr": "US", "Value": [failure.reason]}}


def _sequence(items: Sequence[Json]) -> Json:
    ordered = [dict(sorted(item.items())) for item in items]
    return {"vr": "SQ", "Value": ordered} if ordered else {"vr": "SQ"}
