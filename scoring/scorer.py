"""Where a row is scored: one split through contract, graph and part file. Runs on Spark executors; knows no Spark."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from scoring import errors
from scoring.batch import Batch
from scoring.data.partition import folder_of
from scoring.data.parts import Part, describe_part, writing_part
from scoring.data.quarantine import Quarantine, keeping_quarantine
from scoring.data.splits import Piece, Split
from scoring.data.storage import is_damage, open_storage, storage_errors
from scoring.deployment import ModelStep
from scoring.errors import ContractError, ScoringError, cause
from scoring.graph.compile import compile_graph
from scoring.models.base import Files, FrozenModel, Predictor
from scoring.models.cache import PREDICTORS
from scoring.monitoring.sampling import keep_mask
from scoring.plan import RUN_COLUMN, Plan

KEPT_OF_FAILED: Final = 10_000
"""Quarantined rows that each split of a run keeps at least, even when there are so many that the run will fail."""


@dataclass(slots=True)
class Timings:
    """Seconds that a split took."""

    read_s: float = 0.0
    predict_s: float = 0.0
    sample_s: float = 0.0
    write_s: float = 0.0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What a worker tells the driver of one split; small, whatever the split's size."""

    split: int
    rows_in: int
    part: Part | None = None
    quarantined: Part | None = None
    """Rows that broke the contract; not all of them when there are so many that the run fails."""
    rows_quarantined: int = 0
    """All rows that broke the contract, kept or not."""
    sample: bytes = b""
    """Sampled rows (features and outputs) as an Arrow IPC stream; empty if none."""
    timings: Timings = field(default_factory=Timings)
    model_loads: int = 0
    device: str = "cpu"
    failure: tuple[str, tuple[str, ...]] | None = None
    """Class name and arguments of the `ScoringError` that stopped the split."""

    @staticmethod
    def failed(split: Split, error: ScoringError, *, device: str = "cpu") -> SplitResult:
        """Return the record of a split that `error` stopped."""
        return SplitResult(split.index, split.rows, device=device, failure=(type(error).__name__, error.args))

    @property
    def rows_out(self) -> int:
        """Rows in the part file."""
        return self.part.rows if self.part else 0

    def error(self) -> ScoringError | None:
        """Return the error that stopped the split; None if nothing did."""
        if self.failure is None:
            return None
        name, arguments = self.failure
        error: ScoringError = getattr(errors, name)(*arguments)
        return error


def score_split(plan: Plan, split: Split, *, run_id: str, files: Mapping[str, Files], device: str) -> SplitResult:
    """Score one split and write its part file. Runs on a Spark executor.

    Errors that a repetition would meet again are returned, not raised, so that the driver gets them whole and Spark
    does not repeat the task.

    Args:
        plan: the run's plan.
        split: one of the plan's splits.
        run_id: goes into the part's name and rows.
        files: model files by digest.
        device: `cpu` or `cuda:N`, for the model steps that ask for a GPU.

    Raises:
        Exception: anything that is not a `ScoringError`.
    """
    loads, load_s = PREDICTORS.loads, PREDICTORS.load_s
    work = _Work(plan, split, run_id, files, device)
    try:
        part, quarantined = work.run()
    except ScoringError as error:
        return SplitResult.failed(split, error, device=device)
    work.timings.load_s = PREDICTORS.load_s - load_s
    work.timings.predict_s -= work.timings.load_s
    return SplitResult(
        split=split.index,
        rows_in=split.rows,
        part=part,
        quarantined=quarantined,
        rows_quarantined=work.rows_quarantined,
        sample=_stream(work.samples),
        timings=work.timings,
        model_loads=PREDICTORS.loads - loads,
        device=device,
    )


