"""Every transfer syntax of the standard (PS3.6 annex A): all are stored, and what becomes of their pixels.

docs/conformance.md holds this table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Way(StrEnum):
    """How the pixels of a transfer syntax come to be values."""

    PLAIN = "plain"  # uncompressed, or the data set deflated as a whole
    LIBRARY = "library"  # pydicom and its decoders
    GDCM_JPEG = "gdcm jpeg"  # JPEG that pydicom knows no decoder for, and GDCM has one
    FRAGMENTS = "fragments"  # uncompressed frames, encapsulated (PS3.5 section A.4.11)
    DEFLATED_FRAMES = "deflated frames"  # PS3.5 section A.4.13
    VIDEO = "video"
    ELSEWHERE = "elsewhere"  # the object holds an address instead of pixels (PS3.5 section A.6)
    NONE = "none"  # no decoder


# What is said of an image that cannot be shown.
_WORDS: Final[Mapping[Way, str]] = MappingProxyType(
    {
        Way.VIDEO: "This is a video ({name}). It is stored whole, and no picture of it can be shown here: "
        "download it, or look at it in a viewer that plays videos.",
        Way.ELSEWHERE: "The pixels are not in this object but on another server ({name}), which is not asked for them.",
        Way.NONE: "The pixels are compressed with {name}, for which there is no decoder here. "
        "The object is stored whole: download it, or look at it in a viewer that knows this compression.",
    }
)


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """A transfer syntax."""

    uid: str
    name: str
    way: Way

    @property
    def is_decoded(self) -> bool:
        """Whether its pixels can be shown and read."""
        return self.way not in _WORDS

    @property
    def is_deflated(self) -> bool:
        """Whether the data set as a whole is deflated (PS3.5 section A.5)."""
        return self.uid in _DEFLATED

    @property
    def is_encapsulated(self) -> bool:
        """Whether its pixels are a sequence of fragments (PS3.5 section A.4)."""
        return self.way not in (Way.PLAIN, Way.ELSEWHERE)

    @property
    def why_not(self) -> str:
        """Why there is no picture, for people; "" where there is one."""
        return _WORDS[self.way].format(name=self.name) if self.way in _WORDS else ""


_ROOT: Final = "1.2.840.10008.1.2"
_DEFLATED: Final = frozenset({f"{_ROOT}.1.99", f"{_ROOT}.4.95", f"{_ROOT}.4.205"})


def _table() -> dict[str, TransferSyntax]:
    names = {
        "": ("Implicit VR Little Endian", Way.PLAIN),
        ".1": ("Explicit VR Little Endian", Way.PLAIN),
        ".1.98": ("Encapsulated Uncompressed Explicit VR Little Endian", Way.FRAGMENTS),
        ".1.99": ("Deflated Explicit VR Little Endian", Way.PLAIN),
        ".2": ("Explicit VR Big Endian", Way.PLAIN),
        ".4.50": ("JPEG Baseline (Process 1)", Way.LIBRARY),
        ".4.51": ("JPEG Extended (Process 2 and 4)", Way.GDCM_JPEG),
        ".4.52": ("JPEG Extended (Process 3 and 5)", Way.NONE),
        ".4.53": ("JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)", Way.GDCM_JPEG),
        ".4.54": ("JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)", Way.NONE),
        ".4.55": ("JPEG Full Progression, Non-Hierarchical (Process 10 and 12)", Way.GDCM_JPEG),
        ".4.56": ("JPEG Full Progression, Non-Hierarchical (Process 11 and 13)", Way.NONE),
        ".4.57": ("JPEG Lossless, Non-Hierarchical (Process 14)", Way.LIBRARY),
        ".4.58": ("JPEG Lossless, Non-Hierarchical (Process 15)", Way.NONE),
        ".4.59": ("JPEG Extended, Hierarchical (Process 16 and 18)", Way.NONE),
        ".4.60": ("JPEG Extended, Hierarchical (Process 17 and 19)", Way.NONE),
        ".4.61": ("JPEG Spectral Selection, Hierarchical (Process 20 and 22)", Way.NONE),
        ".4.62": ("JPEG Spectral Selection, Hierarchical (Process 21 and 23)", Way.NONE),
        ".4.63": ("JPEG Full Progression, Hierarchical (Process 24 and 26)", Way.NONE),
        ".4.64": ("JPEG Full Progression, Hierarchical (Process 25 and 27)", Way.NONE),
        ".4.65": ("JPEG Lossless, Hierarchical (Process 28)", Way.NONE),
        ".4.66": ("JPEG Lossless, Hierarchical (Process 29)", Way.NONE),
        ".4.70": ("JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)", Way.LIBRARY),
        ".4.80": ("JPEG-LS Lossless", Way.LIBRARY),
        ".4.81": ("JPEG-LS Lossy (Near-Lossless)", Way.LIBRARY),
        ".4.90": ("JPEG 2000 (Lossless Only)", Way.LIBRARY),
        ".4.91": ("JPEG 2000", Way.LIBRARY),
        ".4.92": ("JPEG 2000 Part 2 Multi-component (Lossless Only)", Way.NONE),
        ".4.93": ("JPEG 2000 Part 2 Multi-component", Way.NONE),
        ".4.94": ("JPIP Referenced", Way.ELSEWHERE),
        ".4.95": ("JPIP Referenced Deflate", Way.ELSEWHERE),
        ".4.100": ("MPEG2 Main Profile / Main Level", Way.VIDEO),
        ".4.100.1": ("Fragmentable MPEG2 Main Profile / Main Level", Way.VIDEO),
        ".4.101": ("MPEG2 Main Profile / High Level", Way.VIDEO),
        ".4.101.1": ("Fragmentable MPEG2 Main Profile / High Level", Way.VIDEO),
        ".4.102": ("MPEG-4 AVC/H.264 High Profile / Level 4.1", Way.VIDEO),
        ".4.102.1": ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", Way.VIDEO),
        ".4.103": ("MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", Way.VIDEO),
        ".4.103.1": ("Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", Way.VIDEO),
        ".4.104": ("MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video", Way.VIDEO),
        ".4.104.1": ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video", Way.VIDEO),
        ".4.105": ("MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video", Way.VIDEO),
        ".4.105.1": ("Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video", Way.VIDEO),
        ".4.106": ("MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", Way.VIDEO),
        ".4.106.1": ("Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", Way.VIDEO),
        ".4.107": ("HEVC/H.265 Main Profile / Level 5.1", Way.VIDEO),
        ".4.108": ("HEVC/H.265 Main 10 Profile / Level 5.1", Way.VIDEO),
        ".4.110": ("JPEG XL Lossless", Way.NONE),
        ".4.111": ("JPEG XL JPEG Recompression", Way.NONE),
        ".4.112": ("JPEG XL", Way.NONE),
        ".4.201": ("High-Throughput JPEG 2000 (Lossless Only)", Way.LIBRARY),
        ".4.202": ("High-Throughput JPEG 2000 with RPCL Options (Lossless Only)", Way.LIBRARY),
        ".4.203": ("High-Throughput JPEG 2000", Way.LIBRARY),
        ".4.204": ("JPIP HTJ2K Referenced", Way.ELSEWHERE),
        ".4.205": ("JPIP HTJ2K Referenced Deflate", Way.ELSEWHERE),
        ".5": ("RLE Lossless", Way.LIBRARY),
        ".8.1": ("Deflated Image Frame Compression", Way.DEFLATED_FRAMES),
    }
    return {_ROOT + end: TransferSyntax(_ROOT + end, name, way) for end, (name, way) in names.items()}


TRANSFER_SYNTAXES: Final[Mapping[str, TransferSyntax]] = MappingProxyType(_table())


def transfer_syntax(uid: str) -> TransferSyntax:
    """The transfer syntax of this UID; a private or newer one has no decoder."""
    return TRANSFER_SYNTAXES.get(uid) or TransferSyntax(
        uid, f"the transfer syntax {uid or 'that is not named'}", Way.NONE
    )
