"""One study read, with a network and pixels made for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from fhir_records.errors import PixelsNotReadable
from inference.answers import Answer, Classified, Refused
from inference.backends import Outputs
from inference.contract import Contract
from inference.preprocess import PreprocessSettings
from inference.reading import ImageFile, read_study
from inference.saliency import unpacked
from inference.slices import Picture
from tests.unit.inference.samples import MR_IMAGE, contract

CONTRACT = contract(preprocess=PreprocessSettings(size=32))


class Bright:
    """A network that calls a slice a glioma by how bright its lower right quarter is."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: np.ndarray) -> Outputs:
        """Maps of which the glioma's holds the difference of two quarters, and their means."""
        self.batches.append(len(inputs))
        maps = np.zeros((len(inputs), 4, 2, 2), np.float32)
        maps[:, 0, 1, 1] = 20 * (inputs[:, 0, 16:, 16:].mean(axis=(1, 2)) - inputs[:, 0, :16, :16].mean(axis=(1, 2)))
        maps[:, 2] = 1.0
        return Outputs(maps.mean(axis=(2, 3)), None, maps)


class Drawn:
    """A picture that is drawn when it is asked for."""

    def __init__(self, draw: Callable[[int], np.ndarray]) -> None:
        self._draw = draw

    def grey(self, frame: int = 1) -> np.ndarray:
        """The frame, shape (96, 96)."""
        return self._draw(frame)


def head(number: int, spot: bool = False) -> np.ndarray:
    """A disc with some noise of its own, and a bright spot at its lower right where one is wanted."""
    row, column = np.mgrid[-1:1:96j, -1:1:96j]
    image = 400.0 * (row**2 + column**2 < 0.8)
    image += 900.0 * spot * ((row - 0.35) ** 2 + (column - 0.35) ** 2 < 0.06)
    return (image + np.random.default_rng(number).normal(scale=4, size=image.shape)).astype(np.float32)


class Study:
    """Headers and pictures by path; what `read_study` opens."""

    def __init__(self) -> None:
        self.files: list[ImageFile] = []
        self._stored: dict[str, tuple[Dataset, Picture]] = {}

    def add(self, draw: Callable[[int], np.ndarray], series: str = "1.2.3", **header: object) -> None:
        """One more object, a slice of the stack unless `header` says otherwise."""
        number = len(self.files) + 1
        ds = Dataset()
        given = {
            "Modality": "MR",
            "Rows": 96,
            "Columns": 96,
            "PhotometricInterpretation": "MONOCHROME2",
            "InstanceNumber": number,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 2.0 * number],
        }
        for keyword, value in {**given, **header}.items():
            if value is not None:
                setattr(ds, keyword, value)
        sop_class = str(header.get("SOPClassUID", MR_IMAGE))
        self._stored[f"{number}.dcm"] = ds, Drawn(draw)
        self.files.append(ImageFile(f"{number}.dcm", series, f"1.2.3.{number}", sop_class))

    def open(self, path: str) -> tuple[Dataset, Picture]:
        """What was added under this path."""
        return self._stored[path]

    def read(self, of: Contract = CONTRACT, network: Bright | None = None) -> Answer:
        """The answer to all that was added."""
        return read_study(of, network or Bright(), self.files, self.open)


def stack(count: int, spots: range = range(0)) -> Study:
    """A plain series; slices in `spots` have the spot."""
    study = Study()
    for number in range(count):
        study.add(lambda _, n=number: head(n, n in spots))
    return study


def _classified(answer: Answer) -> Classified:
    assert isinstance(answer, Classified), answer
    return answer


def test_key_images_carry_maps_of_where_the_finding_is() -> None:
    """Every key image of a finding has a map in its own frame's geometry, brightest where the spot is."""
    answer = _classified(stack(20, range(8, 14)).read())
    assert answer.label == "glioma"
    assert [found.image for found in answer.activation] == list(answer.key_images)
    for found in answer.activation:
        row, column = np.unravel_index(unpacked(found).argmax(), (found.rows, found.columns))
        assert (found.rows, found.columns, found.label) == (64, 64, "glioma")
        assert row > 36
        assert column > 36


def test_a_repeated_slice_counts_once() -> None:
    """A slice that was sent under another UID does not speak twice; the answer says so."""
    study = stack(12)
    plain = _classified(study.read())
    for _ in range(3):
        study.add(lambda _: head(5), ImagePositionPatient=[0, 0, 12.0])
    answer = _classified(study.read())
    assert "3 images repeat another of the series and were not counted." in answer.limits
    assert answer.probability == pytest.approx(plain.probability)


def test_an_object_named_twice_is_read_once() -> None:
    """The same object listed twice is one image."""
    study = stack(12)
    study.files += study.files[:4]
    network = Bright()
    assert _classified(study.read(network=network)).images_read == 12
    assert sum(network.batches) == 12


