"""Mermaid text of a deployment, which GitHub, GitLab and most wikis draw."""

from __future__ import annotations

from itertools import count
from typing import Final

from scoring.diagram.blocks import Box, Chain, Kind

_SHAPES: Final = {
    Kind.DATA: ('[("', '")]'),
    Kind.MODEL: ('["', '"]'),
    Kind.RULE: ('("', '")'),
    Kind.JOIN: ('{{"', '"}}'),
}
LONGEST: Final = 60
"""Characters of a line; what is longer ends in dots."""


def mermaid(chain: Chain) -> str:
    """Return a flowchart from left to right."""
    lines = ["flowchart LR"]
    numbers = count()

    def box(found: Box) -> str:
        name = f"n{next(numbers)}"
        before, after = _SHAPES[found.kind]
        lines.append(f"  {name}{before}{'<br/>'.join(map(_text, found.lines))}{after}")
        return name

    def draw(parts: Chain, last: str, label: str) -> tuple[str, str]:
        """Draw a chain behind a node; return its last node, and the label of an edge that nothing has taken yet."""
        for part in parts:
            if isinstance(part, Box):
                ends = [(last, label)]
                last = box(part)
            else:
                named = [(branch.chain, " · ".join(filter(None, (label, branch.label)))) for branch in part.branches]
                ends = [draw(inner, last, name) for inner, name in named]
                last = box(part.join)
            lines.extend(f"  {end} {_arrow(rest)} {last}" for end, rest in ends if end)
            label = ""
        return last, label

    draw(chain, "", "")
    return "\n".join(lines) + "\n"


def _arrow(label: str) -> str:
    return f'-->|"{_text(label)}"|' if label else "-->"


def _text(text: str) -> str:
    """Return text that means nothing to Mermaid or HTML."""
    shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return "".join(letter if letter.isalnum() or letter in _PLAIN else f"#{ord(letter)};" for letter in shown)


_PLAIN: Final = " .,:/-_@()…=+*?"
