"""What a worker tells the driver of one split, and how it is kept until the run is staged.

A split is done when its result is kept: the part file was complete before. So a run that was killed and is started
again finds what it has, and scores the rest.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pyarrow as pa
from pyarrow import fs

from scoring import errors
from scoring.data.parts import Part, absent_parts, discard_files, writing_file
from scoring.data.storage import open_storage, storage_errors
from scoring.errors import ScoringError

FOLDER: Final = "_staged"
"""Below the output table; readers of Delta tables ignore it."""
SUFFIX: Final = ".result"
FORMAT_VERSION: Final = 1


@dataclass(slots=True)
class Timings:
    """Seconds that a split took; reading, predicting and writing overlap."""

    wall_s: float = 0.0
    read_s: float = 0.0
    """Reading, decoding and the input contract."""
    predict_s: float = 0.0
    """The graph, without loading models."""
    write_s: float = 0.0
    sample_s: float = 0.0
    load_s: float = 0.0
    """Loading models."""


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
    kept_input: Part | None = None
    """Rows of a query that keep the contract, for the input suite."""
    key_range: tuple[Any, Any] | None = None
    """First and last key, if there is one key column (integers or text) and each key is larger than the one before."""
    sample: bytes = b""
    """Sampled rows (features and outputs) as an Arrow IPC stream; empty if none."""
    timings: Timings = field(default_factory=Timings)
    model_loads: int = 0
    batch_rows: int = 0
    """Rows of the largest batch."""
    peak_rss_mb: float = 0.0
    """Largest resident size of the worker process so far, in MiB."""
    device: str = "cpu"
    worker: str = ""
    """Host and process that scored the split."""
    failure: tuple[str, tuple[str, ...]] | None = None
    """Class name and arguments of the `ScoringError` that stopped the split."""
    failed_member: str = ""
    """Path of the ensemble's member that failed, if the run can do without it."""

    @staticmethod
    def failed(
        split: int, error: ScoringError, *, rows_in: int = 0, device: str = "cpu", member: str = ""
    ) -> SplitResult:
        """Return the record of a split that `error` stopped."""
        failure = (type(error).__name__, error.args)
        return SplitResult(split, rows_in, device=device, failure=failure, failed_member=member)

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

    def to_bytes(self) -> bytes:
        """Return the result as bytes: a line of JSON, then the sample."""
        document = {"format_version": FORMAT_VERSION, **asdict(self)}
        del document["sample"]
        return json.dumps(document).encode() + b"\n" + self.sample

    @staticmethod
    def from_bytes(content: bytes) -> SplitResult:
        """Return the result that `to_bytes` made."""
        line, _, sample = content.partition(b"\n")
        document = json.loads(line)
        del document["format_version"]
        for name in ("part", "quarantined", "kept_input"):
            document[name] = Part.from_json(document[name]) if document[name] else None
        document["timings"] = Timings(**document["timings"])
        document["key_range"] = tuple(document["key_range"]) if document["key_range"] else None
        if document["failure"]:
            name, arguments = document["failure"]
            document["failure"] = (name, tuple(arguments))
        return SplitResult(**document, sample=sample)


def stream_of(samples: Sequence[pa.Table]) -> bytes:
    """Return tables of one schema as an Arrow IPC stream; empty if there are none."""
    if not samples:
        return b""
    sink = io.BytesIO()
    table = pa.concat_tables(samples)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def read_sample(results: Sequence[SplitResult]) -> pa.Table | None:
    """Return the sampled rows of all splits, in order of the splits; None if there are none."""
    streams = [result.sample for result in sorted(results, key=lambda r: r.split) if result.sample]
    return pa.concat_tables(pa.ipc.open_stream(s).read_all() for s in streams) if streams else None


def keep_result(root: str, key: str, result: SplitResult) -> None:
    """Keep the result of a split whose part is complete. Runs on a Spark executor.

    Args:
        root: path or URL of the output table.
        key: of the plan.
        result: a second attempt at the same split replaces it by an equal one.

    Raises:
        StorageError: disk full, store away.
    """
    with writing_file(root, f"{FOLDER}/{key}-{result.split:05d}{SUFFIX}") as stream:
        stream.write(result.to_bytes())


def kept_results(root: str, key: str) -> list[SplitResult]:
    """Return the kept results whose parts still exist, in order of the splits. Runs on the driver.

    Raises:
        StorageError: the store does not answer.
    """
    filesystem, base = open_storage(root)
    with storage_errors(root):
        found = filesystem.get_file_info(fs.FileSelector(f"{base}/{FOLDER}", allow_not_found=True))
        results = []
        for info in found:
            if info.base_name.startswith(f"{key}-") and info.base_name.endswith(SUFFIX):
                with filesystem.open_input_stream(info.path) as stream:
                    results.append(SplitResult.from_bytes(stream.read()))
    gone = set(absent_parts(root, [result.part for result in results if result.part]))
    return sorted((r for r in results if r.part and r.part.path not in gone), key=lambda r: r.split)


def forget_results(root: str, key: str) -> None:
    """Delete the kept results of a plan: it is staged, or can never be."""
    discard_files(root, FOLDER, f"{key}-")
