"""Rules: what is wrong is found before they are used, and what they came to is told down to the values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.facts import SEEN
from workflow.rule_text import Joint, pieces, words
from workflow.rules import Condition, Rule, RuleBroken, RuleFaults, Seen

SATURDAY_NIGHT = Seen.of(
    {
        "study": {"Modality": "MR", "modalities": ["MR", "CT"], "images": 5, "StudyDescription": "MR knee"},
        "series": [{"Modality": "MR", "images": 3}, {"Modality": "CT", "images": 2}],
        "instance": [{"Rows": 256}, {"Rows": 512}],
        "patient": {"age": 40},
        "now": {"hour": 22, "weekday": 6, "time": "22:10"},
    }
)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ('"MR" in study.modalities', True),
        ("series.exists(s, s.images == 2)", True),
        ('series.all(s, s.Modality == "MR")', False),
        ('series.exists_one(s, s.Modality == "CT")', True),
        ("series.filter(s, s.images > 2).size() == 1", True),
        ("instance.all(i, i.Rows >= 256)", True),
        ("now.weekday >= 6 || now.hour < 8 || now.hour >= 18", True),
        ('now.time > "18:00" && now.time < "22:00"', False),
        ('study.StudyDescription.matches("(?i)KNEE")', True),
        ('caller.ae_title == ""', True),
        ("patient.age > 30 ? study.images == 5 : false", True),
        ("series[7].images == 1 || study.images == 5", True),
    ],
)
def test_a_rule_is_true_or_false(rule: str, holds: bool) -> None:
    """Lists are asked by CEL's macros, times of day by `now`; what is not known is empty."""
    assert Rule(rule).holds(SATURDAY_NIGHT) is holds


def test_a_rule_that_asks_beyond_a_list_is_broken() -> None:
    """It is neither true nor false, and says so."""
    with pytest.raises(RuleBroken):
        Rule("series[7].images == 1").holds(SATURDAY_NIGHT)
    assert Rule("series[7].images == 1").explain(SATURDAY_NIGHT).holds is None


def test_a_rule_cannot_take_for_ever() -> None:
    """A rule that looks at too many entries is given up, and is broken for that study; another is not."""
    many = Seen.of({"instance": [{"Rows": 1}] * 9000, "series": [{"images": 1}] * 9})
    endless = Rule("series.all(s, instance.all(i, i.Rows == s.images))")
    with pytest.raises(RuleBroken):
        endless.holds(many)
    assert endless.explain(many).holds is None
    assert Rule("instance.all(i, i.Rows == 1)").holds(many)


@pytest.mark.parametrize(
    ("rule", "faults"),
    [
        ("", [(1, 1, "is no CEL")]),
        ("true &&", [(1, 8, "is no CEL")]),
        ("study.Modalty == 'MR'", [(1, 7, "study has no Modalty (is Modality meant?); it has StudyInstanceUID")]),
        ("true || series.exists(s, s.imges > 3)", [(1, 28, "an entry of series has no imges (is images meant?)")]),
        ("now.hour > 18\n && now.wekday == 1", [(2, 9, "now has no wekday (is weekday meant?)")]),
        ("srie == 1 && study.images == 'a'", [(1, 1, "srie is not known"), (1, 27, "== does not go with")]),
        ('study.Modality.lower() == "mr"', [(1, 16, "lower is no function of CEL")]),
        ("series.exists(s, s.images)", [(1, 14, "does not go with true or false and a whole number")]),
        ("study.modalities == 'MR'", [(1, 18, "== does not go with a list and a text")]),
        ("1 == 1.0", [(1, 3, "== does not go with a whole number and a number with decimals")]),
        ("study.images", [(1, 1, "comes to a whole number, and must come to true or false")]),
        ("study.Modality", [(1, 1, "comes to a text")]),
        ("dyn(study.images)", [(1, 1, "must come to true or false")]),
        ('study.Modality.matches("(")', [(1, 24, "the regular expression is not valid: missing )")]),
        ('true ||\n  study.Modality.matches(r"[a")', [(2, 26, "the regular expression is not valid: missing ]")]),
        ("(" * 100 + "true" + ")" * 100, [(1, 1, "nested too deeply")]),
    ],
)
def test_what_is_wrong_with_a_rule_is_told_with_its_place(rule: str, faults: list[tuple[int, int, str]]) -> None:
    """Every wrong name, type and pattern is found without a study, also behind what would never be evaluated."""
    with pytest.raises(RuleFaults) as raised:
        Rule(rule)
    found = raised.value.faults
    assert [(fault.line, fault.column) for fault in found] == [(line, column) for line, column, _ in faults]
    for fault, (_, _, part) in zip(found, faults, strict=True):
        assert part in fault.words


