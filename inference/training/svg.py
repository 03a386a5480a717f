"""A few plots as SVG text: lines and bars in one frame. No library is needed, and a report stays one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f6fb4", "#d1602b", "#3a8f3a", "#8a4fb0", "#b3263a", "#8a6d1f", "#2f8f95", "#666666")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 380, 270, 52, 42, 26, 10


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    marks: bool = False  # a dot at each point


@dataclass(frozen=True, slots=True)
class Axes:
    """What a plot's axes say, and how far they reach."""

    title: str
    x: str
    y: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    def across(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return _LEFT + (value - low) / max(high - low, 1e-12) * (_WIDTH - _LEFT - _RIGHT)

    def up(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / max(high - low, 1e-12) * (_HEIGHT - _BOTTOM - _TOP)


def lines(axes: Axes, curves: Sequence[Curve]) -> str:
    """A plot of the curves with a legend."""
    parts = []
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        points = [(axes.across(x), axes.up(y)) for x, y in zip(curve.x, curve.y, strict=True) if not math.isnan(y)]
        dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        if curve.marks:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
        from_below = _HEIGHT - _BOTTOM - 10 - 13 * (len(curves) - 1 - number)
        parts.append(_text(_WIDTH - _RIGHT - 14, from_below, curve.name, anchor="end", fill=colour))
    return _framed(axes, parts)


def bars(axes: Axes, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Bars side by side, one of each group for every name."""
    parts = []
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(names))
    wide = 0.8 * step / max(1, len(groups))
    for place, name in enumerate(names):
        left = _LEFT + place * step
        parts.append(_text(left + step / 2, _HEIGHT - _BOTTOM + 14, name, anchor="middle"))
        for number, (_, values) in enumerate(groups):
            top = axes.up(values[place])
            x = left + 0.1 * step + number * wide
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_HEIGHT - _BOTTOM - top:.1f}" '
                f'fill="{COLOURS[number % len(COLOURS)]}"/>'
            )
    for number, (group, _) in enumerate(groups):
        parts.append(_text(_LEFT + 8, _TOP + 14 + 13 * number, group, fill=COLOURS[number % len(COLOURS)]))
    return _framed(axes, parts, ticks_across=False)


def _framed(axes: Axes, parts: Sequence[str], ticks_across: bool = True) -> str:
    frame = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(axes.title, quote=True)}">',
        _text(_WIDTH / 2, 15, axes.title, anchor="middle", size=12),
        f'<path d="M{_LEFT} {_TOP} V{_HEIGHT - _BOTTOM} H{_WIDTH - _RIGHT}" fill="none" stroke="#444"/>',
        _text(_WIDTH / 2, _HEIGHT - 8, axes.x, anchor="middle"),
        f'<g transform="rotate(-90 12 {_HEIGHT / 2})">{_text(12, _HEIGHT / 2, axes.y, anchor="middle")}</g>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = axes.y_range[0] + share * (axes.y_range[1] - axes.y_range[0])
        frame.append(_text(_LEFT - 4, axes.up(y) + 3, f"{y:.4g}", anchor="end"))
        x = axes.x_range[0] + share * (axes.x_range[1] - axes.x_range[0])
        if ticks_across:
            frame.append(_text(axes.across(x), _HEIGHT - _BOTTOM + 14, f"{x:.3g}", anchor="middle"))
    return "".join([*frame, *parts, "</svg>"])


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 10, fill: str = "#333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-family="sans-serif" text-anchor="{anchor}" '
        f'fill="{fill}">{escape(words)}</text>'
    )
