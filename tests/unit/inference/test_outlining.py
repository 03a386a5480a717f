"""Series outlined by a network that is right by construction: Dice and volume against what was drawn."""

from __future__ import annotations

import base64
import tomllib
import zlib
from dataclasses import replace

import numpy as np
import pytest

from fhir_records.errors import ModelFailed
from inference.answers import Classified, Outlines, Refused, answer_from_json, answer_to_json
from inference.backends import Outputs
from inference.contract import Contract, parse_contract
from inference.outlining import key_slices
from tests.unit.inference.outlining_bundles import contract_text
from tests.unit.inference.volumes import SAGITTAL, Bright, Cut, Study, ball, oblique

CENTRE, RADIUS = (3.0, -4.0, 2.0), 13.0
BALL_ML = 4 / 3 * np.pi * RADIUS**3 / 1000


def contract(**numbers: object) -> Contract:
    """The contract of a network that outlines what is bright."""
    return parse_contract(tomllib.loads(contract_text(**numbers)))  # type: ignore[arg-type]


def masks_of(outlines: Outlines, place: int = 0) -> np.ndarray:
    """A segment's mask over the whole stack, shape (slices, rows, columns)."""
    volume = np.zeros((len(outlines.images), outlines.rows, outlines.columns), bool)
    for frame in outlines.segments[place].frames:
        bits = np.frombuffer(zlib.decompress(base64.b64decode(frame.mask)), np.uint8)
        plane = np.unpackbits(bits, count=outlines.rows * outlines.columns)
        volume[frame.place] = plane.reshape(outlines.rows, outlines.columns)
    return volume


def truth(cut: Cut, study: Study, outlines: Outlines) -> np.ndarray:
    """What was drawn, on the images in the order of the outlines."""
    pixels = {file.sop_uid: study.stored[file.path][1].grey(1) > 0.5 for file in study.files}
    return np.stack([pixels[image.sop_uid] for image in outlines.images])


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Twice the common part over the sum of both."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def read(cut: Cut, of: Contract | None = None, **header: object) -> tuple[Classified, Study]:
    """The answer to a cut; it is an error of the test where it is refused."""
    study = Study.of(cut, **header)
    answer = study.read(of or contract(), Bright())
    assert isinstance(answer, Classified), answer
    return answer, study


