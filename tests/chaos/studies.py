"""Studies made by code, every object different, and the ledger of what was sent and what was acknowledged."""

from __future__ import annotations

import hashlib
import random
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydicom.uid import generate_uid

from dicom_listener.received import split_file
from tests.unit.dicom_listener.objects import as_file, image, report

# A broken object in so many; it is to be refused in words, and its bytes kept.
_BROKEN_EVERY = 25
_SIZES = (2_000, 20_000, 130_000, 130_000, 500_000)  # bytes of pixel data


class Kind(StrEnum):
    """What an object is to the index."""

    IMAGE = "image"
    REPORT = "report"
    BROKEN = "broken"  # without a Study Instance UID


@dataclass(frozen=True, slots=True)
class Made:
    """An object that was made to be sent."""

    sop_uid: str
    study_uid: str
    kind: Kind
    path: Path
    sha256: str  # of its data set as it is to lie in the spool


@dataclass
class Ledger:
    """What was made, what was answered. Safe from any thread."""

    made: dict[str, Made] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)  # SOP Instance UID → status, of answers that are final
    attempts: int = 0
    resent: int = 0  # objects sent again although they were acknowledged
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, made: list[Made]) -> None:
        """Objects exist now, and must arrive."""
        with self._lock:
            self.made |= {one.sop_uid: one for one in made}

    def answered(self, sop_uid: str, status: int | None) -> None:
        """A C-STORE was answered; None: it was not."""
        with self._lock:
            self.attempts += 1
            if status == 0:
                self.resent += sop_uid in self.acknowledged
                self.acknowledged.add(sop_uid)
            # PS3.4 table B.2-1: Cxxx and A9xx are final; A7xx (out of resources) is not.
            elif status is not None and status & 0xFF00 != 0xA700 and status != 0x0110:
                self.refused[sop_uid] = status

    def settled(self, sop_uid: str) -> bool:
        """Whether an object has its final answer."""
        with self._lock:
            return sop_uid in self.acknowledged or sop_uid in self.refused


class Studies:
    """Makes studies, in the order that a seed gives."""

    def __init__(self, folder: Path, ledger: Ledger, seed: int) -> None:
        self._folder = folder
        self._ledger = ledger
        self._random = random.Random(seed)
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def batch(self) -> list[list[Made]]:
        """One to three new studies, mixed, as one or two lists that different senders send at the same time."""
        mixed = [one for _ in range(self._random.randint(1, 3)) for one in self._any_study()]
        self._random.shuffle(mixed)
        if self._random.random() < 0.5:
            return [mixed]
        half = len(mixed) // 2
        return [mixed[:half], mixed[half:]]

    def late(self, study_uid: str) -> list[Made]:
        """An image more of a study that came before."""
        made = [self._object(study_uid, generate_uid(), Kind.IMAGE)]
        self._ledger.add(made)
        return made

    def study(self, *, images: int, reports: int = 0, broken: bool = False) -> list[Made]:
        """A new study of one or two series, and perhaps an object in it that names no study."""
        study_uid = generate_uid()
        series = [generate_uid() for _ in range(self._random.randint(1, 2))]
        made = [self._object(study_uid, self._random.choice(series), Kind.IMAGE) for _ in range(images)]
        made += [self._object(study_uid, generate_uid(), Kind.REPORT) for _ in range(reports)]
        made += [self._object(study_uid, generate_uid(), Kind.BROKEN)] * broken
        self._ledger.add(made)
        return made

    def _any_study(self) -> list[Made]:
        images = self._random.randint(1, 8)
        broken = self._random.random() < images / _BROKEN_EVERY
        return self.study(images=images, reports=int(self._random.random() < 0.3), broken=broken)

    def _object(self, study_uid: str, series_uid: str, kind: Kind) -> Made:
        self._count += 1
        sop_uid = generate_uid()
        told = {
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": series_uid,
            "SOPInstanceUID": sop_uid,
            "PatientID": f"CHAOS{study_uid[-12:]}",
            "InstanceNumber": self._count,
        }
        if kind is Kind.REPORT:
            ds = report(**told)
        else:
            size = self._random.choice(_SIZES)
            columns = 100
            rows = size // (2 * columns)
            ds = image(**told, Rows=rows, Columns=columns, PixelData=self._random.randbytes(2 * rows * columns))
        if kind is Kind.BROKEN:
            del ds.StudyInstanceUID
        content = as_file(ds)
        path = self._folder / f"{self._count:06d}.dcm"
        path.write_bytes(content)
        return Made(sop_uid, study_uid, kind, path, hashlib.sha256(split_file(content)[1]).hexdigest())
