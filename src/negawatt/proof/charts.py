"""Pictures as SVG text. They take their colours from the page's style sheet, so that one picture suits both themes.

Every picture has a title and a description for those who do not see it; lines differ in dash and end mark, bars in
sign and pattern, never in colour alone. All numbers in the pictures also stand in a table of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

import msgspec

from negawatt.proof import formats

Point = tuple[float, float]
_WIDE = 560  # from here on, labels stand beside the bars and not above them
_CHAR = 7.2  # px of an average character at 13 px


class Bar(msgspec.Struct, frozen=True):
    """One step of a waterfall, from *start* to *end*, in dollars. *bounds*: where *end* lies with 95 % confidence."""

    label: str
    start: float
    end: float
    kind: str  # total, saved, added, rest
    value: str
    bounds: tuple[float, float] | None = None


class Axis(msgspec.Struct, frozen=True):
    """A scale from *low* to *high*, with its ticks and their labels."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def at(self, value: float, start: float, length: float) -> float:
        """Return the position of *value*, clamped to the axis, on *length* px from *start*."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return start + length * (value - low) / (high - low)


class Line(msgspec.Struct, frozen=True):
    """One curve. *kind*: before (dashed, square marks) or after (solid, round marks). *marks*: points to mark."""

    legend: str
    kind: str
    points: Sequence[Point]
    marks: Sequence[Point] = ()


class Plot(msgspec.Struct, frozen=True):
    """What a chart of curves shows, whatever its size. *filled*: the area between its first two lines is tinted."""

    title: str
    description: str
    lines: Sequence[Line]
    x: Axis
    y: Axis
    x_name: str
    steps: bool = False
    filled: bool = False


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most *most* (2 or more) round values, 1, 2 or 5 times a power of ten apart, within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10, 20) if step * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def money_axis(high: float, most: int, low: float = 0.0) -> Axis:
    """Return an axis of dollars from *low* (0 or less) to *high*, or a little beyond."""
    high = high if high > low else low + 1.0
    ticks = nice_ticks(low, high, most)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(low, high, [(tick, _tick_usd(tick, step, places)) for tick in ticks])


def _tick_usd(value: float, step: float, places: int) -> str:
    if abs(value) < step / 2:
        return "$0"
    sign, size = (formats.MINUS if value < 0 else ""), abs(value)
    for unit, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M")):
        if step >= unit / 10:
            return f"{sign}${size / unit:,.10g}{letter}"
    return f"{sign}${size:,.{places}f}"


def latency_axis(values: Sequence[float], most: int) -> Axis:
    """Return an axis of milliseconds, in powers of ten where the values are far apart.

    There, the fastest twentieth of those that took any time may lie left of the axis, and is drawn on its end.
    """
    positive = sorted(value for value in values if value > 0) or [1.0]
    high = positive[-1]
    low = max(positive[len(positive) // 20], high / 1e5)
    if high / low < 30:
        ticks = nice_ticks(0.0, high, most)
        unit, name = next(((u, n) for u, n in _UNITS_MS if high >= u), _UNITS_MS[-1])
        return Axis(0.0, high, [(tick, f"{tick / unit:g} {name}" if tick else "0") for tick in ticks])
    floor, top = math.floor(math.log10(low) + 1e-9), math.floor(math.log10(high) + 1e-9)
    fine = [10.0**power * step for power in range(floor, top + 1) for step in (1, 2, 5)]
    stride = -(-(top - floor + 1) // most)
    shown = fine if len(fine) <= most + 2 else [10.0**power for power in range(floor, top + 1, stride)]
    labels = [_short_ms(tick) for tick in shown]
    if any(value < shown[0] for value in values):
        labels[0] = "≤ " + labels[0]
    ticks_ms = [(tick, label) for tick, label in zip(shown, labels, strict=True) if tick <= high]
    return Axis(10.0**floor, high, ticks_ms, log=True)


_UNITS_MS = ((3_600_000.0, "h"), (60_000.0, "min"), (1000.0, "s"), (1.0, "ms"))


def _short_ms(value: float) -> str:
    unit, name = (1000.0, "s") if value >= 1000 else (1.0, "ms")
    return f"{value / unit:,g} {name}"


_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def time_axis(low: float, high: float, most: int, *, dated: bool) -> Axis:
    """Return an axis of seconds: elapsed since the first call, or of UTC dates where *dated*."""
    high = high if high > low else low + 1.0
    step = next((step for step in _STEPS_S if (high - low) / step <= most - 1), None)
    if step is None:
        days = nice_ticks(0, (high - low) / 86_400, most)
        step = max(1, round(days[1] - days[0])) * 86_400 if len(days) > 1 else 86_400
    values = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return Axis(low, high, [(v, _date(v, step) if dated else _elapsed(v, step)) for v in values])


def _date(value: float, step: float) -> str:
    form = "%d %b" if step >= 86_400 else "%d %b %H:%M" if step >= 21_600 else "%H:%M" if step >= 60 else "%H:%M:%S"
    return datetime.fromtimestamp(value, UTC).strftime(form)


def _elapsed(value: float, step: float) -> str:
    unit, name = next(((u, n) for u, n in ((86_400, "d"), (3600, "h"), (60, "min")) if step >= u), (1, "s"))
    return f"{value / unit:g} {name}" if value else "0"


def waterfall(bars: Sequence[Bar], width: int, *, title: str, description: str) -> str:
    """Return the bars one under the other, each starting where the one before ended."""
    wide = width >= _WIDE
    left, right, row, thick, above = (196, 168, 40, 22, 9) if wide else (2, 2, 52, 18, 26)
    length, bottom = width - left - right, len(bars) * row + 6
    ends = [value for bar in bars for value in (bar.start, bar.end, *(bar.bounds or ()))]
    axis = money_axis(max(ends, default=1.0), 6 if wide else 4, min(0.0, *ends) if ends else 0.0)
    out = [_open("waterfall", width, bottom + 24, title, description), _hatch(f"waterfall-{width}")]
    out += _vertical_grid(axis, left, length, bottom)
    for i, bar in enumerate(bars):
        top = i * row + above
        x0, x1 = sorted((axis.at(bar.start, left, length), axis.at(bar.end, left, length)))
        fill = f' style="fill:url(#hatch-waterfall-{width})"' if bar.kind == "rest" else ""
        box = f'x="{x0:.1f}" y="{top}" width="{max(x1 - x0, 1):.1f}" height="{thick}"'
        out.append(f"<g><title>{escape(bar.label)}: {escape(bar.value)}</title>")
        out.append(f'<rect class="bar {bar.kind}" {box}{fill}/>')
        if bar.bounds is not None:
            low, high = (axis.at(value, left, length) for value in bar.bounds)
            out.append(_whisker(low, high, top + thick / 2))
        out += _bar_words(bar, width, i * row, left if wide else 0)
        out.append("</g>")
        if i + 1 < len(bars):
            at = axis.at(bar.end, left, length)
            out.append(f'<path class="link" d="M{at:.1f} {top + thick}V{(i + 1) * row + above}"/>')
    return "".join([*out, "</svg>"])


def _bar_words(bar: Bar, width: int, top: float, left: float) -> list[str]:
    """Return the label and the value: beside the bar where there is a column for them, else above it."""
    strong = ' class="strong"' if bar.kind == "total" else ""
    if left:
        label = shorten(bar.label, (left - 12) * (0.9 if strong else 1))
        return [
            f'<text{strong} x="{left - 12}" y="{top + 24}" text-anchor="end">{escape(label)}</text>',
            f'<text{strong} x="{width - 2}" y="{top + 24}" text-anchor="end">{escape(bar.value)}</text>',
        ]
    room = width - len(bar.value) * _CHAR - 22
    return [
        f'<text{strong} x="6" y="{top + 19}">{escape(shorten(bar.label, room))}</text>',
        f'<text{strong} x="{width - 2}" y="{top + 19}" text-anchor="end">{escape(bar.value)}</text>',
    ]


def _whisker(x0: float, x1: float, y: float) -> str:
    return f'<path class="whisker" d="M{x0:.1f} {y}H{x1:.1f}M{x0:.1f} {y - 4}v8M{x1:.1f} {y - 4}v8"/>'


def _hatch(name: str) -> str:
    return (
        f'<defs><pattern id="hatch-{name}" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect class="hatch-ground" width="6" height="6"/>'
        '<rect class="hatch-stripe" width="2.5" height="6"/></pattern></defs>'
    )


def curves(plot: Plot, width: int, name: str) -> str:
    """Return *plot* at *width* px. *name* tells its ids from those of the page's other pictures."""
    wide = width >= _WIDE
    legend, tall = 20 * len(plot.lines) + 10, 240 if wide else 190
    left = max(len(label) for _, label in (*plot.y.ticks, (0, ""))) * _CHAR + 10
    length, bottom = width - left - 14, legend + tall
    out = [_open(name, width, bottom + 44, plot.title, plot.description)]
    for value, label in plot.y.ticks:
        y = bottom - plot.y.at(value, 0, tall)
        out.append(f'<path class="grid" d="M{left:.1f} {y:.1f}h{length:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    out += _bottom_labels(plot.x, left, length, bottom, width)
    out.append(f'<path class="axis" d="M{left:.1f} {bottom}h{length:.1f}"/>')
    out.append(f'<text class="tick" x="{width - 2}" y="{bottom + 40}" text-anchor="end">{escape(plot.x_name)}</text>')

    def place(point: Point) -> Point:
        return plot.x.at(point[0], left, length), bottom - plot.y.at(point[1], 0, tall)

    placed = [[place(point) for point in line.points] for line in plot.lines]
    if plot.filled and len(placed) > 1 and all(len(points) > 1 for points in placed[:2]):
        ring = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*placed[0], *reversed(placed[1])))
        out.append(f'<polygon class="between" points="{ring}"/>')
    for i, (line, points) in enumerate(zip(plot.lines, placed, strict=True)):
        out.append(f'<path class="curve {line.kind}" d="{_path(points, steps=plot.steps)}"/>')
        out += [_mark(line.kind, *place(mark)) for mark in line.marks]
        y = 14 + 20 * i
        out.append(f'<path class="curve {line.kind}" d="M2 {y - 4}h30"/>{_mark(line.kind, 17, y - 4)}')
        out.append(f'<text x="42" y="{y}">{escape(shorten(line.legend, width - 44))}</text>')
    return "".join([*out, "</svg>"])


