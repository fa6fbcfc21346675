"""The report's charts: SVG without a script and without a fixed width.

    intervals(rows, low, high)        dot and whisker: a value with its interval on one line
    losses(history, best_step)        training and validation loss over the steps
    front(points, text)               quality against what it costs, the Pareto front as a line
    repeats(stretches)                shares of repeated examples over the run, one on the other
    stacks(parts)                     one bar of several parts, for rows by split

Horizontal places are percentages, so that a chart is as wide as its place and its text keeps its size on a phone.
Colours are classes of the page's style sheet, so that they follow light and dark. All text in them is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Loss:
    """One point of the loss curve; None where it was not taken."""

    step: float
    train: float | None = None
    validation: float | None = None


@dataclass(frozen=True)
class Point:
    """What a trial costs and how good it is, in percent."""

    cost: float
    quality: float
    on_front: bool
    best: bool
    title: str


def interval(value: float, low: float, high: float, axis: tuple[float, float], style: str, title: str) -> Markup:
    """A value with its interval on an axis from `axis[0]` to `axis[1]`; `style` is the class of its colour."""
    begin, end = axis
    ticks = Markup("").join(
        Markup('<line class="{}" x1="{x}%" x2="{x}%" y1="0" y2="26"/>').format(
            "zero" if tick == 0 else "grid", x=_at(tick, axis)
        )
        for tick in axis_ticks(begin, end)
    )
    return Markup(
        '<svg class="interval {style}" width="100%" height="26" role="img" aria-label="{title}">'
        "<title>{title}</title>{ticks}"
        '<line class="whisker" x1="{low}%" x2="{high}%" y1="13" y2="13"/>'
        '<line class="whisker end" x1="{low}%" x2="{low}%" y1="8.5" y2="17.5"/>'
        '<line class="whisker end" x1="{high}%" x2="{high}%" y1="8.5" y2="17.5"/>'
        '<circle class="dot" cx="{value}%" cy="13" r="5.5"/></svg>'
    ).format(style=style, title=title, ticks=ticks, low=_at(low, axis), high=_at(high, axis), value=_at(value, axis))


def axis_labels(axis: tuple[float, float]) -> Markup:
    """The numbers under a column of `interval`s."""
    labels = Markup("").join(
        Markup('<text x="{}%" y="12" text-anchor="{}">{}</text>').format(
            _at(tick, axis), _anchor(tick, axis), f"{tick:g}"
        )
        for tick in axis_ticks(*axis)
    )
    return Markup('<svg class="axis" width="100%" height="16" aria-hidden="true">{}</svg>').format(labels)


def losses(history: Sequence[Loss], best_step: float = 0) -> Markup:
    """Loss over steps: the training curve, the validation points, and a mark at the step that was kept."""
    values = [v for point in history for v in (point.train, point.validation) if v is not None and math.isfinite(v)]
    last = max((point.step for point in history), default=0)
    if len(history) < 2 or not values or last <= 0:
        return Markup("")
    ticks = axis_ticks(0.0, max(values) or 1.0)
    top = max(max(values) * 1.04, ticks[-1] * 1.02)
    height = 220

    def path(points: list[tuple[float, float]]) -> str:
        return "M" + " L".join(f"{100 * step / last:.2f} {100 - 100 * value / top:.2f}" for step, value in points)

    train = [(p.step, p.train) for p in history if p.train is not None and math.isfinite(p.train)]
    validation = [(p.step, p.validation) for p in history if p.validation is not None and math.isfinite(p.validation)]
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/><text x="2" y="{under}">{text}</text>').format(
            y=round(height * (1 - tick / top), 1), under=round(height * (1 - tick / top) - 4, 1), text=f"{tick:g}"
        )
        for tick in ticks
    )
    dots = Markup("").join(
        Markup('<circle class="{}" cx="{}%" cy="{}" r="{}"><title>step {}: {} loss {}</title></circle>').format(
            style,
            round(100 * step / last, 2),
            round(height * (1 - value / top), 1),
            radius,
            f"{step:g}",
            name,
            f"{value:.4g}",
        )
        for style, name, points, radius in (
            ("train", "training", train, 2.5),
            ("validation", "validation", validation, 4),
        )
        for step, value in points
    )
    best = Markup("")
    if 0 < best_step <= last:
        share = 100 * best_step / last
        best = Markup(
            '<line class="best" x1="{x}%" x2="{x}%" y1="0" y2="{h}"/><text class="bestlabel" x="{x}%" dx="{dx}" y="12" '
            'text-anchor="{a}">kept: step {step}</text>'
        ).format(
            x=round(share, 2),
            h=height,
            dx=6 if share < 70 else -6,
            a="start" if share < 70 else "end",
            step=f"{best_step:g}",
        )
    curves = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(style, path(points))
        for style, points in (("train", train), ("validation", validation))
        if len(points) > 1
    )
    steps = Markup("").join(
        Markup('<text x="{}%" y="{}" text-anchor="{}">{}</text>').format(
            _at(tick, (0, last)), height + 16, _anchor(tick, (0, last)), f"{tick:,.0f}"
        )
        for tick in axis_ticks(0, last)
    )
    return Markup(
        '<svg class="losses" width="100%" height="{outer}" role="img" aria-label="Loss over training steps">'
        '{grid}{best}<svg x="0" y="0" width="100%" height="{h}" viewBox="0 0 100 100" preserveAspectRatio="none">'
        "{curves}</svg>"
        "{dots}{steps}</svg>"
    ).format(outer=height + 22, h=height, grid=grid, best=best, curves=curves, dots=dots, steps=steps)


def front(points: Sequence[Point], text: Callable[[float], str]) -> Markup:
    """Quality, 0 to 100 %, over cost on a logarithmic axis; `text` writes a cost."""
    costs = [math.log(point.cost) for point in points if point.cost > 0]
    if not costs:
        return Markup("")
    height, axis = 180, (min(costs), max(costs))

    def place(point: Point) -> tuple[float, float]:
        return _at(math.log(point.cost), axis), round(height * (1 - point.quality / 104), 1)

    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/><text x="2" y="{under}">{text} %</text>').format(
            y=round(height * (1 - tick / 104), 1), under=round(height * (1 - tick / 104) - 4, 1), text=tick
        )
        for tick in (0, 25, 50, 75, 100)
    )
    steps = sorted({place(point) for point in points if point.on_front and point.cost > 0})
    lines = Markup("").join(
        Markup('<line class="front" x1="{}%" y1="{}" x2="{}%" y2="{}"/>').format(*one, *other)
        for one, other in pairwise(steps)
    )
    dots = Markup("").join(
        Markup('<circle class="{}" cx="{}%" cy="{}" r="{}"><title>{}</title></circle>').format(
            "on" if point.on_front else "off", *place(point), 6.5 if point.best else 4.5, point.title
        )
        for point in sorted(points, key=lambda point: point.on_front)
        if point.cost > 0
    )
    ends = Markup("").join(
        Markup('<text x="{}%" y="{}" text-anchor="{}">{}</text>').format(
            _at(end, axis), height + 16, _anchor(end, axis), text(math.exp(end))
        )
        for end in dict.fromkeys(axis)
    )
    return Markup(
        '<svg class="front" width="100%" height="{outer}" role="img" aria-label="Quality against cost of each trial">'
        "{grid}{lines}{dots}{ends}</svg>"
    ).format(outer=height + 22, grid=grid, lines=lines, dots=dots, ends=ends)


def repeats(stretches: Sequence[tuple[float, float, float]]) -> Markup:
    """Shares over the examples read, as (examples so far, percent repeated, percent nearly so), one on the other."""
    last = max((examples for examples, _, _ in stretches), default=0)
    if len(stretches) < 2 or last <= 0:
        return Markup("")
    height, begin = 140, stretches[0][0]
    top = max(10.0, *(exact + near for _, exact, near in stretches)) * 1.04

    def at(examples: float, share: float) -> str:
        return f"{100 * (examples - begin) / ((last - begin) or 1):.2f} {100 - 100 * min(share, top) / top:.2f}"

    def area(lower: list[float], upper: list[float]) -> str:
        places = [examples for examples, _, _ in stretches]
        there = [at(x, y) for x, y in zip(places, upper, strict=True)]
        back = [at(x, y) for x, y in zip(reversed(places), reversed(lower), strict=True)]
        return "M" + " L".join([*there, *back]) + " Z"

    exact = [share for _, share, _ in stretches]
    both = [first + second for _, first, second in stretches]
    ticks = axis_ticks(0.0, top)
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/><text x="2" y="{under}">{text} %</text>').format(
            y=round(height * (1 - tick / top), 1), under=round(height * (1 - tick / top) - 4, 1), text=f"{tick:g}"
        )
        for tick in ticks
    )
    ends = Markup("").join(
        Markup('<text x="{}%" y="{}" text-anchor="{}">{}</text>').format(
            _at(tick, (begin, last)), height + 16, _anchor(tick, (begin, last)), f"{tick:,.0f}"
        )
        for tick in axis_ticks(begin, last)
    )
    return Markup(
        '<svg class="repeats" width="100%" height="{outer}" role="img" aria-label="{label}">'
        '<svg x="0" y="0" width="100%" height="{h}" viewBox="0 0 100 100" preserveAspectRatio="none">'
        '<path class="exact" d="{exact}"/><path class="near" d="{near}"/></svg>{grid}{ends}</svg>'
    ).format(
        outer=height + 22,
        h=height,
        label=f"Repeats over the run: {both[0]:.0f} percent at first, {both[-1]:.0f} percent at the end",
        exact=area([0.0] * len(exact), exact),
        near=area(exact, both),
        grid=grid,
        ends=ends,
    )


def stack(parts: Sequence[tuple[str, float]], total: float) -> Markup:
    """One bar of several parts, its length in proportion to `total`; each part's name is its class and its tooltip."""
    bar, begin = Markup(""), 0.0
    for name, count in parts:
        width = 100 * count / total if total else 0
        if count > 0:
            bar += Markup(
                '<rect class="{}" x="{}%" y="0" width="{}%" height="16" rx="2"><title>{}: {} rows</title></rect>'
            ).format(name, round(begin, 3), round(max(width - 0.3, 0.3), 3), name, f"{count:,.0f}")
        begin += width
    label = ", ".join(f"{name} {count:,.0f}" for name, count in parts)
    return Markup('<svg class="stack" width="100%" height="16" role="img" aria-label="{}">{}</svg>').format(
        escape(label), bar
    )


def axis_ticks(begin: float, end: float) -> list[float]:
    """Four to six round numbers from `begin` to `end`."""
    span = end - begin
    if span <= 0:
        return [begin]
    raw = span / 5
    power = 10 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), default=raw)
    first = math.ceil(begin / step - 1e-9)
    return [round(n * step, 10) + 0.0 for n in range(first, math.floor(end / step + 1e-9) + 1)]


def _at(value: float, axis: tuple[float, float]) -> float:
    begin, end = axis
    share = (value - begin) / (end - begin) if end > begin else 0.5
    # Room for half a dot at both ends.
    return round(1.5 + 97 * min(max(share, 0.0), 1.0), 3)


def _anchor(tick: float, axis: tuple[float, float]) -> str:
    share = (tick - axis[0]) / ((axis[1] - axis[0]) or 1)
    return "start" if share < 0.02 else "end" if share > 0.98 else "middle"
