"""The specification of the scoring graph. Steps nest freely: a pipeline may hold an ensemble of pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from scoring.deployment.fields import ColumnName, FunctionReference, ModelUri, Spec
from scoring.errors import listed

DEFAULT_OUTPUT: Final = "score"
STEP_KINDS: Final = ("model", "pipeline", "ensemble", "rule")


class Combine(StrEnum):
    """How an ensemble merges its members' outputs."""

    MEAN = "mean"
    WEIGHTED_MEAN = "weighted_mean"
    MAX = "max"
    SOFT_VOTE = "soft_vote"
    HARD_VOTE = "hard_vote"


class ModelStep(Spec):
    """A registered model. Reads its signature's columns, adds one column."""

    model: ModelUri
    output: ColumnName = DEFAULT_OUTPUT
    method: Literal["auto", "predict", "predict_proba"] = "auto"
    """`auto`: the probability of the second class for a binary classifier, else the prediction."""
    batch_size: int | None = Field(default=None, gt=0)
    """Rows given to the model at once; None: the whole batch."""
    device: Literal["cpu", "gpu"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: layers compute with 8 significant bits instead of 24, faster on a GPU; PyTorch only."""
    compile: bool = False
    """Compile the model for its device when a worker loads it: seconds to a minute, then faster; PyTorch only."""


class PipelineStep(Spec):
    """Steps one after another."""

    pipeline: tuple[Step, ...] = Field(min_length=1)


class Rule(Spec):
    """Business logic: a Python function (Arrow table in, Arrow table out) or a SQL query over `batch`."""

    python: FunctionReference | None = None
    sql: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if (self.python is None) == (self.sql is None):
            raise ValueError("expected either 'python' or 'sql'")
        return self


class RuleStep(Spec):
    """A rule. May add, change and drop columns; keeps rows, their order and the keys."""

    rule: Rule


class Ensemble(Spec):
    """Members side by side over the same batch, merged by a combiner."""

    combine: Combine
    members: dict[ColumnName, Step] = Field(min_length=1)
    weights: dict[ColumnName, float] | None = None
    output: ColumnName = DEFAULT_OUTPUT
    keep_members: bool = False
    """Also add each member's output as column `<output>_<member>`."""

    @model_validator(mode="after")
    def _consistent(self) -> Ensemble:
        if self.combine is Combine.WEIGHTED_MEAN and self.weights is None:
            raise ValueError("combine: weighted_mean needs 'weights', one number per member")
        if self.weights is not None:
            if self.combine is Combine.MAX or self.combine is Combine.MEAN:
                raise ValueError(f"combine: {self.combine} takes no 'weights'. Use weighted_mean")
            if set(self.weights) != set(self.members):
                raise ValueError(
                    f"expected weights for exactly {listed(sorted(self.members))}, got {listed(sorted(self.weights))}"
                )
            if any(not 0 <= weight < float("inf") for weight in self.weights.values()):
                raise ValueError("expected weights that are finite and not negative")
            if sum(self.weights.values()) <= 0:
                raise ValueError("expected weights with a sum above zero")
        for name, member in self.members.items():
            if output_of(member) is None:
                raise ValueError(f"member {name!r} has no output to combine: it holds no model and no ensemble")
        return self


class EnsembleStep(Spec):
    """An ensemble."""

    ensemble: Ensemble


def _step_kind(value: Any) -> str | None:
    if isinstance(value, Spec):
        return type(value).__name__.removesuffix("Step").lower()
    kinds = [kind for kind in STEP_KINDS if isinstance(value, Mapping) and kind in value]
    return kinds[0] if len(kinds) == 1 else None


Step = Annotated[
    Annotated[ModelStep, Tag("model")]
    | Annotated[PipelineStep, Tag("pipeline")]
    | Annotated[EnsembleStep, Tag("ensemble")]
    | Annotated[RuleStep, Tag("rule")],
    Discriminator(_step_kind),
]
PipelineStep.model_rebuild()
Ensemble.model_rebuild()
EnsembleStep.model_rebuild()
AnyStep = ModelStep | PipelineStep | EnsembleStep | RuleStep


def output_of(step: AnyStep) -> str | None:
    """Return the column that `step` adds and an ensemble would combine; None for a rule."""
    match step:
        case ModelStep():
            return step.output
        case EnsembleStep():
            return step.ensemble.output
        case PipelineStep():
            outputs = [output_of(inner) for inner in step.pipeline]
            return next((output for output in reversed(outputs) if output is not None), None)
        case RuleStep():
            return None


def walk(step: AnyStep) -> Iterator[AnyStep]:
    """Yield `step` and all steps within it, outermost first."""
    yield step
    match step:
        case PipelineStep():
            inner: Sequence[AnyStep] = step.pipeline
        case EnsembleStep():
            inner = tuple(step.ensemble.members.values())
        case _:
            inner = ()
    for child in inner:
        yield from walk(child)
