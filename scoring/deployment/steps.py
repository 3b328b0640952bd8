"""The specification of the scoring graph. Steps nest freely: a pipeline may hold an ensemble of pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from scoring.deployment.fields import ColumnName, FunctionReference, KeyedError, ModelUri, Spec
from scoring.errors import listed

DEFAULT_OUTPUT: Final = "score"
STEP_KINDS: Final = ("model", "pipeline", "ensemble", "rule", "route", "values")
ERROR: Final = "error"
"""Written as `otherwise` of a route that must take every row."""


class Combine(StrEnum):
    """How an ensemble merges its members' outputs, row by row."""

    MEAN = "mean"
    WEIGHTED_MEAN = "weighted_mean"
    MEDIAN = "median"
    GEOMETRIC_MEAN = "geometric_mean"
    RANK_MEAN = "rank_mean"
    MIN = "min"
    MAX = "max"
    SOFT_VOTE = "soft_vote"
    HARD_VOTE = "hard_vote"

    @property
    def is_vote(self) -> bool:
        """Whether the result is the number of a class, whatever the members give."""
        return self in (Combine.SOFT_VOTE, Combine.HARD_VOTE)

    @property
    def takes_weights(self) -> bool:
        """Whether members may have weights."""
        return self not in (Combine.MEAN, Combine.MEDIAN, Combine.MIN, Combine.MAX)


class Ties(StrEnum):
    """Which class wins a vote that ends in a tie."""

    FIRST = "first"
    """The lowest class number, as in scikit-learn's `VotingClassifier`."""
    LAST = "last"
    """The highest class number."""


class OnFailure(StrEnum):
    """What happens when a member of an ensemble cannot be loaded or raises."""

    FAIL = "fail"
    """The run fails."""
    DROP = "drop"
    """All rows of the run are scored by the other members, which share its weight."""


class _Named(Spec):
    """A step with columns of its own."""

    output: ColumnName = DEFAULT_OUTPUT
    """Name of the one column that is added."""
    outputs: tuple[ColumnName, ...] = Field(default=(), min_length=1)
    """Names of the columns, in the model's order, instead of `output`: one per class or target."""
    replace: bool = False
    """Replace columns of these names that a step before has added; otherwise that is an error."""

    @model_validator(mode="after")
    def _one_way_to_name(self) -> _Named:
        if self.outputs and "output" in self.model_fields_set:
            raise ValueError("expected either 'output' or 'outputs'")
        double = sorted({name for name in self.outputs if self.outputs.count(name) > 1})
        if double:
            raise ValueError(f"expected every name in 'outputs' once, {listed(double)} is there twice")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns that are added."""
        return self.outputs or (self.output,)


class ModelStep(_Named):
    """A registered model. Reads its signature's columns, adds one column or several."""

    model: ModelUri
    inputs: dict[str, ColumnName] = Field(default_factory=dict)
    """Column of the batch by column of the signature, where their names differ."""
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


def _constant(value: Any) -> Any:
    is_number = isfinite(value) if isinstance(value, float) else isinstance(value, int) and abs(value) < 2**63
    if not (value is None or is_number or isinstance(value, str)):
        raise ValueError(f"expected a finite number of 64 bits, text, true, false or null, got {value!r}")
    return value


Constant = Annotated[Any, AfterValidator(_constant)]


class ValuesStep(Spec):
    """Columns with one constant each: defaults, overrides, reason codes. They replace columns of their names."""

    values: dict[ColumnName, Constant] = Field(min_length=1)


class Case(Spec):
    """One way of a route."""

    when: str = Field(min_length=1)
    """A SQL predicate over the columns of one row. Null is no match."""
    then: Step
    """What the rows go through."""


class Route(Spec):
    """Rows go through different steps: each through that of its first case that matches."""

    cases: tuple[Case, ...] = Field(min_length=1)
    otherwise: Otherwise
    """The step for rows that no case matches, such as `values` with defaults; `error`: there must be none."""


class RouteStep(Spec):
    """A route. Keeps the order of rows; all its branches end with the same columns."""

    route: Route


