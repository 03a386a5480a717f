"""How much text is found, and how many clean images are refused: ``python -m tests.bench.bench_burnt_in DATA``.

The images are of people, or of look-alikes, whom the finder never saw; most of the typefaces are new to it too. One
text is drawn into each image, as it is there or enlarged, in a place and a brightness in which it stands out from what
is under it by at least 40 of 255 and 1.5 times what that varies by.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from inference.burnt_in import THRESHOLD, find_text, score_of
from inference.training.burnt_in_data import MEASURE, Picture, pictures
from inference.training.burnt_in_drawing import (
    HELD_OUT_FONTS,
    Contrast,
    Grey,
    Text,
    coded,
    draw_text,
    mask_of,
    place,
    styled,
)

# Debian's fonts-dejavu, where it is installed: more faces that no training has seen.
_SYSTEM = Path("/usr/share/fonts/truetype/dejavu")
_FACES = ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Oblique.ttf")
FONTS = (*HELD_OUT_FONTS, *(str(_SYSTEM / face) for face in _FACES if (_SYSTEM / face).is_file()))
SIZES = ((7, 8), (9, 10), (11, 13), (14, 18), (19, 26), (27, 40))  # pixels of type
LETTERS = ((2, 3), (4, 8), (9, 30))
CONTRAST = Contrast()
WAYS = ("as it comes", "white, anywhere", "JPEG 40", "not smooth", "turned")
SIDES = (0, 0, 256, 384, 512)  # pixels of the shorter side that an image is brought to; 0: as it is


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image with text in it."""

    grey: Grey
    text: Text
    kind: str
    way: str
    letters: int


def clean(data: Path, share: float = 1.0) -> Iterator[Picture]:
    """Images without text, or a share of them; thumbnails enlarged to 256 pixels."""
    for picture in pictures(data, MEASURE):
        if zlib.crc32(picture.name.encode()) % 1000 < 1000 * share:
            is_small = picture.kind == "thumbnail"
            yield replace(picture, grey=enlarged(picture.grey, 256)) if is_small else picture


def drawn(
    picture: Picture, rng: np.random.Generator, letters: tuple[int, int], sizes: tuple[int, int], way: str
) -> Drawn | None:
    """The image with a text of so many letters and such a size in it; None where the text has no room."""
    grey = enlarged(picture.grey, int(rng.choice(SIDES)))
    size, count = int(rng.integers(sizes[0], sizes[1] + 1)), int(rng.integers(letters[0], letters[1] + 1))
    text, at = styled(rng, grey, FONTS, size, count, CONTRAST)
    turned = int(rng.choice([1, 3])) if way == "turned" else 0
    changed = replace(text, turned=turned, tilt=text.tilt if way == "as it comes" else 0.0)
    if way == "not smooth":
        changed = replace(changed, smooth=False)
    if way == "white, anywhere":
        changed = replace(changed, level=255, opacity=1.0, edge=None, plate=None)
    if changed != text:
        text, at = changed, place(rng, grey.shape, mask_of(changed).shape)
    height, width = mask_of(text).shape
    if height > grey.shape[0] + 6 or width > grey.shape[1] + 6:
        return None
    if not _stands_out(grey, text, at):
        return None
    picture_with = grey.copy()
    draw_text(picture_with, text, at)
    if way == "JPEG 40":
        picture_with = coded(picture_with, 40)
    return Drawn(picture_with, text, picture.kind, way, count)


def enlarged(grey: Grey, side: int) -> Grey:
    """The image with the shorter side of so many pixels; never smaller than it is, nor than 160."""
    times = max(side, 160, min(grey.shape)) / min(grey.shape)
    if times == 1:
        return grey
    shape = (round(grey.shape[1] * times), round(grey.shape[0] * times))
    return np.asarray(Image.fromarray(grey).resize(shape, Image.Resampling.BICUBIC))


def _stands_out(grey: Grey, text: Text, at: tuple[int, int]) -> bool:
    if text.edge is not None or text.plate is not None:
        return True
    height, width = mask_of(text).shape
    under = grey[max(0, at[1]) : at[1] + height, max(0, at[0]) : at[0] + width]
    return abs(text.level - float(under.mean())) * text.opacity >= CONTRAST.least(under) - 1


def found_shares(
    images: Sequence[Picture], seed: int, rounds: int, ways: Sequence[str] = WAYS
) -> dict[tuple[str, str, str], list[tuple[float, Drawn]]]:
    """The score of each drawn text, by letters, size and way."""
    rng = np.random.default_rng(seed)
    scores: dict[tuple[str, str, str], list[tuple[float, Drawn]]] = defaultdict(list)
    for way in ways:
        for letters in LETTERS:
            for sizes in SIZES:
                taken = 0
                while taken < rounds:
                    one = drawn(images[int(rng.integers(len(images)))], rng, letters, sizes, way)
                    if one is not None:
                        taken += 1
                        key = (f"{letters[0]}-{letters[1]}", f"{sizes[0]}-{sizes[1]}", way)
                        scores[key].append((score_of(one.grey.astype(np.float32)), one))
    return scores


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=100, help="texts of each kind, size and way")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    given = parser.parse_args()
    images = list(clean(given.data))
    refused, counted, started = Counter(), Counter(), time.perf_counter()
    for picture in images:
        counted[picture.kind] += 1
        refused[picture.kind] += bool(find_text(picture.grey.astype(np.float32), given.threshold))
    took = (time.perf_counter() - started) / len(images)
    print(f"{len(images)} clean images, {took * 1000:.0f} ms each; refused wrongly:")
    for kind, count in sorted(counted.items()):
        print(f"  {kind:50} {refused[kind]:4} of {count:5}  {refused[kind] / count:.1%}")
    print(f"  {'all':50} {refused.total():4} of {counted.total():5}  {refused.total() / counted.total():.1%}")
    scores = found_shares(images, 1, given.rounds)
    print(f"found, of {given.rounds} each:")
    for way in WAYS:
        print(f"  {way}: letters down, pixels of type across")
        print("           " + "".join(f"{sizes[0]:>4}-{sizes[1]:<4}" for sizes in SIZES))
        for letters in LETTERS:
            name = f"{letters[0]}-{letters[1]}"
            cells = [scores[name, f"{sizes[0]}-{sizes[1]}", way] for sizes in SIZES]
            line = [sum(score > given.threshold for score, _ in cell) / len(cell) for cell in cells]
            print(f"    {name:6} " + "".join(f"{share:8.1%} " for share in line))
    for name, least, most in (("4 letters or more", 4, 99), ("2 or 3 letters", 2, 3)):
        for some in (*[[way] for way in WAYS], WAYS):
            hits = [
                score > given.threshold
                for cell in scores.values()
                for score, one in cell
                if least <= one.letters <= most and one.text.size >= 9 and one.way in some
            ]
            which = some[0] if len(some) == 1 else "all"
            print(f"  {name}, 9 pixels or more, {which:16} {np.mean(hits):.2%} of {len(hits)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
