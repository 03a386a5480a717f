"""Series of slices made for tests: any spacing, tilt and order, over a scene that is a formula in the patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.answers import Answer
from inference.backends import Backend, Outputs
from inference.contract import Contract
from inference.reading import ImageFile, read_study
from inference.slices import Picture
from tests.unit.inference.samples import MR_IMAGE

Points = npt.NDArray[np.float64]  # shape (..., 3): x, y, z in mm
Scene = Callable[[Points], npt.NDArray[np.float32]]

AXIAL = np.array([[1.0, 0, 0], [0, 1.0, 0]])
SAGITTAL = np.array([[0.0, 1, 0], [0, 0, -1.0]])


def oblique(degrees: float = 25.0) -> npt.NDArray[np.float64]:
    """Axial slices, tilted about the left-right axis and a little about the other."""
    a, b = np.radians(degrees), np.radians(degrees / 3)
    row = np.array([np.cos(b), np.sin(b), 0.0])
    column = np.array([-np.sin(b) * np.cos(a), np.cos(b) * np.cos(a), np.sin(a)])
    return np.stack([row, column])


def ball(centre: tuple[float, float, float], radius: float, inside: float = 1.0) -> Scene:
    """A bright ball in a dim surrounding of 0.2."""
    return lambda points: np.where(np.linalg.norm(points - np.array(centre), axis=-1) < radius, inside, 0.2).astype(
        np.float32
    )


class Drawn:
    """A picture that is there already, shape (rows, columns) or (frames, rows, columns)."""

    def __init__(self, pixels: npt.NDArray[np.float32]) -> None:
        self._frames = pixels.reshape(-1, *pixels.shape[-2:])

    def grey(self, frame: int = 1) -> npt.NDArray[np.float32]:
        """A frame, from 1."""
        return self._frames[frame - 1]


@dataclass
class Cut:
    """A scene cut into slices, about the origin."""

    scene: Scene
    count: int = 24
    shape: tuple[int, int] = (64, 64)  # rows, columns
    spacing: tuple[float, float] = (1.0, 1.0)  # between rows, between columns, mm
    gap: float = 2.0  # of slices, mm
    directions: npt.NDArray[np.float64] = field(default_factory=lambda: AXIAL)
    left_out: tuple[int, ...] = ()  # numbers of slices that are missing, from 0
    order: int = 1  # -1: the last slice has the first number

    def points(self, number: int) -> Points:
        """Where the pixels of a slice lie, shape (rows, columns, 3)."""
        rows, columns = self.shape
        down = (np.arange(rows) - (rows - 1) / 2) * self.spacing[0]
        along = (np.arange(columns) - (columns - 1) / 2) * self.spacing[1]
        normal = np.cross(self.directions[0], self.directions[1])
        middle = (number - (self.count - 1) / 2) * self.gap * normal
        return middle + down[:, None, None] * self.directions[1] + along[None, :, None] * self.directions[0]

    @property
    def numbers(self) -> list[int]:
        """The slices that are there, in the order of their Instance Numbers."""
        return [number for number in range(self.count) if number not in self.left_out][:: self.order]

    def header(self, number: int, place: int, **more: object) -> Dataset:
        """The header of a slice."""
        ds = Dataset()
        points = self.points(number)
        given: dict[str, object] = {
            "Modality": "MR",
            "Rows": self.shape[0],
            "Columns": self.shape[1],
            "PhotometricInterpretation": "MONOCHROME2",
            "InstanceNumber": place + 1,
            "FrameOfReferenceUID": "1.2.9",
            "PixelSpacing": list(self.spacing),
            "SliceThickness": self.gap,
            "ImageOrientationPatient": [float(value) for value in self.directions.ravel()],
            "ImagePositionPatient": [float(value) for value in points[0, 0]],
            **more,
        }
        for keyword, value in given.items():
            if value is not None:
                setattr(ds, keyword, value)
        return ds

    def enhanced(self) -> tuple[Dataset, npt.NDArray[np.float32]]:
        """All slices as one multi-frame object, in the order of their Instance Numbers: header, and the frames."""
        ds = self.header(self.numbers[0], 0, PixelSpacing=None, SliceThickness=None, NumberOfFrames=len(self.numbers),
                         ImageOrientationPatient=None, ImagePositionPatient=None)  # fmt: skip
        measures, orientation, shared = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = list(self.spacing), self.gap
        orientation.ImageOrientationPatient = [float(value) for value in self.directions.ravel()]
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        ds.SharedFunctionalGroupsSequence = [shared]
        ds.PerFrameFunctionalGroupsSequence = []
        for number in self.numbers:
            position, group = Dataset(), Dataset()
            position.ImagePositionPatient = [float(value) for value in self.points(number)[0, 0]]
            group.PlanePositionSequence = [position]
            ds.PerFrameFunctionalGroupsSequence.append(group)
        return ds, np.stack([self.scene(self.points(number)) for number in self.numbers])


class Study:
    """Headers and pictures by path; what `read_study` opens."""

    def __init__(self) -> None:
        self.files: list[ImageFile] = []
        self.stored: dict[str, tuple[Dataset, Picture]] = {}

    @classmethod
    def of(cls, cut: Cut, **more: object) -> Study:
        """A series of one image a slice."""
        study = cls()
        for place, number in enumerate(cut.numbers):
            study.add(cut.header(number, place, **more), cut.scene(cut.points(number)))
        return study

    def add(self, ds: Dataset, pixels: npt.NDArray[np.float32]) -> None:
        """One more image."""
        number = len(self.files) + 1
        self.stored[f"{number}.dcm"] = ds, Drawn(pixels)
        self.files.append(ImageFile(f"{number}.dcm", "1.2.3", f"1.2.3.{number}", MR_IMAGE))

    def open(self, path: str) -> tuple[Dataset, Picture]:
        """What was added under this path."""
        return self.stored[path]

    def read(self, contract: Contract, network: Backend) -> Answer:
        """The answer to all that was added."""
        return read_study(contract, network, self.files, self.open)


class Bright:
    """A network with two channels: the logit of what is brighter than a half."""

    def __init__(self, at: float = 0.6, steep: float = 40.0) -> None:
        self._at, self._steep = at, steep
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: npt.NDArray[np.float32]) -> Outputs:
        """Logits of nothing, which are 0, and of something."""
        self.shapes.append(inputs.shape)
        bright = self._steep * (inputs - np.float32(self._at))
        return Outputs(np.concatenate([np.zeros_like(bright), bright], axis=1).astype(np.float32), None)