CUTS = {
    "plain": Cut(ball(CENTRE, RADIUS)),
    "thick slices": Cut(ball(CENTRE, RADIUS), count=12, gap=5.0),
    "fine": Cut(ball(CENTRE, RADIUS), count=60, gap=0.8, shape=(100, 100), spacing=(0.5, 0.5)),
    "rectangular pixels": Cut(ball(CENTRE, RADIUS), spacing=(0.7, 1.6), shape=(80, 40)),
    "oblique": Cut(ball(CENTRE, RADIUS), directions=oblique()),
    "sagittal": Cut(ball(CENTRE, RADIUS), directions=SAGITTAL),
    "the other way": Cut(ball(CENTRE, RADIUS), order=-1),
    "oblique, rectangular, thick, backwards": Cut(
        ball(CENTRE, RADIUS),
        count=14,
        gap=4.0,
        spacing=(1.4, 0.8),
        shape=(50, 90),
        directions=oblique(40),
        order=-1,
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_ball_is_outlined_where_it_is(cut: Cut) -> None:
    """However the series is cut, the outline covers the ball, and its volume is that of the ball."""
    answer, study = read(cut)
    assert (answer.presence, answer.label) == ("present", "mass")
    assert answer.probability > 0.95
    assert answer.outlines is not None
    (segment,) = answer.outlines.segments
    mask, drawn = masks_of(answer.outlines), truth(cut, study, answer.outlines)
    voxel = cut.spacing[0] * cut.spacing[1] * cut.gap
    print(f"dice {dice(mask, drawn):.3f}, volume {segment.volume_mm3 / 1000:.2f} mL of {BALL_ML:.2f}")
    assert dice(mask, drawn) > 0.92
    assert segment.volume_mm3 == pytest.approx(mask.sum() * voxel, abs=0.06)
    assert segment.volume_mm3 / 1000 == pytest.approx(BALL_ML, rel=0.08)


@pytest.mark.parametrize("order", [1, -1])
def test_frames_of_one_object_are_a_stack_too(order: int) -> None:
    """A multi-frame object is outlined as the same slices one by one are, and its frames are named."""
    cut = Cut(ball(CENTRE, RADIUS), directions=oblique(), order=order)
    single, _ = read(cut)
    study = Study()
    study.add(*cut.enhanced())
    answer = study.read(contract(), Bright())
    assert isinstance(answer, Classified) and answer.outlines is not None and single.outlines is not None
    assert np.array_equal(masks_of(answer.outlines), masks_of(single.outlines))
    assert answer.outlines.segments[0].volume_mm3 == single.outlines.segments[0].volume_mm3
    assert [image.frame for image in answer.outlines.images] == list(range(1, 25))[::order]


def test_what_lies_in_a_gap_is_left_out_and_said() -> None:
    """Slices that are missing are not made up: their part of the volume is gone, and the answer says so."""
    whole, _ = read(Cut(ball(CENTRE, RADIUS)))
    cut = Cut(ball(CENTRE, RADIUS), left_out=(12, 13))
    answer, study = read(cut)
    assert answer.outlines is not None and whole.outlines is not None
    assert dice(masks_of(answer.outlines), truth(cut, study, answer.outlines)) > 0.92
    there = masks_of(whole.outlines).sum(axis=(1, 2))
    expected = (there.sum() - there[12] - there[13]) * 2.0
    assert answer.outlines.segments[0].volume_mm3 == pytest.approx(expected, rel=0.03)
    assert "About 2 slices seem to be missing from the series." in answer.limits
    assert any("gaps between them is left out" in limit for limit in answer.limits)
    assert not any("gaps between them" in limit for limit in whole.limits)


def test_the_key_images_show_most_of_it() -> None:
    """The first key image is the one with the largest outline; the others are not its neighbours."""
    answer, _ = read(Cut(ball(CENTRE, RADIUS)))
    assert answer.outlines is not None
    areas = masks_of(answer.outlines).sum(axis=(1, 2))
    places = [answer.outlines.images.index(image) for image in answer.key_images]
    assert areas[places[0]] == areas.max()
    assert len(places) == 3 and min(abs(one - other) for one in places for other in places if one != other) > 1
    assert key_slices(np.zeros(8, int)) == (4, 2, 6)


def test_nothing_there_is_an_answer() -> None:
    """Where nothing is bright the answer is that nothing is there, outlines empty, with a probability above a half."""
    answer, _ = read(Cut(ball(CENTRE, RADIUS, inside=0.3)))
    assert (answer.presence, answer.wording) == ("absent", "No mass")
    assert answer.probability > 0.95
    assert answer.outlines is not None and answer.outlines.segments == ()
    assert [alternative.label for alternative in answer.alternatives] == ["no mass", "mass"]
    assert sum(alternative.probability for alternative in answer.alternatives) == pytest.approx(1)


def test_specks_are_not_counted() -> None:
    """A part below the contract's least volume is neither outlined nor an answer, beside a larger one or alone."""
    small = ball((20.0, 20.0, 0.0), 4.0)  # 0.27 mL
    answer, _ = read(Cut(small))
    assert answer.presence == "absent" and answer.probability >= 0.5
    assert "Connected parts of less than 0.5 mL were not counted." in answer.limits
    large = ball(CENTRE, RADIUS)
    both, _ = read(Cut(lambda points: np.maximum(small(points), large(points))))
    alone, _ = read(Cut(large))
    assert both.outlines == alone.outlines
    counted, _ = read(Cut(small), contract(minimum=0))
    assert counted.presence == "present"


def test_a_flat_network_outlines_slice_by_slice() -> None:
    """A network of two dimensions gives the same mask, from windows of two sides."""
    cut = Cut(ball(CENTRE, RADIUS), shape=(70, 50))
    flat = contract(dimensions=2, orientation="stored", spacing=(0, 0, 0), window=(32, 32))
    study, network = Study.of(cut), Bright()
    answer = study.read(flat, network)
    assert isinstance(answer, Classified) and answer.outlines is not None
    assert {shape[1:] for shape in network.shapes} == {(1, 32, 32)}
    assert np.array_equal(masks_of(answer.outlines), truth(cut, study, answer.outlines))


def test_overlapping_segments_are_kept_apart() -> None:
    """Channels that answer each by itself may overlap; one that does not answer the question makes no finding."""
    text = contract_text().replace('"softmax"', '"sigmoid"').replace("channel = 1", "channel = 0")
    other = text[text.index("[[segments]]") : text.index("[required]")]
    other = other.replace('"mass"', '"head"').replace("channel = 0", "channel = 1") + "answers = false\n\n"
    of = parse_contract(tomllib.loads(text.replace("[required]", other + "[required]", 1)))

    class Two:
        """What is bright, and all that is not dark."""

        def run(self, inputs: np.ndarray) -> Outputs:
            return Outputs(40 * np.concatenate([inputs - 0.6, inputs - 0.1], axis=1).astype(np.float32), None)

    answer = Study.of(Cut(ball(CENTRE, RADIUS))).read(of, Two())
    assert isinstance(answer, Classified) and answer.outlines is not None
    assert [segment.label for segment in answer.outlines.segments] == ["mass", "head"]
    mass, head = masks_of(answer.outlines, 0), masks_of(answer.outlines, 1)
    assert head.all() and mass.any() and not mass.all()
    nothing = Study.of(Cut(ball(CENTRE, RADIUS, inside=0.3))).read(of, Two())
    assert isinstance(nothing, Classified) and nothing.outlines is not None
    assert nothing.presence == "absent"
    assert [segment.label for segment in nothing.outlines.segments] == ["head"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"ImagePositionPatient": None}, "where they lie in the patient"),
        ({"FrameOfReferenceUID": None}, "where they lie in the patient"),
        ({"PixelSpacing": None}, "where they lie in the patient"),
    ],
)
def test_images_without_a_place_are_refused(header: dict[str, object], words: str) -> None:
    """Without geometry there is no volume, and the refusal says so."""
    answer = Study.of(Cut(ball(CENTRE, RADIUS)), **header).read(contract(), Bright())
    assert isinstance(answer, Refused)
    assert answer.code == "geometry" and words in answer.sentence


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], "one stack of equal slices"),
        ("PixelSpacing", [1.0, 1.1], "one stack of equal slices"),
        ("ImagePositionPatient", [-20.0, -31.5, 4.0], "askew"),
        ("ImagePositionPatient", [-31.5, -31.5, -1.0], "in one place, and differ"),
    ],
)
def test_slices_that_make_no_volume_are_refused(attribute: str, value: list[float], words: str) -> None:
    """One slice that does not lie in the stack of the others is enough."""
    study = Study.of(Cut(ball(CENTRE, RADIUS)))
    setattr(study.stored["14.dcm"][0], attribute, value)
    answer = study.read(contract(), Bright())
    assert isinstance(answer, Refused), answer.limits
    assert answer.code == "geometry" and words in answer.sentence


