"""The effects as one small picture, an SVG that needs nothing else: for documents."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from upsweep.analysis.effects import Effect, interval

ROW, TOP, STRIP, FIGURES, LETTER = 26, 34, 260, 180, 7.4  # pixels; LETTER: about the width of one
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .quiet { fill: #656d76 } .end { text-anchor: end }
.middle { text-anchor: middle } line { stroke: #d0d7de } .shown { stroke: #2563c9; fill: #2563c9 }
.open { stroke: #8b949e; fill: #fff } .bar { stroke-width: 3; stroke-linecap: round }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .quiet { fill: #9198a1 } line { stroke: #3d444d }
.shown { stroke: #6ea8fe; fill: #6ea8fe } .open { stroke: #9198a1; fill: #0d1117 } }
"""


def span(effects: Sequence[Effect]) -> tuple[float, float]:
    """The least and the largest value of a common axis, round numbers; zero is always on it."""
    ends = [0.0]
    for effect in effects:
        ends += [value for value in (effect.difference, effect.low, effect.high) if value is not None]
    step = _step(max(ends) - min(ends))
    return math.floor(min(ends) / step + 1e-9) * step, max(step, math.ceil(max(ends) / step - 1e-9) * step)


def ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, few enough to be read."""
    step = _step(high - low)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _step(width: float) -> float:
    if width <= 0:
        return 0.1
    power = 10.0 ** math.floor(math.log10(width / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if width / (power * factor) <= 4 + 1e-9)


def forest(effects: Sequence[Effect], title: str) -> str:
    """Each effect as a dot with its 95 % interval on a common axis; hollow where no difference is shown."""
    low, high = span(effects)
    unit = escape(f"{effects[0].figure.unit}, ".removeprefix(", "))
    labels = [f"{effect.key}: {effect.better} over {effect.worse}" for effect in effects]
    margin = round(LETTER * max(map(len, [*labels, title])))
    right, bottom = margin + STRIP + 12, TOP + ROW * len(effects)
    width, height = right + FIGURES, bottom + 30

    def x(value: float) -> float:
        return margin + 12 + (value - low) / (high - low) * (STRIP - 24)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="0" y="16" style="font-weight: 600">{escape(title)}</text>',
    ]
    for tick in ticks(low, high):
        at = x(tick)
        dash = "" if tick == 0 else ' stroke-dasharray="2 3"'
        drawn.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom}"{dash}/>')
        drawn.append(f'<text class="quiet middle" x="{at:.1f}" y="{bottom + 18}">{tick:g}</text>')
    drawn.append(f'<text class="quiet" x="{right}" y="{bottom + 18}">{unit}95 % interval</text>')
    for i, (effect, label) in enumerate(zip(effects, labels, strict=True)):
        drawn += _row(effect, label, TOP + ROW * i + ROW / 2, right, x)
    return "\n".join([*drawn, "</svg>\n"])


def _row(effect: Effect, label: str, y: float, right: float, x: Callable[[float], float]) -> Iterator[str]:
    kind = "shown" if effect.shown else "open"
    yield f'<text x="0" y="{y + 4.5:.1f}">{escape(label)}</text>'
    if effect.difference is None:
        yield f'<text class="quiet" x="{right}" y="{y + 4.5:.1f}">no pair of runs</text>'
        return
    if effect.low is not None and effect.high is not None:
        ends = f'x1="{x(effect.low):.1f}" x2="{x(effect.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        yield f'<line class="bar {kind}" {ends}/>'
    yield f'<circle class="{kind}" stroke-width="2" cx="{x(effect.difference):.1f}" cy="{y:.1f}" r="5"/>'
    said = f"{effect.figure.format(effect.difference)} {interval(effect)}"
    yield f'<text x="{right}" y="{y + 4.5:.1f}">{said}</text>'
