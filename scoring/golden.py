"""The golden sample: rows that a version scored when it was registered, scored again wherever it is deployed.

A library of another release, another processor or a broken installation can change predictions without any error.
The sample finds that before a night does. Runs on the driver.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.batch import Batch
from scoring.deployment import Deployment, ModelStep, model_name
from scoring.errors import ModelError, listed
from scoring.formats import check_format
from scoring.graph.compile import graph_source, readers
from scoring.local import ModelCalls, read_rows, record_graph
from scoring.models.base import BFLOAT16, FLOAT32, Files, FrozenModel
from scoring.models.cache import PREDICTORS
from scoring.registry import TRAINING_RUN_TAG, Registry
from scoring.runs import RunStore

SAMPLE_ROWS: Final = 64
EDGE_ROWS: Final = 48
"""Of these, rows with nulls and with extreme values at most."""
POOL_ROWS: Final = 10_000
"""Rows among which the sample is chosen."""
TOLERANCES: Final = {FLOAT32: 1e-5, BFLOAT16: 0.03}
"""Allowed difference by precision, relative to the expected value or to the mean absolute value of its column,
whichever is larger: a value near zero is the sum of larger ones."""
DIGEST_TAG: Final = "scoring.golden.sha256"
FORMAT_VERSION: Final = 1
_METADATA: Final = b"scoring.golden"
_EXPECTED: Final = "__expected "
"""Before the name of an output, among the columns of a sample's file."""
_ALWAYS: Final = ("numpy", "pandas", "pyarrow")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """Rows, what a version predicted for them, and with which libraries."""

    rows: pa.Table
    """Keys and the columns of the model's signature, as the graph gave them to the model."""
    expected: Mapping[str, npt.NDArray[np.float64]]
    """Predictions by output, shape (rows,) each."""
    keys: tuple[str, ...]
    method: str
    """Of the model step at that time."""
    libraries: Mapping[str, str]
    """Versions of the packages that predicted."""

    def to_bytes(self) -> bytes:
        """Return the sample as a Parquet file."""
        table = self.rows
        for name, values in self.expected.items():
            table = table.append_column(_EXPECTED + name, pa.array(values))
        facts = {
            "format_version": FORMAT_VERSION,
            "keys": self.keys,
            "method": self.method,
            "libraries": self.libraries,
        }
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({_METADATA: json.dumps(facts)}), content)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> GoldenSample:
        """Read what `to_bytes` wrote.

        Raises:
            ContractError: another release wrote it in another form.
        """
        table = pq.read_table(io.BytesIO(content))
        facts = json.loads((table.schema.metadata or {}).get(_METADATA, b"null"))
        check_format(facts, FORMAT_VERSION, "the golden sample")
        outputs = [name for name in table.column_names if name.startswith(_EXPECTED)]
        return cls(
            table.drop_columns(outputs).replace_schema_metadata(None),
            {name.removeprefix(_EXPECTED): table.column(name).to_numpy() for name in outputs},
            tuple(facts["keys"]),
            facts["method"],
            facts["libraries"],
        )


# ------------------------------------------------------------------------------------------------- at registration


def keep_samples(
    deployment: Deployment, versions: Mapping[str, int], fresh: Iterable[str], nights: Iterable[str], *, run_id: str
) -> None:
    """Choose rows, score them with freshly registered versions, and store both with the versions' training run.

    A model that none of the rows reaches gets no sample.

    Args:
        deployment: whose graph gives the models their rows.
        versions: of all models of the graph, by registered name.
        fresh: names of the models that get a sample.
        nights: partitions to choose rows from.
        run_id: of the training.
    """
    store, registry = RunStore(), Registry()
    models, files = registry.freeze(deployment, versions)
    pool = read_rows(deployment, nights, models=readers(deployment.score, models), limit=POOL_ROWS)
    _, calls = record_graph(graph_source(deployment, models), pool, files=files)
    for name in fresh:
        if name in calls:
            model = calls[name].model
            content = take(calls[name], files[model.digest], keys=deployment.input.keys).to_bytes()
            store.put(run_id, _artifact(name), content)
            registry.tag(name, model.version, DIGEST_TAG, hashlib.sha256(content).hexdigest())


def take(calls: ModelCalls, files: Files, *, keys: Sequence[str]) -> GoldenSample:
    """Return a sample of what a model was given, scored by itself in float32, as deploying will score it again."""
    model, step = calls.model, calls.step
    columns = [*keys, *(name for name in model.columns if name not in keys)]
    table = pa.concat_tables(given.select(columns) for given in calls.tables)
    table = table.take(choose(table.select(list(model.columns))))
    libraries = {name: _installed(name) for name in sorted({*_ALWAYS, *_required(files)})}
    values = _predict(model, files, table, method=step.method, outputs=_width(calls.predictions[0]))
    return GoldenSample(table, _by_output(step, values), tuple(keys), step.method, libraries)