def _open(name: str, width: int, height: float, title: str, description: str) -> str:
    ids = f"{name}-{width}"
    return (
        f'<svg viewBox="0 0 {width} {height:g}" role="img" aria-labelledby="{ids}-t {ids}-d" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{ids}-t">{escape(title)}</title>'
        f'<desc id="{ids}-d">{escape(description)}</desc>'
    )


def _vertical_grid(axis: Axis, left: float, length: float, bottom: float) -> list[str]:
    lines = [
        f'<path class="{"grid" if value else "axis"}" d="M{axis.at(value, left, length):.1f} 0V{bottom}"/>'
        for value, _ in axis.ticks
    ]
    return lines + _bottom_labels(axis, left, length, bottom - 2, left + length + 4)


def _bottom_labels(axis: Axis, left: float, length: float, bottom: float, right: float) -> list[str]:
    """Return the tick labels under a chart, inside its edges; one that would touch its neighbour is left out."""
    out: list[str] = []
    free_from = -math.inf
    for value, label in axis.ticks:
        x, half = axis.at(value, left, length), len(label) * _CHAR / 2
        middle = min(max(x, half), right - half - 2)
        if middle - half < free_from:
            continue
        free_from = middle + half + 10
        at = f'x="{middle:.1f}" y="{bottom + 19:g}"'
        out.append(f'<text class="tick" {at} text-anchor="middle">{escape(label)}</text>')
    return out


def _path(points: Sequence[Point], *, steps: bool) -> str:
    if not points:
        return "M0 0"
    x, y = points[0]
    parts = [f"M{x:.1f} {y:.1f}"]
    for x, y in points[1:]:
        parts.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(parts)


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "before":
        return f'<rect class="mark before" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<circle class="mark after" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def shorten(text: str, room: float) -> str:
    """Return *text*, cut with an ellipsis where it would be wider than *room* px."""
    most = max(4, int(room / _CHAR))
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def distribution(values: Sequence[float]) -> list[Point]:
    """Return the corners of the distribution function of sorted *values*: (value, share of calls at most so high)."""
    return [(values[0], 0.0), *((value, (i + 1) / len(values)) for i, value in enumerate(values))] if values else []
