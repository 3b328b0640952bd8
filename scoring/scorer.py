"""Where a row is scored: one split through contract, graph and part file. Runs on Spark executors; knows no Spark.

Reading and the contract run in a thread ahead of the graph, writing in one behind it.
"""

from __future__ import annotations

import math
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from scoring.batch import Batch
from scoring.data.parts import Part, PartWriter, writing_part
from scoring.data.quarantine import Quarantine, keeping_quarantine
from scoring.data.reading import BatchLimit, RawRows, read_piece
from scoring.data.splits import Split
from scoring.deployment import ModelStep
from scoring.errors import ContractError, ModelError, ScoringError
from scoring.graph.compile import compile_graph
from scoring.graph.step import Step
from scoring.models.base import Files, FrozenModel, Predictor
from scoring.models.cache import PREDICTORS
from scoring.monitoring.sampling import keep_mask
from scoring.overlap import ahead, behind
from scoring.plan import Plan
from scoring.results import SplitResult, Timings, keep_result, stream_of

KEPT_OF_FAILED: Final = 10_000
"""Quarantined rows that each split of a run keeps at least, even when there are so many that the run will fail."""
READ_AHEAD: Final = 2
"""Batches that are read before the graph takes them."""

_fitting_rows: dict[str, int] = {}
"""By plan: rows of the largest batch that fitted into this process's memory, after one that did not."""


def score_split(plan: Plan, split: Split, *, run_id: str, files: Mapping[str, Files], device: str) -> SplitResult:
    """Score one split and write its part file. Runs on a Spark executor.

    Errors that a repetition would meet again are returned, not raised, so that the driver gets them whole and Spark
    does not repeat the task.

    Args:
        plan: the run's plan.
        split: one of the plan's splits.
        run_id: goes into the name of the quarantine's part.
        files: model files by digest.
        device: `cpu` or `cuda:N`, for the model steps that ask for a GPU.

    Raises:
        Exception: anything that is not a `ScoringError`.
    """
    resources = plan.deployment.resources
    limit = BatchLimit(resources.batch_rows, resources.batch_bytes)
    columns = [column.name for column in plan.contract.columns]
    use_threads = resources.cpus_per_task > 1

    def rows() -> Iterator[RawRows]:
        for piece in split.pieces:
            yield from read_piece(
                plan.deployment.input.location, piece, columns=columns, limit=limit, use_threads=use_threads
            )

    return score_rows(plan, rows(), split=split.index, run_id=run_id, files=files, device=device)


def score_rows(
    plan: Plan, rows: Iterator[RawRows], *, split: int, run_id: str, files: Mapping[str, Files], device: str
) -> SplitResult:
    """Score rows from wherever they come, as `score_split` does, and keep the result."""
    pa.set_cpu_count(plan.deployment.resources.cpus_per_task)
    start, loads, load_s = time.perf_counter(), PREDICTORS.loads, PREDICTORS.load_s
    work = _Work(plan, split, run_id, files, device)
    try:
        with PREDICTORS.keeping(model.digest for model in plan.graph.models.values()):
            part, quarantined, kept_input = work.run(rows)
        timings = work.timings
        timings.load_s = PREDICTORS.load_s - load_s
        timings.predict_s -= timings.load_s
        timings.wall_s = time.perf_counter() - start
        result = SplitResult(
            split=split,
            rows_in=work.rows_in,
            part=part,
            quarantined=quarantined,
            rows_quarantined=work.rows_quarantined,
            kept_input=kept_input,
            key_range=work.keys.range,
            sample=stream_of(work.samples),
            timings=timings,
            model_loads=PREDICTORS.loads - loads,
            batch_rows=work.batch_rows,
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            device=device,
            worker=f"{socket.gethostname()}-{os.getpid()}",
        )
        keep_result(plan.deployment.output.path, work.name, result)
    except ScoringError as error:
        member = error.member if isinstance(error, ModelError) else ""
        return SplitResult.failed(split, error, rows_in=work.rows_in, device=device, member=member)
    finally:
        pa.default_memory_pool().release_unused()
    return result


@dataclass(slots=True)
class KeyOrder:
    """Watches whether keys only grow, which proves at almost no cost that they are unique."""

    names: tuple[str, ...]
    range: tuple[Any, Any] | None = None
    """First and last key so far; None if they do not grow."""
    _is_growing: bool = True

    def add(self, table: pa.Table) -> None:
        """Look at the next rows."""
        if not self._is_growing or table.num_rows == 0:
            return
        values = table.column(self.names[0])
        comparable = pa.types.is_integer(values.type) or pa.types.is_string(values.type)
        first, last = values[0].as_py(), values[-1].as_py()
        grows = len(self.names) == 1 and comparable and (self.range is None or self.range[1] < first)
        if grows:
            grows = pc.all(pc.less(values.slice(0, len(values) - 1), values.slice(1)), min_count=0).as_py()
        self._is_growing = bool(grows)
        self.range = (self.range[0] if self.range else first, last) if grows else None