def test_a_repeated_slice_counts_once() -> None:
    """The very same picture in the same place is left out, and the volume stays."""
    cut = Cut(ball(CENTRE, RADIUS))
    plain, _ = read(cut)
    study = Study.of(cut)
    study.add(cut.header(12, 40), cut.scene(cut.points(12)))
    answer = study.read(contract(), Bright())
    assert isinstance(answer, Classified) and answer.outlines is not None and plain.outlines is not None
    assert answer.outlines.segments[0].volume_mm3 == plain.outlines.segments[0].volume_mm3
    assert "1 image repeats another of the series and was not counted." in answer.limits


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_the_models_failure(bad: float) -> None:
    """A network that gives no numbers fails the read; it is not taken for nothing there."""

    class Broken:
        def run(self, inputs: np.ndarray) -> Outputs:
            logits = np.zeros((len(inputs), 2, *inputs.shape[2:]), np.float32)
            logits[:, 1] = bad
            return Outputs(logits, None)

    with pytest.raises(ModelFailed, match="numbers that are none"):
        Study.of(Cut(ball(CENTRE, RADIUS))).read(contract(), Broken())


def test_masks_too_ragged_to_be_kept_are_the_models_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that answers with noise fails the read in words; its masks would not go through the pipe."""
    from inference import outlines

    monkeypatch.setattr(outlines, "_LARGEST", 300)
    with pytest.raises(ModelFailed, match="too ragged"):
        Study.of(Cut(ball(CENTRE, RADIUS), shape=(100, 100))).read(contract(), Bright())


def test_the_other_probability_is_that_of_the_strongest_voxels() -> None:
    """With `strongest` a finding's probability is the mean of the best voxels, which is no less than the part's."""
    text = contract_text()
    strongest = parse_contract(tomllib.loads(text.replace('"largest_part"', '"strongest"')))
    study = Study.of(Cut(ball(CENTRE, RADIUS)))
    part, best = (study.read(of, Bright(steep=4.0)) for of in (contract(), strongest))
    assert isinstance(part, Classified) and isinstance(best, Classified)
    assert 0.5 < part.probability < best.probability < 1
    assert part.outlines == best.outlines


def test_the_answer_goes_through_the_pipe_as_it_is() -> None:
    """An answer with outlines is the same after it was JSON."""
    import json

    answer, _ = read(CUTS["rectangular pixels"])
    assert answer_from_json(json.loads(json.dumps(answer_to_json(answer)))) == answer
    assert answer_from_json(json.loads(json.dumps(answer_to_json(replace(answer, outlines=None))))).outlines is None  # type: ignore[union-attr]
