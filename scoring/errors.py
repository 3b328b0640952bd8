"""Every error that `scoring` raises on purpose.

    ScoringError
    ├── TerminalError                 a retry cannot help
    │   ├── ConfigurationError        exit 2   deployment.yaml, environment
    │   ├── ContractError             exit 2   input columns, signatures, rules, models
    │   │   └── ModelError            exit 2   a model that does not load, verify or predict
    │   ├── SupersededError           exit 2   another run published the partition first
    │   └── DataError                 exit 3   the data failed its checks
    └── TransientError                exit 75  a retry can help
        ├── RegistryUnavailableError           the MLflow server or store does not answer
        ├── PartitionMissingError              the partition has not arrived
        └── StorageError                       disk full, object store away

An error is built from facts (what failed, expected, got, what to do); the sentence is made by `__str__`.
Facts are kept in `args`, so errors survive pickling between Spark's and Airflow's processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Final

EXIT_DONE: Final = 0
EXIT_UNEXPECTED: Final = 1
EXIT_CONFIGURATION: Final = 2
EXIT_DATA: Final = 3
EXIT_TRANSIENT: Final = 75

MAX_ITEMS: Final = 10
"""How many names one sentence lists at most."""
MAX_EXAMPLES: Final = 5
"""How many example values one sentence shows at most."""
MAX_EXAMPLE_CHARS: Final = 40
"""How long one example value is at most."""
MAX_CAUSE_CHARS: Final = 300
"""How much of another library's error a sentence repeats at most."""
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
"""What makes text red in a terminal; delta-rs has it in its messages."""


def listed(items: Iterable[object]) -> str:
    """Return at most `MAX_ITEMS` items as `a, b, c and 7 more`."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:MAX_ITEMS])
    return shown if len(texts) <= MAX_ITEMS else f"{shown} and {len(texts) - MAX_ITEMS} more"


def examples(values: Iterable[object]) -> str:
    """Return at most `MAX_EXAMPLES` values, each cut to `MAX_EXAMPLE_CHARS` characters."""
    texts = [repr(value) for _, value in zip(range(MAX_EXAMPLES), values, strict=False)]
    return ", ".join(text if len(text) <= MAX_EXAMPLE_CHARS else text[: MAX_EXAMPLE_CHARS - 1] + "…" for text in texts)


def cause(error: BaseException) -> str:
    """Return another library's error in one line, cut to `MAX_CAUSE_CHARS`."""
    text = " ".join(COLOUR.sub("", f"{type(error).__name__}: {error}").split())
    return text if len(text) <= MAX_CAUSE_CHARS else text[: MAX_CAUSE_CHARS - 1] + "…"


class ScoringError(Exception):
    """One failure: `what` failed, what was `expected`, what was `got`, and `hint`: what to do next."""

    exit_code: ClassVar[int] = EXIT_UNEXPECTED

    def __init__(self, what: str, expected: str = "", got: str = "", hint: str = "") -> None:
        super().__init__(what, expected, got, hint)
        self.what = what
        self.expected = expected
        self.got = got
        self.hint = hint

    def __str__(self) -> str:
        facts = ", ".join(f"{word} {fact}" for word, fact in (("expected", self.expected), ("got", self.got)) if fact)
        sentence = f"{self.what}: {facts}." if facts else f"{self.what}."
        return f"{sentence} {self.hint}" if self.hint else sentence


class TerminalError(ScoringError):
    """A retry cannot help: somebody has to change something first."""

    exit_code = EXIT_CONFIGURATION


class TransientError(ScoringError):
    """A retry can help: nothing is wrong with the deployment or the data."""

    exit_code = EXIT_TRANSIENT


class ConfigurationError(TerminalError):
    """The deployment or the environment is wrong."""


class ContractError(TerminalError):
    """Input, rule, model and output do not fit each other."""


class ModelError(ContractError):
    """A model version cannot be verified, loaded or used for prediction."""

    member: str = ""
    """Path of the ensemble's member that the run can do without; set where that is known."""


class SupersededError(TerminalError):
    """Another run published the partition after this run had started; nothing of this run is published."""


class DataError(TerminalError):
    """The data failed its checks; nothing is published."""

    exit_code = EXIT_DATA


class RegistryUnavailableError(TransientError):
    """The MLflow tracking server or registry does not answer."""


class PartitionMissingError(TransientError):
    """The input partition has not arrived yet."""


class StorageError(TransientError):
    """Reading or writing failed for want of space or of the store itself."""
