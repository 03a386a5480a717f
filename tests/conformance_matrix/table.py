"""The counts, as the tables of docs/conformance.md have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fhir_records.renderings import kinds
from tests.conformance_matrix.checkers import Verdict
from tests.conformance_matrix.written import NOTE

# What objects are called in the conformance statement.
NAMES = {
    kinds.SR: "Comprehensive 3D SR",
    "dicom_sr_comprehensive": "Comprehensive SR",
    "dicom_sr_enhanced": "Enhanced SR",
    kinds.SECONDARY_CAPTURE: "Secondary Capture Image",
    kinds.KEY_OBJECTS: "Key Object Selection Document",
    kinds.PARAMETRIC_MAP: "Parametric Map",
    kinds.SEGMENTATION: "Segmentation",
    kinds.ENCAPSULATED_PDF: "Encapsulated PDF",
    NOTE: "Rejection note",
}

COUNTED = ("errors", "warnings", "gate", "dcmtk", "highdicom", "pydicom")
HEADINGS = ("objects", "dciodvfy errors", "own warnings", "passed on", "gate", "DCMTK", "highdicom", "pydicom")


@dataclass(slots=True)
class Counts:
    """How many objects there were, and in how many of them somebody found something."""

    objects: int = 0
    found: Counter[str] = field(default_factory=Counter)  # by the names of `Verdict`

    def add(self, verdict: Verdict) -> None:
        """One more object."""
        self.objects += 1
        for name in (*COUNTED, "passed_on"):
            self.found[name] += bool(getattr(verdict, name))

    def cells(self) -> tuple[str, ...]:
        """In the order of the headings."""
        found = [
            self.found[name] for name in ("errors", "warnings", "passed_on", "gate", "dcmtk", "highdicom", "pydicom")
        ]
        return tuple(f"{number:,}" for number in (self.objects, *found))


def markdown(first: Iterable[str], rows: Mapping[tuple[str, ...], Counts]) -> str:
    """A table, with a last row of all together."""
    first = tuple(first)
    lines = [
        f"| {' | '.join((*first, *HEADINGS))} |",
        f"| {' | '.join(['---'] * len(first) + ['--:'] * len(HEADINGS))} |",
    ]
    lines += [f"| {' | '.join((*key, *counts.cells()))} |" for key, counts in rows.items()]
    whole = Counts(sum(one.objects for one in rows.values()), sum((one.found for one in rows.values()), Counter()))
    lines.append(f"| {' | '.join(('all', *[''] * (len(first) - 1), *whole.cells()))} |")
    return "\n".join(lines)
