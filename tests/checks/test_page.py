"""The page: verdict first, failures first, everything escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from scoring.checks.page import render
from scoring.checks.report import ExpectationResult, QualityReport, Severity

HOSTILE = "<script>alert('x')</script>\" onload=\"y"
GOOD = ExpectationResult("expect_column_to_exist", "score", Severity.CRITICAL, True, "score is there", "found")
CRITICAL = replace(
    GOOD, passed=False, expected="critical one", unexpected_count=3, unexpected_share=0.5, examples=("'a'", "null")
)
WARNING = replace(GOOD, passed=False, severity=Severity.WARNING, column=None, expected="warning one")
VOID = {"meta", "br", "link", "img", "input"}


class Structure(HTMLParser):
    """Collects tags and text, and checks that every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.words.append(" ".join(data.split()))


def page(*reports: QualityReport, **changes: str) -> str:
    """Return the page about `reports`, with facts changed."""
    facts = {"deployment": "flight_delays", "partition": "2013-01-05", "run_id": "3f0c"} | changes
    return render(reports, **facts, rows=12_345, quarantined=6)


@pytest.mark.parametrize(
    ("results", "headline", "summary"),
    [
        ((GOOD,), "All checks passed", "1 check passed"),
        ((GOOD, WARNING), "Passed with warnings", "1 warning, 1 check passed"),
        ((GOOD, WARNING, CRITICAL), "Publication blocked", "1 critical check failed, 1 warning, 1 check passed"),
    ],
)
def test_the_verdict_comes_first(results: tuple[ExpectationResult, ...], headline: str, summary: str) -> None:
    words = Structure(page(QualityReport("output", 7, results))).words
    assert words[1:3] == [headline, summary]  # after the title
    assert {"flight_delays", "2013-01-05", "3f0c", "12,345", "6", "7 rows checked"} <= set(words)


def test_failures_come_first_and_the_worst_suite_too() -> None:
    words = Structure(
        page(QualityReport("input", 7, (GOOD, WARNING)), QualityReport("output", 7, (GOOD, WARNING, CRITICAL)))
    ).words
    assert words.index("Suite output") < words.index("Suite input")
    assert words.index("critical one") < words.index("warning one") < words.index("score is there")
    assert words[words.index("whole table") + 1] == "warning one"


def test_examples_and_share_are_shown() -> None:
    text = page(QualityReport("output", 7, (CRITICAL,)))
    assert {"'a'", "null"} <= set(Structure(text).words)
    assert 'style="width: 50.00%"' in text


def test_without_suites_the_page_says_so() -> None:
    assert "The deployment has no expectation suites." in Structure(page()).words


def test_hostile_values_are_escaped() -> None:
    hostile = replace(
        CRITICAL, expectation=HOSTILE, column=HOSTILE, expected=HOSTILE, observed=HOSTILE, examples=(HOSTILE,)
    )
    text = page(QualityReport(HOSTILE, 1, (hostile,)), deployment=HOSTILE, partition=HOSTILE, run_id=HOSTILE)
    structure = Structure(text)
    assert "script" not in structure.tags
    assert not [name for name, _ in structure.attributes if name.startswith("on")]
    assert structure.words.count(HOSTILE) == 8  # five of the result, three facts
    assert f"Suite {HOSTILE}" in structure.words


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page(QualityReport("output", 7, (GOOD, WARNING, CRITICAL)))
    structure = Structure(text)
    assert not {"script", "link", "img", "iframe"} & set(structure.tags)
    assert not [value for name, value in structure.attributes if name in {"src", "href"}]
    assert not re.search(r"url\(|@import|https?:", text)
