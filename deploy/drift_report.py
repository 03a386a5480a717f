"""A model in use, drawn: one HTML page without anything from elsewhere, its charts as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fhir_records.store.models import ModelWeek, ShadowSummary

NOTABLE_PSI = 0.25  # by common use: above it much has changed

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 180, 56, 28
_COLOURS = ("#1f6feb", "#bf4b00", "#1a7f37", "#8250df", "#9a6700", "#cf222e")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1f2328}"
    "svg{width:100%;height:auto}table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;"
    "border-bottom:1px solid #d0d7de}th:first-child,td:first-child{text-align:left}.much{color:#cf222e;font-weight:600}"
)


def page(model: str, weeks: Sequence[ModelWeek], trials: Sequence[ShadowSummary], statement: str) -> str:
    """The report of one model's weeks, oldest first, as an HTML document."""
    labels = [f"{week.week:%d %b %y} · {week.version}" for week in weeks]
    psi = {
        "brightness of the inputs": [week.intensity_psi for week in weeks],
        "distance from training": [week.distance_psi for week in weeks],
    }
    parts = [f"<h1>{escape(model)} in use</h1><p>{escape(statement)}</p>"]
    if not weeks:
        parts.append("<p>No study has been read by it yet.</p>")
    else:
        known = any(value is not None for values in psi.values() for value in values)
        parts += [
            "<h2>Inputs against training</h2><p>Population stability index by week: below 0.1 nothing has changed, "
            f"above {NOTABLE_PSI} much has.</p>",
            lines_chart(labels, psi, mark=NOTABLE_PSI)
            if known
            else "<p>No reference: its bundle has no drift.json.</p>",
            "<h2>Refused</h2>",
            lines_chart(labels, {"share of reads": [week.refusal_rate for week in weeks]}, top=1.0),
            "<h2>Seconds for a study</h2>",
            lines_chart(
                labels,
                {
                    "mean": [week.seconds_mean for week in weeks],
                    "slowest": [week.seconds_slowest for week in weeks],
                },
            ),
            "<h2>Probability of the answers</h2>",
            *(
                f"<h3>{escape(label)}</h3>{bars_chart([f'{n / 10:.1f}' for n in range(10)], week.probabilities)}"
                for label, week in list(zip(labels, weeks, strict=True))[-4:]
            ),
            "<h2>Figures</h2>",
            _table(labels, weeks),
        ]
    parts += [_trial(trial) for trial in trials]
    title = escape(model)
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} in use</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def lines_chart(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    mark: float | None = None,
    top: float | None = None,
) -> str:
    """One line a series over the labels; gaps where there is no value, a dashed line at `mark`."""
    there = [value for values in series.values() for value in values if value is not None]
    highest = top or max([*there, mark or 0.0, 1e-9]) * 1.1
    step = (_WIDTH - _LEFT - 20) / max(1, len(labels) - 1)
    shapes = [_frame(highest), *_under(labels, step)]
    if mark is not None:
        y = _height_of(mark, highest)
        shapes.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}" stroke="#cf222e" stroke-dasharray="4 4"/>'
        )
    for number, (name, values) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [
            (_LEFT + 10 + place * step, _height_of(value, highest))
            for place, value in enumerate(values)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        place = _LEFT + 10 + 200 * number
        shapes.append(f'<text x="{place}" y="12" font-size="12" fill="{colour}">{escape(name)}</text>')
    return _svg(shapes, ", ".join(series))


def bars_chart(labels: Sequence[str], values: Sequence[float]) -> str:
    """One bar a label."""
    highest = max([*values, 1]) * 1.1
    step = (_WIDTH - _LEFT - 20) / len(labels)
    shapes = [_frame(highest), *_under(labels, step)]
    for place, value in enumerate(values):
        y = _height_of(value, highest)
        tall = _HEIGHT - _BOTTOM - y
        x = _LEFT + 10 + place * step
        shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}" fill="#1f6feb"/>')
    return _svg(shapes, "reads")


def _svg(shapes: Sequence[str], words: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(words)}" font-family="inherit">'
        f"{''.join(shapes)}</svg>"
    )


def _height_of(value: float, highest: float) -> float:
    return 18 + (_HEIGHT - _BOTTOM - 18) * (1 - min(value, highest) / highest)


def _frame(highest: float) -> str:
    ground = _HEIGHT - _BOTTOM
    marks = [
        f'<text x="{_LEFT - 6}" y="{_height_of(value, highest) + 4:.1f}" font-size="11" text-anchor="end">'
        f"{value:.3g}</text>"
        for value in (0.0, highest / 2, highest)
    ]
    return f'<path d="M{_LEFT} 18V{ground}H{_WIDTH}" fill="none" stroke="#57606a"/>{"".join(marks)}'


def _under(labels: Sequence[str], step: float) -> list[str]:
    every = max(1, round(110 / step)) if step < 110 else 1  # so that they do not run into each other
    every = 1 if max(map(len, labels), default=0) < 5 else every
    return [
        f'<text x="{_LEFT + 10 + place * step:.1f}" y="{_HEIGHT - 10}" font-size="11">{escape(label)}</text>'
        for place, label in enumerate(labels)
        if place % every == 0 and _LEFT + 10 + place * step < _WIDTH - 20
    ]


def _table(labels: Sequence[str], weeks: Sequence[ModelWeek]) -> str:
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{week.reads}</td><td>{week.refused}</td><td>{week.seconds_mean:.2f}</td>"
        f"{_psi_cell(week.intensity_psi)}{_psi_cell(week.distance_psi)}<td>{escape(told(week.answers))}</td></tr>"
        for label, week in zip(labels, weeks, strict=True)
    )
    names = ("week", "reads", "refused", "seconds", "PSI brightness", "PSI distance", "answers")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _psi_cell(value: float | None) -> str:
    if value is None:
        return "<td>no reference</td>"
    much = ' class="much"' if value > NOTABLE_PSI else ""
    return f"<td{much}>{value:.3f}</td>"


def _trial(trial: ShadowSummary) -> str:
    apart = "–" if trial.probability_difference is None else f"{trial.probability_difference:.3f}"
    return (
        f"<h2>On trial: {escape(trial.version)}</h2><p>Read {trial.reads} studies too: agrees on {trial.agreeing}, "
        f"disagrees on {trial.disagreeing}, failed on {trial.failed}; mean difference of the probability where it "
        f"agrees {apart}; {trial.seconds_mean:.2f} s a study.</p>"
    )


def told(counts: Mapping[str, int]) -> str:
    """The counts in words, most frequent first: glioma 3, notumor 1."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