def test_missing_slices_are_noticed() -> None:
    """A gap along the normal is a limit of the answer, in words."""
    study = stack(14)
    del study.files[5:8]
    assert "About 3 slices seem to be missing from the series." in _classified(study.read()).limits


def test_numbers_tell_of_missing_slices_where_places_do_not() -> None:
    """Without geometry a left-out Instance Number is noticed."""
    study = Study()
    for number in (1, 2, 3, 4, 6, 7, 8):
        study.add(lambda _, n=number: head(n), InstanceNumber=number, ImagePositionPatient=None)
    assert "One slice seems to be missing from the series." in _classified(study.read()).limits


def test_a_complete_series_has_no_such_limit() -> None:
    """Nothing is said of missing or repeated slices where none are."""
    assert not any("missing" in said or "repeat" in said for said in _classified(stack(12).read()).limits)


def test_the_series_that_was_read_is_named() -> None:
    """With several series that could be read, the answer names the one that was, as people call it."""
    study = Study()
    for number in range(6):
        study.add(lambda _, n=number: head(n), series="1.9", SeriesNumber=2, SeriesDescription="T2 tra")
    for number in range(9):
        study.add(lambda _, n=number: head(50 + n), series="1.8", SeriesNumber=7, SeriesDescription="T1 KM")
    answer = _classified(study.read())
    assert answer.series_uid == "1.8"
    assert any('series 7 ("T1 KM"), with 9 images, was read' in said for said in answer.limits)


def test_a_colour_secondary_capture_is_left_out() -> None:
    """A screenshot among the slices is neither shown to the network nor counted."""
    study = stack(10)
    study.add(
        lambda _: head(99, True),
        series="1.7",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        PhotometricInterpretation="RGB",
        ImagePositionPatient=None,
    )
    assert _classified(study.read()).images_read == 10


def test_frames_are_read_in_the_order_of_their_places() -> None:
    """An enhanced object whose frames are stored from both ends inwards is read as the stack that it is."""
    order = [n for pair in zip(range(10), range(19, 9, -1), strict=True) for n in pair]
    study = Study()
    plane = Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    groups = []
    for place in order:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 3.0 * place]
        group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [plane]
        groups.append(group)
    study.add(
        lambda frame: head(order[frame - 1], 6 <= order[frame - 1] <= 11),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        NumberOfFrames=20,
        PerFrameFunctionalGroupsSequence=groups,
    )
    answer = _classified(study.read())
    assert answer.label == "glioma"
    assert answer.images_read == 20
    assert {order[(key.frame or 0) - 1] for key in answer.key_images} <= set(range(6, 12))


def test_a_guard_sees_whole_frames_before_the_network() -> None:
    """What the guard refuses is refused, and the network has seen nothing of it."""
    seen: list[tuple[int, ...]] = []

    def guard(greys: Iterator[np.ndarray]) -> Refused | None:
        seen.extend(grey.shape for grey in greys)
        return Refused("anatomy", "Not read, because it is a test.")

    study, network = stack(40), Bright()
    answer = read_study(CONTRACT, network, study.files, study.open, guard)
    assert answer == Refused("anatomy", "Not read, because it is a test.")
    assert seen == [(96, 96)] * 12
    assert network.batches == []


def test_broken_pictures_are_left_out() -> None:
    """Images whose pixels do not decode limit the answer; the others are read."""
    study = stack(10)

    def broken(_: int) -> np.ndarray:
        raise PixelsNotReadable("for a test")

    study.add(broken)
    answer = _classified(study.read())
    assert answer.images_read == 10
    assert "1 of 11 images could not be decoded." in answer.limits


def test_a_lack_of_memory_is_no_broken_picture() -> None:
    """A decoder without memory ends the read; it does not make an image undecodable."""
    study = stack(10)

    def starved(_: int) -> np.ndarray:
        raise PixelsNotReadable("for a test") from MemoryError()

    study.add(starved)
    with pytest.raises(MemoryError):
        study.read()


def test_a_long_stack_is_streamed() -> None:
    """Of 5,000 slices no more than a few batches' pictures are held at once, and no batch is larger than allowed."""
    held, most, lock = 0, 0, threading.Lock()

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal held
            with lock:
                held -= self.base is None

    plain = head(0)[::4, ::4].copy()

    def draw(number: int) -> Callable[[int], np.ndarray]:
        def drawn(_: int) -> np.ndarray:
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)
            picture = Counted(plain.shape, np.float32)
            picture[:] = plain
            picture[0, 0] = number
            picture[10, 10] += number / 10
            return picture

        return drawn

    study, network = Study(), Bright()
    for number in range(5000):
        study.add(draw(number))
    answer = read_study(replace(CONTRACT, batch_size=16), network, study.files, study.open)
    assert _classified(answer).images_read == 5000
    assert most <= 3 * 16
    assert max(network.batches) == 16
