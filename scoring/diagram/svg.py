"""A picture of a deployment as SVG. Boxes are laid out from left to right, branches from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import zip_longest
from typing import Final

from scoring.diagram.blocks import Box, Branch, Chain, Fork

LETTER: Final = 7.2
"""Width of a letter, about; text that turns out wider is squeezed."""
LINE: Final = 18.0
PADDING: Final = 12.0
GAP: Final = 46.0
"""Between boxes, where the arrows are."""
SPACING: Final = 16.0
"""Between branches."""
MARGIN: Final = 10.0
LONGEST: Final = 44
"""Characters of a line; what is longer ends in dots, and is shown whole under the mouse."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Something drawn, with the point on its left and right edge where arrows end and begin."""

    width: float
    height: float
    axis: float
    """Height of these points below the top."""
    marks: str
    """SVG elements around the point (0, 0) at the top left."""


def svg(chain: Chain, *, title: str) -> str:
    """Return the picture as a document of its own."""
    return picture(chain, title=title, style=f"<style>{style()}</style>")


def picture(chain: Chain, *, title: str, style: str = "") -> str:
    """Return the picture to be put into a page that has the rules of `style()`."""
    drawing = _chain(chain)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" role="img" aria-label="{escape(title)}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">{style}'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" class="head"/></marker></defs>{_at(drawing, MARGIN, MARGIN)}</svg>\n'
    )


def style() -> str:
    """Return the rules that colour a picture."""
    return files(__package__).joinpath("style.css").read_text("utf-8")


def _chain(parts: Chain) -> Drawing:
    drawings = [_box(part) if isinstance(part, Box) else _fork(part) for part in parts]
    axis = max((drawing.axis for drawing in drawings), default=0.0)
    below = max((drawing.height - drawing.axis for drawing in drawings), default=0.0)
    marks, x = [], 0.0
    for drawing in drawings:
        if x:
            marks.append(_arrow(x, axis, x + GAP, axis))
            x += GAP
        marks.append(_at(drawing, x, axis - drawing.axis))
        x += drawing.width
    return Drawing(x, axis + below, axis, "".join(marks))


def _box(box: Box) -> Drawing:
    lines = [_short(line) for line in box.lines]
    width = max(map(len, lines)) * LETTER + 2 * PADDING
    height = len(lines) * LINE + 2 * PADDING - 4
    text = [
        f'<text x="{width / 2:.1f}" y="{PADDING + 10 + number * LINE:.1f}" class="{name}">{escape(line)}</text>'
        for number, (line, name) in enumerate(zip_longest(lines, ["title"], fillvalue="line"))
    ]
    whole = f"<title>{escape(chr(10).join(box.lines))}</title>"
    frame = f'<rect width="{width:.1f}" height="{height:.1f}" rx="7"/>'
    return Drawing(width, height, height / 2, f'<g class="{box.kind}">{whole}{frame}{"".join(text)}</g>')


def _fork(fork: Fork) -> Drawing:
    labels = [_short(branch.label) for branch in fork.branches]
    lead = GAP + max(map(len, labels)) * LETTER
    branches = [_chain(branch.chain) for branch in fork.branches]
    join = _box(fork.join)
    inner = max(drawing.width for drawing in branches)
    height = max(sum(drawing.height for drawing in branches) + SPACING * (len(branches) - 1), join.height)
    axis = height / 2
    marks, y = [], (height - sum(drawing.height for drawing in branches) - SPACING * (len(branches) - 1)) / 2
    end = lead + inner + GAP
    for drawing, label, branch in zip(branches, labels, fork.branches, strict=True):
        level = y + drawing.axis
        marks.append(_curve(0, axis, lead, level) + _label(label, branch, lead, level))
        marks.append(_at(drawing, lead, y))
        marks.append(_curve(lead + drawing.width, level, end, axis))
        y += drawing.height + SPACING
    marks.append(_at(join, end, axis - join.axis))
    return Drawing(end + join.width, height, axis, "".join(marks))


def _label(label: str, branch: Branch, x: float, y: float) -> str:
    whole = f"<title>{escape(branch.label)}</title>"
    return f'<text x="{x - 12:.1f}" y="{y - 6:.1f}" class="label">{whole}{escape(label)}</text>'


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" class="edge" marker-end="url(#arrow)"/>'


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return an arrow that leaves and arrives level; it bends within the gap before the longest branch."""
    bend = x + GAP if to_x - x > GAP else to_x
    middle = (x + bend) / 2
    path = f"M{x:.1f} {y:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {bend:.1f} {to_y:.1f}L{to_x:.1f} {to_y:.1f}"
    return f'<path d="{path}" class="edge" marker-end="url(#arrow)"/>'


def _at(drawing: Drawing, x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">{drawing.marks}</g>'


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
