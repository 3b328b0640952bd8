"""A night told to its owner, who need not be an ML engineer: what happened, what it means, what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, assert_never

from scoring.notify.night import Night, Occasion, occasions
from scoring.notify.wording import count, percent, roc_auc

PUBLISHED: Final = "Published the predictions."


@dataclass(frozen=True, slots=True)
class Story:
    """One night in sentences; every part has at least one. Commands stand between backticks."""

    happened: tuple[str, ...]
    meaning: tuple[str, ...]
    done: tuple[str, ...]
    advice: tuple[str, ...]


def story(night: Night) -> Story:
    """Return the story of a night that is worth telling; sentences that several occasions share are told once."""
    chapters = [_chapter(night, occasion) for occasion in occasions(night)]
    return Story(
        happened=_once(sentence for chapter in chapters for sentence in chapter.happened),
        meaning=_once(sentence for chapter in chapters for sentence in chapter.meaning),
        done=_once(sentence for chapter in chapters for sentence in chapter.done),
        advice=_once(sentence for chapter in chapters for sentence in chapter.advice),
    )


def _once(sentences: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentences))


def _chapter(night: Night, occasion: Occasion) -> Story:
    match occasion:
        case Occasion.FAILED:
            return _failed(night)
        case Occasion.HELD_BACK:
            return _held_back(night)
        case Occasion.INCOMPLETE:
            return _incomplete(night)
        case Occasion.RETRAIN:
            return _retrain(night)
        case Occasion.NOTIFY:
            return _notify(night)
        case Occasion.CHECK_WARNING:
            return _check_warning(night)
        case Occasion.QUARANTINE:
            return _quarantine(night)
        case _:
            assert_never(occasion)


def _failed(night: Night) -> Story:
    return Story(
        happened=(f"Scoring {night.deployment} for {night.partition} failed; nothing was published.",),
        meaning=(_nothing_new(night),),
        done=("Stopped before anything was published, so nobody reads half a night.",),
        advice=(f"Read why it failed: it ends with what to do. Do it, then {_again(night)}",),
    )


def _held_back(night: Night) -> Story:
    happened = f"The predictions of {night.deployment} for {night.partition} were held back: critical checks failed."
    meaning = "The night's data is so far from what was agreed that its predictions may be wrong."
    advice = (
        "If the data is wrong, have it delivered again. If it is right as it is, ask the engineers of "
        f"{night.deployment} to change the expectation. Then {_again(night)}"
    )
    return Story(
        happened=(happened,),
        meaning=(meaning, _nothing_new(night)),
        done=("Scored the night, checked it, and published nothing of it.",),
        advice=("Find out at the source of the data whether the checks below are right.", advice),
    )


def _incomplete(night: Night) -> Story:
    return Story(
        happened=(
            f"The predictions of {night.deployment} for {night.partition} are published, but a later step failed.",
        ),
        meaning=("The predictions can be used. Whether the data has drifted may not be known for this night.",),
        done=(PUBLISHED,),
        advice=("Read why it failed: it ends with what to do. Do it, then clear the failed task in Airflow.",),
    )


def _retrain(night: Night) -> Story:
    approved = " and a person has approved it in Airflow" if night.needs_approval else ""
    started = (
        "Started retraining on recent nights. New models replace the present ones only if they do better on nights "
        f"that they have not learned from{approved}."
    )
    fault = (
        f"If it is a fault in the data, have it corrected at its source and stop the run of retrain_{night.deployment} "
        "in Airflow, so that no model learns from the fault."
    )
    return Story(
        happened=_drift_seen(night),
        meaning=_drift_meaning(night),
        done=(PUBLISHED, started),
        advice=("Nothing, if the change is real: a season, a new product, a new market.", fault),
    )


def _notify(night: Night) -> Story:
    real = (
        "If it is a fault, have it corrected at its source. If it is real and stays, ask the engineers of "
        f"{night.deployment} for new models (`scoring train {night.deployment}`)."
    )
    return Story(
        happened=_drift_seen(night),
        meaning=_drift_meaning(night),
        done=(PUBLISHED, "Did not start retraining; 'Decision', below, says why."),
        advice=("Find out whether the change is real (a season, a new product, a new market) or a fault.", real),
    )


def _check_warning(night: Night) -> Story:
    failed = len(night.failed_expectations) or 1
    meaning = (
        "The night's data is not quite as agreed. The predictions can be used, with care where they depend on the "
        "columns of the checks below."
    )
    advice = (
        "Look at these columns at their source. If the data is right as it is, ask the engineers of "
        f"{night.deployment} to change the expectation."
    )
    warned = f"{count(failed, 'check')} gave a warning"
    return Story(
        happened=(f"The predictions of {night.deployment} for {night.partition} are published; {warned}.",),
        meaning=(meaning,),
        done=(PUBLISHED,),
        advice=(advice,),
    )


def _quarantine(night: Night) -> Story:
    total = (night.rows or 0) + (night.quarantined or 0)
    rows = f"{count(night.quarantined or 0, 'row')} of {total:,} ({percent(night.quarantined_share)})"
    meaning = (
        "These rows break the input contract, for instance by an empty key. "
        f"Above {percent(night.max_quarantined_share)} the whole night is stopped."
    )
    return Story(
        happened=(f"{rows} of {night.deployment} for {night.partition} got no prediction.",),
        meaning=(meaning,),
        done=(
            PUBLISHED,
            f"Kept the rows without a prediction, each with its reason, in {night.quarantine_path}.",
        ),
        advice=("Look at the reasons in that table and have the data corrected at its source.",),
    )


def _nothing_new(night: Night) -> str:
    return f"There are no new predictions for {night.partition}. Predictions published before are unchanged."


def _again(night: Night) -> str:
    command = f"`scoring run {night.deployment} --partition {night.partition}`"
    return f"score the night again: clear the run in Airflow, or call {command}."


def _drift_seen(night: Night) -> tuple[str, ...]:
    seen = []
    share, limit = night.share_of_drifted_columns, night.drift_share_threshold
    if night.is_drifted and share is not None and limit is not None:
        reference = f" ({night.reference})" if night.reference else ""
        seen.append(
            f"{percent(share)} of the watched columns of {night.deployment} look different from the reference "
            f"period{reference}; the limit is {percent(limit)}."
        )
    if night.is_degraded:
        seen.append(f"The predictions of {night.deployment} have become worse: ROC-AUC is {roc_auc(night)}.")
    return tuple(seen) or (f"The drift report of {night.deployment} for {night.partition} asks for your attention.",)


def _drift_meaning(night: Night) -> tuple[str, ...]:
    meaning = []
    if night.is_degraded:
        meaning.append(
            "ROC-AUC says how well predictions tell the two outcomes apart: 1 is perfect, 0.5 is guessing. "
            "Decisions based on these predictions are wrong more often than they were."
        )
    if night.is_drifted or not meaning:
        meaning.append(
            "The models learned from data that looked different. Their predictions may be less reliable, "
            "but this alone does not prove that they are wrong."
        )
    return tuple(meaning)