@dataclass(slots=True)
class _Work:
    """The state of one split being scored."""

    plan: Plan
    split: int
    run_id: str
    files: Mapping[str, Files]
    device: str
    timings: Timings = field(default_factory=Timings)
    rows_in: int = 0
    rows_quarantined: int = 0
    batch_rows: int = 0
    samples: list[pa.Table] = field(default_factory=list)
    keys: KeyOrder = field(init=False)
    name: str = field(init=False)
    """The plan's key, which is a hash over the whole plan: too much work for every batch."""

    def __post_init__(self) -> None:
        self.keys = KeyOrder(self.plan.deployment.input.keys)
        self.name = self.plan.key

    def run(self, rows: Iterator[RawRows]) -> tuple[Part | None, Part | None, Part | None]:
        """Score all rows; write the part and, when there are such rows, those of the quarantine and the input suite."""
        output, folder = self.plan.deployment.output, self.plan.folder
        own = f"{self.name}-{self.split:05d}.parquet"
        # Quarantined rows of a failed run are published too, so their file is the run's own.
        rejected = f"{folder}/{self.run_id}-{self.split:05d}.parquet"
        graph = compile_graph(self.plan.graph, self._predictor)
        with (
            keeping_quarantine(output.quarantine_path, rejected, limit=self._kept()) as quarantine,
            self._keeping_input(own) as kept,
            writing_part(output.path, f"{folder}/{own}", self.plan.schema) as writer,
            behind(partial(self._write, writer), depth=1) as write,
            closing(ahead(self._batches(rows, quarantine, kept), depth=READ_AHEAD)) as batches,
        ):
            for table in batches:
                for features in self._fitting(table):
                    write((features, self._predict(graph, features)))
        self.rows_quarantined = quarantine.rows
        return writer.part, quarantine.part, kept.part if kept else None

    def _keeping_input(self, own: str) -> AbstractContextManager[PartWriter | None]:
        """Keep what the input suite asks for of a query's rows, which cannot be read again."""
        if not self.plan.kept_input:
            return nullcontext()
        path = f"{self.plan.kept_input_folder}/{own}"
        return writing_part(self.plan.deployment.output.path, path, self.plan.kept_input_schema)

    def _kept(self) -> int:
        """Return how many quarantined rows are kept: all, as long as the run may succeed."""
        source, rows = self.plan.deployment.input, self.plan.partition.rows
        if rows is None:
            return sys.maxsize
        # One more, since the product may be rounded down while the share is still within its limit.
        allowed = math.floor(source.max_quarantined_share * rows) + 1
        return max(allowed, KEPT_OF_FAILED)

    def _batches(self, rows: Iterator[RawRows], quarantine: Quarantine, kept: PartWriter | None) -> Iterator[pa.Table]:
        """Yield batches of the plan's features, without the rows that break the contract. Runs ahead."""
        resources = self.plan.deployment.resources
        pending: list[pa.Table] = []
        start = time.perf_counter()
        for raw in rows:
            table = self._accepted(raw, quarantine)
            if kept is not None:
                kept.write(table.select(self.plan.kept_input))
            held = [*pending, table]
            is_full = sum(t.num_rows for t in held) > resources.batch_rows
            if pending and (is_full or sum(t.nbytes for t in held) > resources.batch_bytes):
                yield from self._joined(pending, start)
                pending, start = [], time.perf_counter()
            pending.append(table)
        yield from self._joined(pending, start)

    def _accepted(self, raw: RawRows, quarantine: Quarantine) -> pa.Table:
        contract, column = self.plan.contract, self.plan.partition.column
        table, reasons = contract.apply(raw.table)
        quarantine.add(raw.table, reasons, file=raw.source, first_row=raw.first_row)
        self.rows_in += raw.table.num_rows
        if column not in table.column_names:
            table = table.append_column(column, pa.repeat(self.plan.partition.value, table.num_rows))
        return table

    def _joined(self, tables: list[pa.Table], start: float) -> Iterator[pa.Table]:
        found = [table for table in tables if table.num_rows]
        joined = pa.concat_tables(found).combine_chunks() if len(found) > 1 else found[0] if found else None
        self.timings.read_s += time.perf_counter() - start
        if joined is not None:
            yield joined

    def _fitting(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the batch in pieces that fitted into memory before."""
        done = 0
        while done < table.num_rows:
            piece = table.slice(done, _fitting_rows.get(self.name, table.num_rows))
            yield piece
            done += piece.num_rows

    def _predict(self, graph: Step, table: pa.Table) -> pa.Table:
        """Return the output columns of a batch. Out of memory, the same rows are tried again as two batches."""
        start = time.perf_counter()
        try:
            output = self._output(table, graph.run(Batch(table)).table)
        except MemoryError as error:
            if table.num_rows == 1:
                raise ModelError(
                    f"one row of partition {self.plan.partition.value!r} does not fit into memory",
                    "memory for the models and one row",
                    str(error) or type(error).__name__,
                    "Give the Spark executors more memory, or let fewer tasks share one.",
                ) from error
        else:
            self.timings.predict_s += time.perf_counter() - start
            self.batch_rows = max(self.batch_rows, table.num_rows)
            return output
        half = _fitting_rows[self.name] = -(-table.num_rows // 2)
        return pa.concat_tables([self._predict(graph, table.slice(at, half)) for at in (0, half)])

    def _output(self, table: pa.Table, result: pa.Table) -> pa.Table:
        columns = []
        for wanted in self.plan.schema:
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

    def _write(self, writer: PartWriter, scored: tuple[pa.Table, pa.Table]) -> None:
        """Write the output rows of a batch and sample them. Runs behind."""
        start = time.perf_counter()
        features, output = scored
        writer.write(output)
        self.keys.add(output)
        written = time.perf_counter()
        self._sample(features, output)
        self.timings.write_s += written - start
        self.timings.sample_s += time.perf_counter() - written

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
            precision=step.precision,
            compile=step.compile,
            outputs=len(step.names),
        )
