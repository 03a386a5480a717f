"""Names and words in every script, in every character set that can say them (PS3.3 section C.12.1.1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATIN = "Möller^Ægir"
CYRILLIC = "Люкceмбypг^Роза"
GREEK = "Διονυσιος^Ανδρεας"
ARABIC = "قباني^لنزار"
HEBREW = "שרון^דבורה"
THAI = "ไทย^ชื่อ"
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"
CHINESE = "Zhang^XiaoDong=张^小东"


@dataclass(frozen=True, slots=True)
class Script:
    """A patient's name and a study's description in a character set."""

    terms: str | list[str] | None  # Specific Character Set
    name: str
    words: str


def _in_utf_8() -> dict[str, Script]:
    scripts = {
        "Latin": (LATIN, "Schädel"),
        "Cyrillic": (CYRILLIC, "МРТ головы"),
        "Greek": (GREEK, "Μαγνητική εγκεφάλου"),
        "Arabic": (ARABIC, "رنين الدماغ"),
        "Hebrew": (HEBREW, "מוח"),
        "Thai": (THAI, "สมอง"),
        "Japanese": (JAPANESE, "頭部"),
        "Korean": (KOREAN, "뇌 자기공명"),
        "Chinese": (CHINESE, "颅脑平扫"),
    }
    return {f"{name}, UTF-8": Script("ISO_IR 192", person, words) for name, (person, words) in scripts.items()}


SCRIPTS: Mapping[str, Script] = {
    "none": Script(None, "Curie^Marie", "MR head"),
    "Latin, ISO_IR 100": Script("ISO_IR 100", LATIN, "Schädel"),
    "Latin, ISO_IR 101": Script("ISO_IR 101", "Łukasz^Żółć", "Głowa i Żyły"),
    "Latin, ISO_IR 109": Script("ISO_IR 109", "Ĉapek^Ĝoja", "Ĥirurgio"),
    "Latin, ISO_IR 110": Script("ISO_IR 110", "Bērziņš^Ģirts", "Galvas smadzeņu"),
    "Latin, ISO_IR 148": Script("ISO_IR 148", "Yılmaz^Şükrü", "Beyin görüntüsü"),
    "Latin, ISO 2022 IR 100": Script(["", "ISO 2022 IR 100"], LATIN, "Schädel"),
    "Cyrillic, ISO_IR 144": Script("ISO_IR 144", CYRILLIC, "МРТ головы"),
    "Cyrillic and Latin, ISO 2022": Script(["", "ISO 2022 IR 144", "ISO 2022 IR 100"], CYRILLIC, "Schädel"),
    "Greek, ISO_IR 126": Script("ISO_IR 126", GREEK, "Μαγνητική εγκεφάλου"),
    "Arabic, ISO_IR 127": Script("ISO_IR 127", ARABIC, "رنين الدماغ"),
    "Hebrew, ISO_IR 138": Script("ISO_IR 138", HEBREW, "מוח"),
    "Thai, ISO_IR 166": Script("ISO_IR 166", THAI, "สมอง"),
    "Japanese, ISO_IR 13": Script("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ﾄｳﾌﾞ"),
    "Japanese, ISO 2022 IR 87": Script(["", "ISO 2022 IR 87"], JAPANESE, "頭部"),
    "Japanese, ISO 2022 IR 13 and 87": Script(
        ["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "頭部"
    ),
    "Japanese, ISO 2022 IR 159": Script(["", "ISO 2022 IR 87", "ISO 2022 IR 159"], "Marui^Ken=丸井^丂", "頭部"),
    "Korean, ISO 2022 IR 149": Script(["", "ISO 2022 IR 149"], KOREAN, "뇌 자기공명"),
    "Chinese, GB18030": Script("GB18030", CHINESE, "颅脑平扫"),
    "Chinese, GBK": Script("GBK", CHINESE, "颅脑平扫"),
    "Chinese, ISO 2022 IR 58": Script(["", "ISO 2022 IR 58"], CHINESE, "颅脑平扫"),
    **_in_utf_8(),
}