def lines(condition: Condition, depth: int = 0) -> list[str]:
    """An explanation as an indented text."""
    mark = {True: "yes", False: "no", None: "broken"}[condition.holds] + ("!" if condition.decided else "")
    why = "".join(f" [{reason.name} = {reason.value}]" for reason in condition.reasons)
    own = f"{'  ' * depth}{mark} {condition.joint or condition.text}{why}"
    return [own, *(line for part in condition.parts for line in lines(part, depth + 1))]


def test_an_explanation_goes_down_to_the_values() -> None:
    """Each condition with what it came to, the values behind it, and a mark where it decided."""
    rule = Rule(
        '"MR" in study.modalities && !study.StudyDescription.matches("(?i)brain|head")'
        " && (patient.age >= 60 || series.exists(s, s.images > 9))"
    )
    assert lines(rule.explain(SATURDAY_NIGHT)) == [
        "no! and",
        '  yes "MR" in study.modalities [study.modalities = ["MR", "CT"]]',
        "  yes not",
        '    no study.StudyDescription.matches("(?i)brain|head") [study.StudyDescription = "MR knee"]',
        "  no! or",
        "    no! patient.age >= 60 [patient.age = 40]",
        "    no! series.exists(s, s.images > 9) [series = 2 entries] [series.images = [3, 2]]",
    ]


def test_operators_in_texts_and_comments_join_nothing() -> None:
    """What stands in quotes, raw or with escapes, and behind two slashes is no operator."""
    rule = 'study.Modality != "a && \\" || b" // or && or\n || study.Modality == r"\\" || false'
    whole = pieces(rule)
    assert whole.joint is Joint.OR
    assert [part.text for part in whole.parts] == [
        'study.Modality != "a && \\" || b"',
        'study.Modality == r"\\"',
        "false",
    ]


def test_a_negation_of_one_operand_is_not_cut() -> None:
    """`!a == b` compares, it does not negate a comparison."""
    assert pieces("!true == false").joint is Joint.NONE
    assert pieces("!(true == false)").joint is Joint.NOT
    assert pieces("a ? b && c : d").joint is Joint.NONE


ATOMS = st.sampled_from(
    [
        "true",
        "false",
        "study.images == 5",
        'study.Modality == "a || b"',
        "series.exists(s, s.images == 2 && s.Modality == 'CT')",
        "series[9].images == 1",
        "now.hour in [21, 22]",
    ]
)
RULES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" && ", "||", "\n&&\n"]), inner).map("".join),
        inner.map(lambda rule: f"!({rule})"),
        inner.map(lambda rule: f"({rule})"),
        st.tuples(inner, inner, inner).map(lambda three: f"(({three[0]}) ? ({three[1]}) : ({three[2]}))"),
    ),
    max_leaves=12,
)


@given(RULES)
def test_the_parts_of_an_explanation_make_its_whole(rule: str) -> None:
    """However a rule is built, joining its parts as the explanation says gives what the library says of the whole."""

    def joined(condition: Condition) -> bool | None:
        values = [joined(part) for part in condition.parts]
        if condition.joint is Joint.AND:
            return False if False in values else None if None in values else True
        if condition.joint is Joint.OR:
            return True if True in values else None if None in values else False
        if condition.joint is Joint.NOT:
            return None if values[0] is None else not values[0]
        return condition.holds

    try:
        compiled = Rule(rule)
    except RuleFaults as error:
        assert "nested" in str(error)
        return
    explanation = compiled.explain(SATURDAY_NIGHT)
    try:
        holds: bool | None = compiled.holds(SATURDAY_NIGHT)
    except RuleBroken:
        holds = None
    assert explanation.holds is holds
    assert joined(explanation) is holds


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    """Whatever is written, it is taken or refused with a place in it; and cutting it into words loses nothing."""
    assert [text[word.start : word.end] for word in words(text)] == [word.text for word in words(text)]
    pieces(text)
    try:
        Rule(text)
    except RuleFaults as error:
        assert all(fault.line >= 1 and fault.column >= 1 and fault.words for fault in error.faults)


def test_rules_are_used_from_several_threads() -> None:
    """A worker routes several studies at once with the same rules."""
    rule = Rule("series.exists(s, s.images == 2) && study.images == 5")
    with ThreadPoolExecutor(8) as pool:
        seen = [Seen.of({"study": {"images": number % 7}, "series": [{"images": 2}]}) for number in range(700)]
        assert list(pool.map(rule.holds, seen)) == [number % 7 == 5 for number in range(700)]


def test_every_fact_has_its_type() -> None:
    """Each name that rules see can be compared with a value of its type, and with no other."""
    for name, attributes in SEEN.items():
        for attribute, kind in attributes.items():
            one = f"{name}[0].{attribute}" if name in ("series", "instance") else f"{name}.{attribute}"
            value = {"text": "'a'", "whole number": "1", "list of texts": "['a']"}[kind.value]
            Rule(f"{one} == {value}")
            with pytest.raises(RuleFaults):
                Rule(f"{one} == 1.5")
