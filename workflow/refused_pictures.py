"""Why images were kept out of an export, to be looked at: each picture with a frame around the text that was found.

They show what may not leave, so they lie in a folder of their own that stays with whoever runs the installation: never
in the export, readable by its owner alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fhir_records.errors import MayNotLeave, SettingsError
from inference.burnt_in import Grey, TextBox, levels_of

_FRAME = (255, 64, 64)  # red, green, blue
_LEAST_SIDE = 512  # pixels of the longer side: smaller images are enlarged by a whole number
README = "README.txt"
_WORDS = (
    "These pictures show text that kept images out of an export of reviewed cases, and so perhaps patients' names.\n"
    "They are no part of the export: give them to nobody, and delete them when you have looked at them.\n"
    "Each is named like its line in the export's export.json (refused_images).\n"
)


class TextFound(MayNotLeave):
    """Text was found in its pixels."""

    def __init__(self, image: Grey, boxes: Sequence[TextBox]) -> None:
        super().__init__()
        self.image, self.boxes = image, boxes


class RefusedPictures:
    """A folder of pictures, which gets its name when it is whole; without a folder nothing is written."""

    def __init__(self, output: Path | None, export: Path) -> None:
        """Raises SettingsError where the folder is there already, holds the export, or is to lie in it."""
        self._output, self._aside = output, None
        if output is None:
            return
        if output.exists():
            raise SettingsError(f"{output} is there already; refused pictures are written to a folder of their own.")
        own, other = output.resolve(), export.resolve()
        if own == other or own in other.parents or other in own.parents:
            raise SettingsError(f"{output} would lie in the export, or hold it; the pictures may not leave with it.")
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        except OSError as error:
            raise SettingsError(f"{output.parent} cannot be written: {error.strerror}.") from error

    def add(self, name: str, found: TextFound) -> None:
        """Write one picture. Raises OSError where it cannot be."""
        if self._aside is None:
            return
        path = self._aside / f"{name}.png"
        path.touch(mode=0o600)
        framed(found.image, found.boxes).save(path)

    def finish(self) -> None:
        """Give the folder its name. Raises OSError where that cannot be."""
        if self._aside is not None and self._output is not None:
            path = self._aside / README
            path.touch(mode=0o600)
            path.write_text(_WORDS, encoding="utf-8")
            self._aside.rename(self._output)
            self._aside = None

    def discard(self) -> None:
        """Remove what has no name yet."""
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside = None


def framed(image: Grey, boxes: Sequence[TextBox]) -> Image.Image:
    """The picture as the finder saw it last, in RGB, with a frame around each box."""
    levels = levels_of(image)[-1]
    times = max(1, -(-_LEAST_SIDE // max(levels.shape)))
    large = Image.fromarray(np.kron(levels, np.ones((times, times), dtype=np.uint8))).convert("RGB")
    draw = ImageDraw.Draw(large)
    for box in boxes:
        corners = (box.left * times - 2, box.top * times - 2, box.right * times + 1, box.bottom * times + 1)
        draw.rectangle(corners, outline=_FRAME, width=2)
    return large
