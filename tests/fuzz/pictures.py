"""Stored objects whose pixels are broken: in every transfer syntax the decoder refuses in words, or its child dies."""

from __future__ import annotations

import io
import random
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gdcm
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from dicom_listener.bounded import BoundedDecoder, Bounds
from dicom_listener.codestream import promise_of
from dicom_listener.pixels import read_header
from dicom_listener.transcoding import uncompressed
from dicom_listener.transfer_syntaxes import TRANSFER_SYNTAXES
from fhir_records.errors import PixelsNotReadable
from tests.fuzz.mutations import mutated
from tests.fuzz.seeds import corpus
from tests.unit.dicom_listener.objects import as_file, image

ROWS, COLUMNS = 24, 20
_ROOT = "1.2.840.10008.1.2"
_EXPLICIT = f"{_ROOT}.1"
# What GDCM writes, of 8 and of 12 bits.
_OF_8_BITS = (".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".5", ".1.99", ".2")
_OF_12_BITS = (".4.51", ".4.53", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".5", ".1.99", ".2")
# Its limits are tight here, so that what passes them is soon over.
BOUNDS = Bounds(seconds=5.0, memory_mb=768, processes=2)
# The machine may be slow, and a child may have to be started.
_CASE_S = BOUNDS.seconds + BOUNDS.start_seconds + 10.0


def seeds(others: Sequence[Path] = ()) -> dict[str, bytes]:
    """Small sound objects: each transfer syntax that is decoded here, grey and in colour, one frame and three.

    Args:
        others: files of other makers, to begin with, too.
    """
    eight, twelve = _grey(8), _grey(16)
    made = {f"8{end}": _by_gdcm(eight, _ROOT + end) for end in _OF_8_BITS}
    made |= {f"12{end}": _by_gdcm(twelve, _ROOT + end) for end in _OF_12_BITS}
    made |= {f"colour{end}": _by_gdcm(_colour(), _ROOT + end) for end in (".4.50", ".4.70", ".4.80", ".4.90", ".5")}
    made |= {f"plain{end}": as_file(_grey(16), _ROOT + end) for end in ("", ".1")}
    buffer = io.BytesIO()
    Image.fromarray(_values(8)).save(buffer, "JPEG", progressive=True)
    made["progressive"] = _encapsulated(_grey(8), ".4.55", [buffer.getvalue()])
    raw = _values(16).astype("<u2").tobytes()
    made["fragments"] = _encapsulated(twelve, ".1.98", [raw] * 3)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    made["deflated frames"] = _encapsulated(twelve, ".8.1", [deflater.compress(raw) + deflater.flush()])
    # High-throughput JPEG 2000 has the markers and the decoder of JPEG 2000, and no encoder here.
    codestream = next(generate_frames(dcmread(io.BytesIO(made["12.4.90"])).PixelData, number_of_frames=1))
    made |= {f"htj2k{end}": _encapsulated(_grey(16), end, [codestream]) for end in (".4.201", ".4.202", ".4.203")}
    return made | {path.name: path.read_bytes() for path in others}


def spoiled(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """An object with something wrong in it: in its pixels twice as often as anywhere."""
    at = content.find(b"\xe0\x7f\x10\x00")
    if at < 0 or rng.random() < 0.33:
        return mutated(content, others, rng)
    # Behind the offset table and the first item's header, where codestreams have theirs.
    start = at + rng.choice((8, 12, 20, 28))
    return content[:start] + mutated(content[start:], others, rng)


@dataclass
class Gallery:
    """Broken pictures, shown one after another."""

    folder: Path
    seed: int
    others: Sequence[Path] = ()
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    sound: Counter[str] = field(default_factory=Counter)  # of the objects that nobody had spoiled
    slowest_s: float = 0.0
    died: dict[str, bytes] = field(default_factory=dict)  # by the seed: the first case over which a child died
    faults: list[str] = field(default_factory=list)

    def run(self, *, cases: int = 0, seconds: float = 0.0) -> None:
        """Go on until so many cases are over, or so much time."""
        deadline = time.monotonic() + seconds if seconds else float("inf")
        pool = seeds(self.others)
        with BoundedDecoder(BOUNDS) as decoder:
            for name, content in pool.items():
                self._show(decoder, f"{name}, sound", content, 0)
            self.sound = Counter(self.outcomes)
            for name, content in corpus("picture").items():
                for uncompress in (False, True):
                    self._show(decoder, name, content, 0, uncompress=uncompress)
            threads = [
                threading.Thread(target=self._work, args=(decoder, pool, number, cases, deadline))
                for number in range(BOUNDS.processes)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _work(
        self, decoder: BoundedDecoder, pool: Mapping[str, bytes], number: int, cases: int, deadline: float
    ) -> None:
        rng, others = random.Random(f"{self.seed}/{number}"), list(pool.values())
        names = list(pool)
        while time.monotonic() < deadline and not self.faults and not (cases and self.cases >= cases):
            name = names[self.cases % len(names)]
            self.cases += 1
            self._show(decoder, name, spoiled(pool[name], others, rng), number, uncompress=self.cases % 4 == 0)

    def _show(
        self, decoder: BoundedDecoder, name: str, content: bytes, number: int, *, uncompress: bool = False
    ) -> None:
        path = self.folder / f"{number}.dcm"
        path.write_bytes(content)
        began = time.monotonic()
        try:
            outcome = self._outcome(decoder, path, uncompress=uncompress)
        except Exception as error:  # boundary: whatever else comes out is a fault to be told
            self.faults.append(f"{name}: {error!r}")
            (self.folder / f"fault-{self.cases}.dcm").write_bytes(content)
            return
        took = time.monotonic() - began
        self.slowest_s = max(self.slowest_s, took)
        if took > _CASE_S:
            self.faults.append(f"{name}: it took {took:.0f} s")
        if "broke down" in outcome and name not in self.died:
            self.died[name] = content
        kinds = ("broke down", "took longer", "not enough memory", "shown", "uncompressed")
        self.outcomes[next((kind for kind in kinds if kind in outcome), "refused")] += 1

    def _outcome(self, decoder: BoundedDecoder, path: Path, *, uncompress: bool) -> str:
        """What became of it, in words."""
        content = path.read_bytes()
        # Behind the element's head, the offset table and the first item's head.
        promise_of(content[content.find(b"\xe0\x7f\x10\x00") + 28 :])
        try:
            if uncompress:
                uncompressed(path, _EXPLICIT, decoder)
                return "uncompressed"
            shown = decoder.display_frame(path)
            header = read_header(path)
            assert shown.shape[:2] == (header.Rows, header.Columns)
            assert shown.dtype == np.uint8
        except PixelsNotReadable as error:
            return str(error)
        return "shown"


def without_seed() -> set[str]:
    """The transfer syntaxes that are decoded here and of which there is no seed."""
    found = {str(dcmread(io.BytesIO(content)).file_meta.TransferSyntaxUID) for content in seeds().values()}
    return {uid for uid, syntax in TRANSFER_SYNTAXES.items() if syntax.is_decoded and uid not in found}


def _values(bits: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]:
    numbers = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    return numbers.astype(np.uint8) if bits == 8 else (numbers * 8).astype(np.uint16)


def _grey(bits: int) -> Dataset:
    depth = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7} if bits == 8 else {}
    return image(Rows=ROWS, Columns=COLUMNS, PixelData=_values(bits).tobytes(), **depth)


def _colour() -> Dataset:
    values = np.repeat(_values(8)[:, :, None], 3, axis=2)
    depth = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    return image(Rows=ROWS, Columns=COLUMNS, PixelData=values.tobytes(), PhotometricInterpretation="RGB", **depth)


def _by_gdcm(ds: Dataset, uid: str) -> bytes:
    """``ds``, uncompressed, in another transfer syntax."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = f"{folder}/before", f"{folder}/after"
        Path(before).write_bytes(as_file(ds))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(before)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(uid)))
        change.SetInput(reader.GetImage())
        assert change.Change(), uid
        writer.SetFileName(after)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(after).read_bytes()


def _encapsulated(ds: Dataset, end: str, frames: Sequence[bytes]) -> bytes:
    ds.NumberOfFrames = len(frames)
    ds.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in frames])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return as_file(ds, _ROOT + end)
