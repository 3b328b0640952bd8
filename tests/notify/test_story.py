from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scoring.checks.report import Verdict
from scoring.monitoring.report import DecisionKind
from scoring.notify.night import Night, Occasion, occasions
from scoring.notify.story import story
from scoring.notify.wording import MAX_SUBJECT_CHARS, facts, percent, printable, subject
from tests.notify.nights import failed

CAUSES: dict[Occasion, dict[str, Any]] = {
    Occasion.FAILED: {"is_published": False, "error": "column 'temp': expected double, got string. Correct the file."},
    Occasion.HELD_BACK: {"is_published": False, "checks": Verdict.FAILED},
    Occasion.INCOMPLETE: {"error": "the drift report failed: disk full."},
    Occasion.RETRAIN: {
        "decision": DecisionKind.RETRAIN,
        "share_of_drifted_columns": 0.36,
        "drift_share_threshold": 0.3,
    },
    Occasion.NOTIFY: {
        "decision": DecisionKind.NOTIFY,
        "roc_auc": 0.61,
        "baseline_roc_auc": 0.72,
        "max_roc_auc_drop": 0.05,
        "reasons": ("ROC-AUC 0.610 is 0.110 below",),
    },
    Occasion.CHECK_WARNING: {"checks": Verdict.WARNING, "failed_expectations": (failed(), failed(column="wind"))},
    Occasion.QUARANTINE: {"rows": 960, "quarantined": 40, "max_quarantined_share": 0.05, "quarantine_path": "/lake/q"},
}
SUBJECTS = {
    Occasion.FAILED: "[flight_delays] 2013-07-05: FAILED: column 'temp': expected double, got stri...",
    Occasion.HELD_BACK: "[flight_delays] 2013-07-05: HELD BACK: 1 critical check failed",
    Occasion.INCOMPLETE: "[flight_delays] 2013-07-05: published, then FAILED: the drift report failed:...",
    Occasion.RETRAIN: "[flight_delays] 2013-07-05: 36 % of columns drifted, retraining started",
    Occasion.NOTIFY: "[flight_delays] 2013-07-05: ROC-AUC fell to 0.61",
    Occasion.CHECK_WARNING: "[flight_delays] 2013-07-05: 2 check warnings",
    Occasion.QUARANTINE: "[flight_delays] 2013-07-05: 4 % of rows quarantined",
}


@pytest.mark.parametrize("occasion", Occasion)
def test_every_occasion_has_subject_and_story(night: Callable[..., Night], occasion: Occasion) -> None:
    told = night(**CAUSES[occasion])
    assert occasions(told) == (occasion,)
    assert subject(told) == SUBJECTS[occasion]
    found = story(told)
    for sentences in (found.happened, found.meaning, found.done, found.advice):
        assert sentences
        assert all(sentence.strip() and "None" not in sentence for sentence in sentences)


@pytest.mark.parametrize("occasion", Occasion)
def test_subject_stays_short_and_says_what_happened_for_long_names(
    night: Callable[..., Night], occasion: Occasion
) -> None:
    long = night(**CAUSES[occasion], deployment="a" * 63)
    assert len(subject(long)) <= MAX_SUBJECT_CHARS
    assert subject(long).startswith("[aaaaaaaaaaaaa")
    assert SUBJECTS[occasion].split(": ")[1].split(",")[0][:20] in subject(long)


def test_subject_names_what_else_happened_while_there_is_room(night: Callable[..., Night]) -> None:
    told = night(**CAUSES[Occasion.NOTIFY], checks=Verdict.WARNING)
    assert subject(told) == "[flight_delays] 2013-07-05: ROC-AUC fell to 0.61; 1 check warning"


def test_sentences_shared_by_occasions_are_told_once(night: Callable[..., Night]) -> None:
    told = night(**CAUSES[Occasion.NOTIFY], checks=Verdict.WARNING)
    assert story(told).done.count("Published the predictions.") == 1


def test_next_action_names_the_command(night: Callable[..., Night]) -> None:
    advice = " ".join(story(night(**CAUSES[Occasion.FAILED])).advice)
    assert "scoring run flight_delays --partition 2013-07-05" in advice


def test_approval_is_mentioned_where_a_person_has_to_give_it(night: Callable[..., Night]) -> None:
    told = night(**CAUSES[Occasion.RETRAIN])
    assert "approved" not in " ".join(story(told).done)
    assert "a person has approved it" in " ".join(story(replace(told, needs_approval=True)).done)


def test_facts_leave_out_what_is_not_known(night: Callable[..., Night]) -> None:
    assert dict(facts(night())) == {"Run": "a3f1c09be9d04f27a6ad1e2c0f5b7d11"}


def test_facts_in_words(drifting: Night) -> None:
    found = dict(facts(drifting))
    assert found["Rows scored"] == "978 in 2 min 22 s, 412 rows per second"
    assert found["Rows quarantined"] == "3 (0.31 %, limit 5 %)"
    assert found["Models"] == "linear version 1, trees version 2"
    assert found["Columns drifted"] == "40 % (limit 30 %)"
    assert found["ROC-AUC"] == "0.652 (at training 0.721)"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.36, "36 %"), (0.355, "36 %"), (0.05, "5 %"), (0.0031, "0.31 %"), (1.0, "100 %"), (0.0, "0 %")],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_printable_keeps_values_and_takes_line_breaks_and_invisible_characters_out(night: Callable[..., Night]) -> None:
    hostile = night(error="a\r\nBcc: x\u202e\x00\udcff b", links={"l\n": "http://x"}, decision=DecisionKind.NOTIFY)
    clean = printable(hostile)
    assert clean.error == "a Bcc: x b"
    assert clean.links == {"l": "http://x"}
    assert clean.decision is DecisionKind.NOTIFY