class Ensemble(_Named):
    """Members side by side over the same batch, merged by a combiner.

    Members with several outputs are merged output by output, and votes take their outputs as classes. The ensemble's
    outputs are then called like the members', unless it names them.
    """

    combine: CombineOrModel
    """A combiner; or a model (stacking, blending) whose signature names members: `linear`, or `linear_p_a` for output
    `p_a` of a member with several, and columns of the batch if it wants."""
    members: dict[ColumnName, Step] = Field(min_length=1)
    weights: dict[ColumnName, float] | None = None
    ties: Ties | None = None
    """Of votes; None: `first`."""
    quantiles: dict[ColumnName, tuple[float, ...]] | None = None
    """For `rank_mean`: the quantiles of each member's scores in a reference window, evenly spaced from the lowest score
    to the highest. A score's rank is its place among them, from 0 to 1."""
    on_failure: OnFailure = OnFailure.FAIL
    keep_members: bool = False
    """Also add each member's outputs as columns `<output>_<member>`."""

    @model_validator(mode="after")
    def _consistent(self) -> Ensemble:
        for name, member in self.members.items():
            if not outputs_of(member):
                raise KeyedError(
                    f"member {name!r} has no output to combine: it holds no model and no ensemble", "members", name
                )
        self._check_weights()
        self._check_quantiles()
        if isinstance(self.combine, ModelStep):
            self._check_learned(self.combine)
        else:
            self._check_outputs(self.combine)
        if self.ties is not None and not (isinstance(self.combine, Combine) and self.combine.is_vote):
            raise KeyedError("'ties' is for soft_vote and hard_vote", "ties")
        double = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if double:
            raise ValueError(f"two of the ensemble's columns are called {listed(double)}. Rename a member or an output")
        return self

    def _check_weights(self) -> None:
        if self.weights is None:
            if self.combine is Combine.WEIGHTED_MEAN:
                raise ValueError("combine: weighted_mean needs 'weights', one number per member")
            return
        if isinstance(self.combine, ModelStep):
            raise KeyedError("a learned combiner takes no 'weights'", "weights")
        if not self.combine.takes_weights:
            raise KeyedError(f"combine: {self.combine} takes no 'weights'. Use weighted_mean", "weights")
        _check_members("weights", self.weights, self.members)
        if any(not 0 <= weight < float("inf") for weight in self.weights.values()):
            raise KeyedError("expected weights that are finite and not negative", "weights")
        if sum(self.weights.values()) <= 0:
            raise KeyedError("expected weights with a sum above zero", "weights")

    def _check_quantiles(self) -> None:
        if (self.combine is Combine.RANK_MEAN) != (self.quantiles is not None):
            raise ValueError(
                "combine: rank_mean needs 'quantiles' of every member's scores, and no other combiner does"
            )
        if self.quantiles is None:
            return
        _check_members("quantiles", self.quantiles, self.members)
        for name, numbers in self.quantiles.items():
            if len(numbers) < 2 or not all(map(isfinite, numbers)) or sorted(numbers) != list(numbers):
                raise KeyedError(
                    f"expected at least two finite numbers that do not fall as quantiles of {name!r}", "quantiles", name
                )

    def _check_learned(self, combine: ModelStep) -> None:
        given = sorted({"output", "outputs", "replace", "inputs"} & combine.model_fields_set)
        if given:
            raise KeyedError(f"expected {listed(given)} on the ensemble, not on its combiner", "combine", given[0])
        if self.on_failure is OnFailure.DROP:
            raise KeyedError(
                "a learned combiner needs every member, so that none can be dropped: remove 'on_failure'", "on_failure"
            )

    def _check_outputs(self, combine: Combine) -> None:
        (first, expected), *others = ((name, outputs_of(member)) for name, member in self.members.items())
        for name, found in others:
            if len(expected) != len(found) or (len(found) > 1 and expected != found):
                raise KeyedError(
                    f"members cannot be combined: expected outputs {listed(expected)} of {name!r}, as of {first!r}, "
                    f"got {listed(found)}",
                    "members",
                    name,
                )
        if combine is Combine.RANK_MEAN and len(expected) > 1:
            raise ValueError(f"rank_mean takes members with one output, got {listed(expected)}")
        if combine.is_vote and self.outputs:
            raise KeyedError(f"{combine} gives one class number: name it with 'output'", "outputs")
        if combine is Combine.SOFT_VOTE:
            labels = [name for name, member in self.members.items() if gives_labels(member)]
            if labels:
                raise KeyedError(
                    f"soft_vote averages probabilities, and {listed(labels)} gives classes. Remove 'method: predict', "
                    "or use hard_vote",
                    "members",
                    labels[0],
                )
        wanted = 1 if combine.is_vote else len(expected)
        if (self.outputs or "output" in self.model_fields_set) and len(self.outputs or (self.output,)) != wanted:
            raise ValueError(f"members have {wanted} outputs each: expected as many names in 'outputs'")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the merged columns."""
        if self.outputs or isinstance(self.combine, ModelStep) or self.combine.is_vote:
            return super().names
        of_members = outputs_of(next(iter(self.members.values())))
        return of_members if len(of_members) > 1 else (self.output,)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns that the ensemble adds, in order."""
        kept = (column for name in self.members for column in self.kept(name)) if self.keep_members else ()
        return (*kept, *self.names)

    def kept(self, member: str) -> tuple[str, ...]:
        """Return the columns in which a member's outputs are kept."""
        outputs = outputs_of(self.members[member])
        return tuple(f"{output}_{member}" for output in (outputs if len(outputs) > 1 else (self.output,)))