def choose(table: pa.Table, *, rows: int = SAMPLE_ROWS) -> list[int]:
    """Return which rows make a sample: those with nulls and with extreme values first, the others evenly spread.

    Args:
        table: features.
        rows: how many at most.

    Returns:
        Positions, each once, ascending.
    """
    edges = dict.fromkeys(_edges(table))
    chosen = set(list(edges)[: min(EDGE_ROWS, rows)])
    for position in np.linspace(0, table.num_rows - 1, min(rows, table.num_rows)).astype(int).tolist():
        if len(chosen) < rows:
            chosen.add(position)
    return sorted(chosen)


def _edges(table: pa.Table) -> Iterator[int]:
    columns = [column.combine_chunks() for column in table.columns]
    for column in columns:
        if column.null_count:
            yield int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
    for column in columns:
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if is_number and column.null_count < len(column):
            values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            if not np.isnan(values).all():
                yield int(np.nanargmin(values))
                yield int(np.nanargmax(values))


# ---------------------------------------------------------------------------------------------------- at deployment


def check_samples(deployment: Deployment, frozen: Iterable[tuple[FrozenModel, Files]]) -> tuple[str, ...]:
    """Score the golden samples of versions again in this environment.

    Args:
        deployment: whose model steps say how.
        frozen: the versions with their files, one after the other.

    Returns:
        A sentence for each version that has no sample, for people.

    Raises:
        ModelError: a prediction differs, or a sample was changed after it was stored.
    """
    store, registry = RunStore(), Registry()
    missing = []
    for model, files in frozen:
        tags = registry.version(model.name, str(model.version)).tags
        digest, run_id = tags.get(DIGEST_TAG), tags.get(TRAINING_RUN_TAG)
        if digest is None or run_id is None:
            missing.append(
                f"Model {model.label} has no golden sample, as it was not registered by 'scoring train' or "
                "'scoring soup': nothing shows that it predicts here what it predicted there."
            )
            continue
        content = store.read(run_id, _artifact(model.name))
        got = None if content is None else hashlib.sha256(content).hexdigest()
        if content is None or got != digest:
            raise ModelError(
                f"the golden sample of model {model.label} was changed after it was registered",
                f"sha256 {digest}",
                got or "no file",
                "Train and register it again.",
            )
        sample = GoldenSample.from_bytes(content)
        for step in deployment.model_steps:
            if model_name(step.model) == model.name:
                compare(sample, model, step, files)
    return tuple(missing)


def compare(sample: GoldenSample, model: FrozenModel, step: ModelStep, files: Files) -> None:
    """Score a sample as a step does here, and compare it with what was expected.

    Raises:
        ModelError: a prediction differs by more than the precision allows.
    """
    values = _predict(
        model,
        files,
        sample.rows,
        method=sample.method,
        outputs=len(sample.expected),
        precision=step.precision,
        compile_=step.compile,
    )
    tolerance = TOLERANCES[step.precision]
    wrong = []
    for (output, expected), got in zip(sample.expected.items(), values.T, strict=True):
        allowed = tolerance * np.maximum(np.abs(expected), np.nanmean(np.abs(expected)))
        is_same = (np.abs(got - expected) <= allowed) | (expected == got) | (np.isnan(expected) & np.isnan(got))
        wrong += [(output, int(row), expected[row], got[row]) for row in np.flatnonzero(~is_same)]
    if wrong:
        output, row, wanted, found = wrong[0]
        key = ", ".join(f"{name} {sample.rows.column(name)[row].as_py()!r}" for name in sample.keys)
        raise ModelError(
            f"model {model.label} predicts here something else than when it was registered: "
            f"row {key}, column {output!r}",
            f"{wanted:.9g} (within {tolerance:g})",
            f"{found:.9g}",
            f"{len({row for _, row, _, _ in wrong})} of {sample.rows.num_rows} rows differ. "
            f"{_advice(sample.libraries)}",
        )


def _advice(libraries: Mapping[str, str]) -> str:
    others = {name: (then, now) for name, then in libraries.items() if (now := _installed(name)) != then}
    if others:
        changes = listed(f"{name} {then} then, {now} here" for name, (then, now) in others.items())
        return f"Other libraries: {changes}. Install those of then, or train it here."
    return f"The libraries are those of then ({listed(libraries)}): look for another processor, or train it here."


def _predict(
    model: FrozenModel,
    files: Files,
    rows: pa.Table,
    *,
    method: str,
    outputs: int,
    precision: str = FLOAT32,
    compile_: bool = False,
) -> npt.NDArray[np.float64]:
    """Return predictions of shape (rows, outputs)."""
    predictor = PREDICTORS.get(model, files, method=method, precision=precision, compile=compile_, outputs=outputs)
    values = np.asarray(predictor.predict(Batch(rows)), dtype=np.float64)
    return values.reshape(rows.num_rows, -1)


def _by_output(step: ModelStep, values: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    return dict(zip(step.names, values.T, strict=True))


def _width(predictions: npt.NDArray[Any]) -> int:
    return predictions.shape[1] if predictions.ndim > 1 else 1


def _artifact(name: str) -> str:
    return f"golden/{name}.parquet"


def _required(files: Files) -> Iterator[str]:
    """Yield the packages that a model's artifact names as needed."""
    for line in files.get("requirements.txt", b"").decode().splitlines():
        found = _PACKAGE.match(line.strip())
        if found is not None:
            yield found.group().lower()


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
