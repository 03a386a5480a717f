"""Text in the character set that it was written in (PS3.5 section 6.1), also where the object names another or none.

The code extension techniques of ISO 2022 are followed here byte by byte, because a library that splits a value at its
delimiters before it decodes it takes half a Chinese or Japanese character for a delimiter. Text that its declared
character set cannot say is not lost: it is taken for UTF-8 where it is valid UTF-8, else for Latin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

# PS3.5 section 6.2: the representations that SpecificCharacterSet governs; the first may hold several values.
_SEVERAL: Final = frozenset({"LO", "PN", "SH", "UC"})
_TEXT: Final = _SEVERAL | {"LT", "ST", "UT"}
# Functional groups of enhanced images: thousands of items without a text for people.
_SKIPPED: Final = frozenset({0x52009229, 0x52009230})

# PS3.3 section C.12.1.1.2: the upper half (G1) of each repertoire that has one. By the standard multi-byte ones (149,
# 58) need an escape sequence, and are met without.
_UPPER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "13": "katakana", "100": "latin_1", "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4",
        "126": "iso8859_7", "127": "iso8859_6", "138": "iso8859_8", "144": "iso8859_5", "148": "iso8859_9",
        "166": "iso8859_11", "203": "iso8859_15", "149": "euc_kr", "58": "gb2312",
    }
)  # fmt: skip
# Those without code extensions: the whole text in one.
_WHOLE: Final[Mapping[str, str]] = MappingProxyType({"192": "utf_8", "18030": "gb18030", "GBK": "gbk"})
# PS3.3 tables C.12-3 and C.12-4: what an escape sequence puts into the lower (0) or upper (1) half.
_ESCAPES: Final[Mapping[bytes, tuple[int, str]]] = MappingProxyType(
    {
        b"(B": (0, "ascii"), b"(J": (0, "ascii"), b"$B": (0, "jis_x_0208"), b"$@": (0, "jis_x_0208"),
        b"$(D": (0, "jis_x_0212"), b")I": (1, "katakana"), b"$)C": (1, "euc_kr"), b"$)A": (1, "gb2312"),
        b"-A": (1, "latin_1"), b"-B": (1, "iso8859_2"), b"-C": (1, "iso8859_3"), b"-D": (1, "iso8859_4"),
        b"-F": (1, "iso8859_7"), b"-G": (1, "iso8859_6"), b"-H": (1, "iso8859_8"), b"-L": (1, "iso8859_5"),
        b"-M": (1, "iso8859_9"), b"-T": (1, "iso8859_11"), b"-b": (1, "iso8859_15"),
    }
)  # fmt: skip
# PS3.5 section 6.1.2.5.3: behind these the first character set holds again; in person names behind ^ and = too.
_RESETS: Final = {False: rb"\t\n\f\r\\", True: rb"\t\n\f\r\\^="}
_PARTS: Final = {
    name: re.compile(rb"\x1b\$?[()\-]?[@-Zb]|[%b]|[\x80-\xff]+|[^%b\x1b\x80-\xff]+" % (resets, resets))
    for name, resets in _RESETS.items()
}
_DELIMITERS: Final = {
    False: (b"\t", b"\n", b"\f", b"\r", b"\\"),
    True: (b"\t", b"\n", b"\f", b"\r", b"\\", b"^", b"="),
}
_TWO_BYTES: Final = {"jis_x_0208": (b"\x1b$B", "iso2022_jp"), "jis_x_0212": (b"\x1b$(D", "iso2022_jp_2")}
_MULTI_BYTE_RUN = re.compile(rb"[^\x1b\x00-\x20]*")


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """A Specific Character Set (0008,0005) as it can be decoded."""

    first: str = (
        ""  # codec of the upper half until an escape sequence; of the whole text where `whole`; "" where unknown
    )
    others: tuple[str, ...] = ()  # codecs of the further values; a text may be in one though the escape is missing
    whole: bool = False


def declared(terms: Sequence[str]) -> CharacterSet:
    """What the values of SpecificCharacterSet mean, common misspellings understood; unknown ones mean nothing."""
    numbers = [_number(term) for term in terms]
    # Stand-alone sets must not be mixed with others; where they are, the text is in them.
    for number in numbers:
        if number in _WHOLE:
            return CharacterSet(_WHOLE[number], whole=True)
    codecs = [_UPPER.get(number, "") for number in numbers] or [""]
    return CharacterSet(codecs[0], tuple(codec for codec in codecs[1:] if codec))


def decoded(value: bytes, charset: CharacterSet, *, person_name: bool = False) -> str:
    """``value`` as text. Never fails: see the module's words on text that its character set cannot say."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    try:
        if charset.whole:
            return value.decode(charset.first)
        # A letter with a diacritical mark of Latin-1 behind another one, all through a text: no language has that.
        if (not charset.first or charset.first == "latin_1") and b"\x1b" not in value and _is_utf_8(value):
            return value.decode("utf_8")
        return "".join(_extended(value, charset.first or "latin_1", person_name))
    except UnicodeError:
        pass
    for codec in ("utf_8", charset.first, *charset.others, "cp1252"):
        try:
            return value.decode("shift_jis" if codec == "katakana" else codec or "ascii")
        except UnicodeError:
            continue
    return value.decode("latin_1")