class EnsembleStep(Spec):
    """An ensemble."""

    ensemble: Ensemble


def _check_members(key: str, given: Iterable[str], members: Iterable[str]) -> None:
    known, names = sorted(members), sorted(given)
    if known == names:
        return
    close = [match for name in names if name not in known for match in get_close_matches(name, known, n=1)]
    hint = f". Did you mean {close[0]!r}?" if close else ""
    unknown = [name for name in names if name not in known][:1]
    raise KeyedError(f"expected {key} for exactly {listed(known)}, got {listed(names)}{hint}", key, *unknown)


def _step_kind(value: Any) -> str | None:
    if isinstance(value, Spec):
        return type(value).__name__.removesuffix("Step").lower()
    kinds = [kind for kind in STEP_KINDS if isinstance(value, Mapping) and kind in value]
    return kinds[0] if len(kinds) == 1 else None


def _otherwise_kind(value: Any) -> str | None:
    return ERROR if isinstance(value, str) else _step_kind(value)


def _combine_kind(value: Any) -> str:
    return "model" if isinstance(value, Mapping | ModelStep) else "combiner"


AnyStep = ModelStep | PipelineStep | EnsembleStep | RuleStep | RouteStep | ValuesStep
_AnyTagged = (
    Annotated[ModelStep, Tag("model")]
    | Annotated[PipelineStep, Tag("pipeline")]
    | Annotated[EnsembleStep, Tag("ensemble")]
    | Annotated[RuleStep, Tag("rule")]
    | Annotated[RouteStep, Tag("route")]
    | Annotated[ValuesStep, Tag("values")]
)
Step = Annotated[_AnyTagged, Discriminator(_step_kind)]
Otherwise = Annotated[_AnyTagged | Annotated[Literal["error"], Tag(ERROR)], Discriminator(_otherwise_kind)]
CombineOrModel = Annotated[
    Annotated[Combine, Tag("combiner")] | Annotated[ModelStep, Tag("model")], Discriminator(_combine_kind)
]
for _spec in (PipelineStep, Case, Route, RouteStep, Ensemble, EnsembleStep):
    _spec.model_rebuild()

Keys = tuple[int | str, ...]
"""Where a step stands in `deployment.yaml`: `("score", "pipeline", 1, "ensemble", "members", "trees")`."""
ROOT: Final[Keys] = ("score",)


def path_of(keys: Keys) -> str:
    """Return keys as people write them: `score.pipeline.1.ensemble.members.trees`."""
    return ".".join(map(str, keys))


def outputs_of(step: AnyStep) -> tuple[str, ...]:
    """Return the columns that `step` adds and an ensemble would combine; none for a rule and for values."""
    match step:
        case ModelStep():
            return step.names
        case EnsembleStep():
            return step.ensemble.names
        case PipelineStep():
            return next(filter(None, (outputs_of(inner) for inner in reversed(step.pipeline))), ())
        case RouteStep():
            return next(filter(None, (outputs_of(branch) for _, branch in children(step))), ())
        case RuleStep() | ValuesStep():
            return ()


def gives_labels(step: AnyStep) -> bool:
    """Return whether a step's output is a class, as far as the step says so, and no probability."""
    match step:
        case ModelStep():
            return step.method == "predict"
        case EnsembleStep():
            return isinstance(step.ensemble.combine, Combine) and step.ensemble.combine.is_vote
        case PipelineStep():
            return any(gives_labels(inner) for inner in step.pipeline if outputs_of(inner) == outputs_of(step))
        case RouteStep():
            return any(gives_labels(branch) for _, branch in children(step))
        case _:
            return False


def children(step: AnyStep) -> Iterator[tuple[Keys, AnyStep]]:
    """Yield the steps right within a step, in order, each with its keys from there."""
    match step:
        case PipelineStep():
            for number, inner in enumerate(step.pipeline):
                yield ("pipeline", number), inner
        case EnsembleStep():
            for name, member in step.ensemble.members.items():
                yield ("ensemble", "members", name), member
            if isinstance(step.ensemble.combine, ModelStep):
                yield ("ensemble", "combine"), step.ensemble.combine
        case RouteStep():
            for number, case in enumerate(step.route.cases):
                yield ("route", "cases", number, "then"), case.then
            if not isinstance(step.route.otherwise, str):
                yield ("route", "otherwise"), step.route.otherwise
        case _:
            return


def places(step: AnyStep, keys: Keys = ROOT) -> Iterator[tuple[Keys, AnyStep]]:
    """Yield `step` and all steps within it, outermost first, each with its keys."""
    yield keys, step
    for further, child in children(step):
        yield from places(child, (*keys, *further))


def walk(step: AnyStep) -> Iterator[AnyStep]:
    """Yield `step` and all steps within it, outermost first."""
    return (found for _, found in places(step))