@dataclass(slots=True)
class _Work:
    """The state of one split being scored."""

    plan: Plan
    split: Split
    run_id: str
    files: Mapping[str, Files]
    device: str
    timings: Timings = field(default_factory=Timings)
    rows_quarantined: int = 0
    samples: list[pa.Table] = field(default_factory=list)

    def run(self) -> tuple[Part, Part | None]:
        """Score all batches, write the part and, when there are such rows, the quarantine part."""
        deployment, value = self.plan.deployment, self.plan.partition.value
        folder = folder_of("", deployment.input.partition, value).lstrip("/")
        path = f"{folder}/{self.run_id}-{self.split.index:05d}.parquet"
        graph = compile_graph(self.plan.graph, self._predictor)
        with (
            keeping_quarantine(deployment.output.quarantine_path, path, self.run_id, limit=self._kept()) as quarantine,
            writing_part(deployment.output.path, path, self.plan.schema) as writer,
        ):
            for table in self._batches(quarantine):
                start = time.perf_counter()
                result = graph.run(Batch(table)).table
                output = self._output(table, result)
                self.timings.predict_s += time.perf_counter() - start
                start = time.perf_counter()
                writer.write_table(output)
                self.timings.write_s += time.perf_counter() - start
                start = time.perf_counter()
                self._sample(table, output)
                self.timings.sample_s += time.perf_counter() - start
        self.rows_quarantined = quarantine.rows
        quarantined = describe_part(deployment.output.quarantine_path, path) if quarantine.rows else None
        return describe_part(deployment.output.path, path), quarantined

    def _kept(self) -> int:
        """Return how many quarantined rows are kept: all, as long as the run can succeed."""
        source = self.plan.deployment.input
        # One more, since the product may be rounded down while the share is still within its limit.
        allowed = math.floor(source.max_quarantined_share * self.plan.partition.rows) + 1
        return max(allowed, KEPT_OF_FAILED)

    def _batches(self, quarantine: Quarantine) -> Iterator[pa.Table]:
        """Yield tables of the plan's features, without the rows that break the contract."""
        contract, column = self.plan.contract, self.plan.partition.column
        for piece in self.split.pieces:
            row = piece.first_row
            for raw in self._read(piece):
                start = time.perf_counter()
                table, reasons = contract.apply(raw)
                quarantine.add(raw, reasons, file=piece.path, first_row=row)
                row += raw.num_rows
                if column not in table.column_names:
                    table = table.append_column(column, pa.repeat(self.plan.partition.value, table.num_rows))
                self.timings.read_s += time.perf_counter() - start
                if table.num_rows:
                    yield table

    def _read(self, piece: Piece) -> Iterator[pa.Table]:
        filesystem, _ = open_storage(self.plan.deployment.input.path)
        columns = [column.name for column in self.plan.contract.columns]
        with storage_errors(piece.path), filesystem.open_input_file(piece.path) as handle:
            batches = pq.ParquetFile(handle).iter_batches(
                batch_size=self.plan.deployment.resources.batch_rows,
                row_groups=list(piece.row_groups),
                columns=columns,
                use_threads=False,
            )
            while True:
                start = time.perf_counter()
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    if not is_damage(error):
                        raise
                    raise errors.DataError(
                        f"file {piece.path} cannot be read",
                        "whole Parquet pages",
                        cause(error),
                        "It may be damaged: write it again, then run again.",
                    ) from error
                self.timings.read_s += time.perf_counter() - start
                if batch is None:
                    return
                yield pa.Table.from_batches([batch])

    def _output(self, table: pa.Table, result: pa.Table) -> pa.Table:
        columns = []
        for wanted in self.plan.schema:
            if wanted.name == RUN_COLUMN:
                columns.append(pa.repeat(self.run_id, table.num_rows))
                continue
            column = (result if wanted.name in self.plan.outputs.names else table).column(wanted.name)
            if column.type != wanted.type:
                try:
                    column = column.cast(wanted.type)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    raise ContractError(
                        f"output {wanted.name!r} changed its type between batches", str(wanted.type), str(column.type)
                    ) from error
            columns.append(column)
        return pa.table(columns, schema=self.plan.schema)

    def _sample(self, table: pa.Table, output: pa.Table) -> None:
        if self.plan.sample_rate <= 0:
            return
        mask = pa.array(keep_mask(table, keys=self.plan.deployment.input.keys, rate=self.plan.sample_rate))
        sample = table.filter(mask)
        for name in self.plan.outputs.names:
            sample = sample.append_column(name, output.column(name).filter(mask))
        self.samples.append(sample)

    def _predictor(self, model: FrozenModel, step: ModelStep) -> Predictor:
        return PREDICTORS.get(
            model,
            self.files[model.digest],
            method=step.method,
            device=self.device if step.device == "gpu" else "cpu",
            threads=self.plan.deployment.resources.cpus_per_task,
        )


def _stream(samples: list[pa.Table]) -> bytes:
    if not samples:
        return b""
    sink = io.BytesIO()
    table = pa.concat_tables(samples)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def read_sample(results: list[SplitResult]) -> pa.Table | None:
    """Return the sampled rows of all splits, in order of the splits; None if there are none."""
    streams = [result.sample for result in sorted(results, key=lambda r: r.split) if result.sample]
    return pa.concat_tables(pa.ipc.open_stream(s).read_all() for s in streams) if streams else None