def settle(ds: Dataset, inherited: CharacterSet | None = None) -> None:
    """Decode the text of ``ds`` and its sequences in place, from the bytes that were read.

    SpecificCharacterSet is left as it is. Elements whose bytes are no more at hand (that were looked at before, or
    made by a program) stay as they are, and so do sequences that cannot be decoded.
    """
    charset = _of(ds)
    if charset is None:
        charset = inherited or CharacterSet()
    for tag in list(ds.keys()):
        element = _raw(ds, tag)
        if element is None or _is_plain(element):
            continue
        vr = element.VR or _vr(tag)
        if vr == "SQ":
            if tag not in _SKIPPED:
                for item in _items(ds, tag):
                    settle(item, charset)
        elif vr in _TEXT and isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            ds[tag] = _element(tag, vr, element.value, charset)


def _raw(ds: Dataset, tag: int) -> DataElement | RawDataElement | None:
    """An element as it was read; None where it is absent or broken."""
    try:
        return ds.get_item(tag)
    except Exception:  # boundary: pydicom decodes some elements here, and raises whatever a broken one brings about
        return None


def _items(ds: Dataset, tag: BaseTag) -> list[Dataset]:
    try:
        return list(ds[tag].value or ())
    except Exception:  # boundary: pydicom raises whatever a broken sequence brings about
        return []


def _is_plain(element: DataElement | RawDataElement) -> bool:
    """Whether an element that was not parsed yet has nothing but ASCII, apart from the tags of a sequence's items."""
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return False
    value = element.value.translate(None, b"\xfe\xff\xe0\xdd") if element.VR == "SQ" else element.value
    return value.isascii() and b"\x1b" not in value


def _element(tag: BaseTag, vr: str, value: bytes, charset: CharacterSet) -> DataElement:
    text = decoded(value, charset, person_name=vr == "PN").rstrip("\0 ")
    several = text.split("\\") if vr in _SEVERAL and "\\" in text else None
    return DataElement(tag, vr, [one.strip(" ") for one in several] if several else text, validation_mode=config.IGNORE)


def _of(ds: Dataset) -> CharacterSet | None:
    """The character set that ``ds`` declares; None where it declares none."""
    element = _raw(ds, 0x00080005)
    if element is None or not element.value:
        return None
    value = element.value
    if isinstance(value, bytes):
        value = value.decode("latin_1").split("\\")
    return declared([str(value)] if isinstance(value, str) else [str(term or "") for term in value])


def _number(term: str) -> str:
    """What tells a defined term from the others: "100" of "ISO_IR 100", "ISO 2022 IR 100", "iso-ir 100"."""
    word = re.sub(r"[\s_\-\0]", "", term).upper()
    if word in {"UTF8", "UNICODE"}:
        return "192"
    if word.startswith("GB18030"):
        return "18030"
    if word in {"GBK", "ISO2022GBK", "GB2312"}:
        return "GBK"
    if latin := re.fullmatch(r"(?:ISO)?8859(\d{1,2})", word):
        parts = {"1": "100", "2": "101", "3": "109", "4": "110", "5": "144", "6": "127", "7": "126", "8": "138"}
        return (parts | {"9": "148", "11": "166", "15": "203"}).get(latin[1], "")
    found = re.fullmatch(r"(?:ISO)?(?:2022)?(?:IR)?(\d+)", word)
    return found[1] if found else ""


def _vr(tag: BaseTag) -> str:
    """The representation of an element of Implicit VR; "" where the dictionary does not know it."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _is_utf_8(value: bytes) -> bool:
    try:
        value.decode("utf_8")
    except UnicodeError:
        return False
    return True


def _extended(value: bytes, first: str, person_name: bool) -> Iterator[str]:
    """The pieces of a text with code extensions, each decoded (PS3.5 section 6.1.2.5). Raises UnicodeError."""
    halves = ["ascii", first]
    position = 0
    while position < len(value):
        if halves[0] in _TWO_BYTES and value[position] != 0x1B:
            # Two bytes each, of which any may look like a delimiter.
            run = _MULTI_BYTE_RUN.match(value, position)
            piece = run[0] if run else b""
            if piece:
                escape, codec = _TWO_BYTES[halves[0]]
                yield (escape + piece).decode(codec)
                position += len(piece)
                continue
        match = _PARTS[person_name].match(value, position)
        piece = match[0] if match else value[position : position + 1]
        position += len(piece)
        if piece[:1] == b"\x1b":
            half, codec = _ESCAPES.get(piece[1:], (0, "ascii"))
            halves[half] = codec
        elif piece[0] >= 0x80:
            yield _upper(piece, halves[1])
        else:
            yield piece.decode("ascii")
            if piece in _DELIMITERS[person_name]:
                halves = ["ascii", first]


def _upper(piece: bytes, codec: str) -> str:
    # The control characters of Latin-1's upper half (0x80 to 0x9F) are never meant.
    if codec == "latin_1" and any(byte < 0xA0 for byte in piece):
        raise UnicodeError("not Latin-1")
    if codec != "katakana":
        return piece.decode(codec)
    if any(not 0xA1 <= byte <= 0xDF for byte in piece):  # JIS X 0201
        raise UnicodeError("not katakana of JIS X 0201")
    return piece.decode("shift_jis")
