from __future__ import annotations

import pickle
import re
from collections.abc import Iterator

import pytest

from scoring import errors
from scoring.errors import ScoringError

EXIT_CODES = {
    "ScoringError": 1,
    "TerminalError": 2,
    "ConfigurationError": 2,
    "ContractError": 2,
    "ModelError": 2,
    "SupersededError": 2,
    "DataError": 3,
    "TransientError": 75,
    "RegistryUnavailableError": 75,
    "PartitionMissingError": 75,
    "StorageError": 75,
}
FACTS = ("column 'x' is text", "a number", "'a'", "Encode it.")


def tree(root: type[ScoringError] = ScoringError) -> Iterator[type[ScoringError]]:
    yield root
    for branch in root.__subclasses__():
        yield from tree(branch)


CLASSES = sorted({found for found in tree() if found.__module__ == errors.__name__}, key=lambda found: found.__name__)


def test_the_tree_is_the_one_that_is_documented() -> None:
    assert {found.__name__ for found in CLASSES} == set(EXIT_CODES)
    drawn = re.findall(r"\w+Error\b", (errors.__doc__ or "").split("An error is built")[0])
    assert set(drawn) == set(EXIT_CODES)


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_knows_its_exit_code_and_has_a_sentence_of_its_own(kind: type[ScoringError]) -> None:
    assert kind("x").exit_code == EXIT_CODES[kind.__name__]
    assert kind.__doc__ != ScoringError.__doc__ or kind is ScoringError


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_survives_pickling(kind: type[ScoringError], protocol: int) -> None:
    error = kind(*FACTS)
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is kind
    assert copy.args == error.args == FACTS
    assert (copy.what, copy.expected, copy.got, copy.hint) == FACTS
    assert str(copy) == str(error)


def test_a_retry_helps_or_does_not() -> None:
    for kind in set(CLASSES) - {ScoringError}:
        assert issubclass(kind, errors.TransientError) != issubclass(kind, errors.TerminalError)
        assert issubclass(kind, errors.TransientError) == (kind.exit_code == errors.EXIT_TRANSIENT)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (("model 'a' failed",), "model 'a' failed."),
        (("w", "a number"), "w: expected a number."),
        (("w", "", "'a'"), "w: got 'a'."),
        (("w", "a number", "'a'"), "w: expected a number, got 'a'."),
        (("w", "", "", "Do this."), "w. Do this."),
        (("w", "a number", "'a'", "Do this."), "w: expected a number, got 'a'. Do this."),
    ],
)
def test_the_sentence_says_what_expected_got_and_what_to_do(facts: tuple[str, ...], sentence: str) -> None:
    assert str(ScoringError(*facts)) == sentence


def test_a_sentence_lists_ten_names_and_counts_the_rest() -> None:
    assert errors.listed([]) == ""
    assert errors.listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert errors.listed(range(17)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 7 more"


def test_a_sentence_shows_five_examples_of_forty_characters() -> None:
    shown = errors.examples("x" * 1000 for _ in range(1000)).split(", ")
    assert len(shown) == 5
    assert {len(example) for example in shown} == {40}
    assert all(example.startswith("'xxx") and example.endswith("…") for example in shown)
    assert errors.examples(["a", 1, None]) == "'a', 1, None"


def test_examples_are_not_taken_further_than_needed() -> None:
    taken = iter(range(100))
    errors.examples(taken)
    assert next(taken) <= 6
