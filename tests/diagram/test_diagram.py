from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.diagram.blocks import Box, Branch, Chain, Fork, Kind, chain
from scoring.diagram.mermaid import mermaid
from scoring.diagram.svg import svg
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn, write_deployment

SVG = "{http://www.w3.org/2000/svg}"
TEXT = st.text(st.characters(categories=("L", "N", "P", "S", "Z")), min_size=1, max_size=70)
BOXES = st.builds(Box, st.sampled_from(Kind), st.lists(TEXT, min_size=1, max_size=4).map(tuple))
PARTS = st.recursive(
    BOXES,
    lambda inner: st.builds(
        Fork,
        st.lists(
            st.builds(Branch, TEXT, st.lists(inner, min_size=1, max_size=3).map(tuple), st.booleans()),
            min_size=1,
            max_size=4,
        ).map(tuple),
        BOXES,
    ),
    max_leaves=12,
)
CHAINS = st.lists(PARTS, min_size=1, max_size=4).map(tuple)


def boxes(parts: Chain) -> list[Box]:
    found: list[Box] = []
    for part in parts:
        if isinstance(part, Box):
            found.append(part)
        else:
            found += [box for branch in part.branches for box in boxes(branch.chain)] + [part.join]
    return found


def rectangles(root: ET.Element) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every box, as a reader of the picture sees it."""

    def walk(element: ET.Element, x: float, y: float) -> list[tuple[float, float, float, float]]:
        moved = re.fullmatch(r"translate\((-?[\d.]+) (-?[\d.]+)\)", element.get("transform", ""))
        x, y = (x + float(moved[1]), y + float(moved[2])) if moved else (x, y)
        own = []
        if element.tag == f"{SVG}rect":
            own = [(x, y, x + float(element.get("width", 0)), y + float(element.get("height", 0)))]
        return own + [found for child in element for found in walk(child, x, y)]

    return walk(root, 0, 0)


@given(CHAINS)
def test_boxes_lie_in_the_picture_and_not_upon_each_other(parts: Chain) -> None:
    root = ET.fromstring(svg(parts, title="any"))
    found = rectangles(root)
    assert len(found) == len(boxes(parts))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for left, top, right, bottom in found:
        assert left >= 0
        assert top >= 0
        assert right <= width + 1
        assert bottom <= height + 1
    for one, other in combinations(found, 2):
        assert (
            one[2] <= other[0] + 0.2 or other[2] <= one[0] + 0.2 or one[3] <= other[1] + 0.2 or other[3] <= one[1] + 0.2
        )


@given(CHAINS)
def test_mermaid_has_a_node_for_every_box_and_no_text_of_ours_is_code(parts: Chain) -> None:
    lines = mermaid(parts).splitlines()
    assert lines[0] == "flowchart LR"
    nodes = [line for line in lines[1:] if " -->" not in line]
    assert len(nodes) == len(boxes(parts))
    for line in lines[1:]:
        unquoted = re.sub(r'"[^"]*"', '""', line)
        assert re.fullmatch(r'  n\d+( -->(\|""\|)? n\d+|\[\(""\)\]|\[""\]|\(""\)|\{\{""\}\})', unquoted), line
        assert "<" not in line.replace("<br/>", "")


def edges(text: str) -> set[tuple[str, str, str]]:
    """Edges between titles, with their labels."""
    titles = {found[1]: found[2] for found in re.finditer(r'^  (n\d+)[\[({]+"([^"<]*)', text, re.MULTILINE)}
    found = re.finditer(r'^  (n\d+) -->(?:\|"([^"]*)"\|)? (n\d+)$', text, re.MULTILINE)
    return {(titles[edge[1]], edge[2] or "", titles[edge[3]]) for edge in found}


def test_a_deployment_is_drawn_from_input_to_output(home: Path) -> None:
    score = {
        "pipeline": [
            {"rule": {"sql": 'select *, x < y as "<script>" from batch'}},
            {
                "route": {
                    "cases": [{"when": "x > 3", "then": {"values": {"score": 1.0}}}],
                    "otherwise": {
                        "ensemble": {
                            "combine": "weighted_mean",
                            "weights": {"a": 0.25, "b": 0.75},
                            "members": {"a": {"model": "models:/one@champion"}, "b": {"model": "models:/two/7"}},
                        }
                    },
                }
            },
        ]
    }
    deployment = write_deployment(home / "deployments" / "drawn", score=score)
    found = chain(deployment, {"models:/one@champion": 4, "models:/two/7": 7})
    assert edges(mermaid(found)) == {
        ("input", "", "rule in SQL"),
        ("rule in SQL", "x #62; 3", "values"),
        ("rule in SQL", "otherwise - a, weight 0.25", "one"),
        ("rule in SQL", "otherwise - b, weight 0.75", "two"),
        ("one", "", "weighted mean"),
        ("two", "", "weighted mean"),
        ("values", "", "all rows, in order"),
        ("weighted mean", "", "all rows, in order"),
        ("all rows, in order", "", "output"),
    }
    picture = svg(found, title=deployment.name)
    assert "<script>" not in picture
    texts = {list(element.itertext())[-1] for element in ET.fromstring(picture).iter(f"{SVG}text")}
    assert {"champion: version 4", "version 7", "x > 3"} <= texts


def test_rows_do_not_leave_an_error(home: Path) -> None:
    route = {"cases": [{"when": "x > 3", "then": {"model": f"models:/{MODEL}@champion"}}], "otherwise": "error"}
    found = chain(write_deployment(home / "deployments" / "strict", score={"route": route}), {})
    assert ("input", "otherwise", "error") in edges(mermaid(found))
    assert not [edge for edge in edges(mermaid(found)) if edge[0] == "error"]


@pytest.mark.parametrize("is_registered", [True, False])
def test_the_command_prints_mermaid_and_writes_a_picture(home: Path, *, is_registered: bool) -> None:
    write_deployment(home / "deployments" / "example")
    if is_registered:
        rows = example_rows(50)
        register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), rows["label"].to_numpy())
    command = [sys.executable, "-m", "scoring", "graph", "example"]
    done = subprocess.run([*command, "--svg", str(home / "graph.svg")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("flowchart LR\n")
    assert ("champion: version 1" if is_registered else "champion: no version yet") in done.stdout
    assert ET.parse(home / "graph.svg").getroot().tag == f"{SVG}svg"
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert document["mermaid"] == done.stdout
    assert document["versions"] == {f"models:/{MODEL}@champion": 1 if is_registered else None}


def test_a_picture_that_cannot_be_written_is_a_sentence(home: Path) -> None:
    write_deployment(home / "deployments" / "example")
    command = [sys.executable, "-m", "scoring", "graph", "example", "--svg", str(home / "none" / "graph.svg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(r"graph\.svg cannot be written: expected a file in a folder that exists", done.stderr)
