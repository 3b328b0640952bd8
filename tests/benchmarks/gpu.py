"""The GPU lane beside bare loops on the same GPU, straight on the library: `python -m tests.benchmarks.gpu`.

Prints one JSON document. Needs NumPy, pandas, Arrow and PyTorch; what needs XGBoost, or the packages of a whole split
(pydantic, deltalake), is left out with a reason where they are missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.batch import Batch
from scoring.models.base import Files, FrozenModel, SignatureColumn, digest_of
from scoring.models.cache import PREDICTORS
from tests.benchmarks.machine import commit, cpu, installed_version

COLUMNS = 30
BATCH_ROWS = 131_072
DAY = "2024-01-01"
PACKAGES = ("torch", "xgboost", "cupy-cuda12x", "cupy-cuda13x", "numpy", "pyarrow", "pandas", "scikit-learn")
NETS = {"mlp": (128, 64), "deep": (2048, 2048, 2048)}
TREES = (100, 500)

Native = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]
"""The bare library: a matrix of shape (rows, columns) to predictions on the host."""


@dataclass(frozen=True)
class Model:
    """A model as our library loads it, and as its own library does."""

    name: str
    frozen: FrozenModel
    files: Files
    options: Mapping[str, Any]
    natives: Mapping[str, Native]
    """By name; the first is what ours is compared with."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rows", type=int, default=4_000_000, help="of the partition")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=4, help="of a task, as resources.cpus_per_task")
    parser.add_argument("--only", default="", help="models whose name contains this")
    arguments = parser.parse_args()
    results, left_out = [], []
    for group in (torch_models, xgboost_models):
        try:
            models = [m for m in group(arguments.device, arguments.threads) if arguments.only in m.name]
        except ImportError as error:
            left_out.append(f"{group.__name__}: {error}")
            continue
        for model in models:
            results += predictor_results(model, rounds=arguments.rounds)
            try:
                results += split_results(model, arguments)
            except ImportError as error:
                left_out.append(f"{model.name}, whole split: {error}")
            print(model.name, file=sys.stderr)
    print(json.dumps({**machine(arguments), "results": results, "left_out": left_out}, indent=1))


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the numbers depend on."""
    import torch

    is_cuda = arguments.device != "cpu"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m tests.benchmarks.gpu", *sys.argv[1:]]),
        "commit": commit(),
        "device": torch.cuda.get_device_name(arguments.device) if is_cuda else "cpu",
        "cuda": torch.version.cuda,
        "cpu": cpu(),
        "python": sys.version.split()[0],
        "versions": {name: found for name in PACKAGES if (found := installed_version(name))},
        "batch_rows": BATCH_ROWS,
        "columns": COLUMNS,
        "threads": arguments.threads,
    }


# ------------------------------------------------------------------------------------------------------------ models


def torch_models(device: str, threads: int) -> Iterator[Model]:
    """Yield nets in float32 and bfloat16, and one compiled."""
    import torch

    from tests.models.programs import exported, layers

    torch.set_num_threads(threads)
    variants: list[dict[str, Any]] = [{}, {"precision": "bfloat16"}, {"compile": True}]
    for name, units in NETS.items():
        for options in variants:
            net = layers(COLUMNS, *units)
            frozen, files = exported(net, COLUMNS, name=name)
            label = " ".join([f"torch {name}", *(str(value) for value in options.values() if value is not True)])
            label += " compiled" if options.get("compile") else ""
            given = {**options, "device": device, "threads": threads}
            yield Model(label, frozen, files, given, {"bare": _bare_torch(net.to(device), device, options)})


def _bare_torch(net: Any, device: str, options: Mapping[str, Any]) -> Native:
    import torch

    program = torch.compile(net, dynamic=True) if options.get("compile") else net
    is_narrow = options.get("precision") == "bfloat16"

    def predict(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_narrow):
            values: npt.NDArray[Any] = program(torch.from_numpy(matrix).to(device)).float().cpu().numpy()[:, 0]
        return values

    return predict


def xgboost_models(device: str, threads: int) -> Iterator[Model]:
    """Yield boosters of several sizes."""
    import xgboost

    rows = random_rows(20_000, seed=3).drop_columns("id").to_pandas()
    label = (rows["c0"] + rows["c1"] * rows["c2"] > 0).astype(float)
    inputs = tuple(SignatureColumn(name, "float", required=False) for name in rows.columns)
    for trees in TREES:
        parameters = {"objective": "binary:logistic", "max_depth": 6, "nthread": threads}
        booster = xgboost.train(parameters, xgboost.DMatrix(rows, label), trees)
        booster.set_param({"device": device})
        files = {"model.ubj": bytes(booster.save_raw("ubj"))}
        size = len(files["model.ubj"])
        frozen = FrozenModel(f"trees{trees}", 1, digest_of(files), "xgboost", {"data": "model.ubj"}, inputs, size)
        natives = _bare_xgboost(booster, device, threads)
        yield Model(f"xgboost {trees} trees", frozen, files, {"device": device, "threads": threads}, natives)


def _bare_xgboost(booster: Any, device: str, threads: int) -> dict[str, Native]:
    import xgboost

    def by_matrix(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        data = xgboost.DMatrix(matrix, nthread=threads)
        values: npt.NDArray[Any] = booster.predict(data, validate_features=False)
        return values

    def by_array(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = booster.inplace_predict(matrix, validate_features=False)
        return values

    if device == "cpu":
        return {"bare": by_array}
    try:
        import cupy
    except ImportError:
        return {"bare": by_matrix}

    def by_cupy(matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = cupy.asnumpy(booster.inplace_predict(cupy.asarray(matrix), validate_features=False))
        return values

    return {"bare": by_matrix, "bare, cupy": by_cupy}


# ------------------------------------------------------------------------------------------------------------- rows


def random_rows(rows: int, *, seed: int) -> pa.Table:
    """Return keys and features."""
    random = np.random.default_rng(seed)
    features = {f"c{position}": random.standard_normal(rows, dtype=np.float32) for position in range(COLUMNS)}
    return pa.table({"id": np.arange(rows), **features})


def stacked(rows: pa.Table | pa.RecordBatch, columns: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Return features as anybody would stack them."""
    return np.column_stack([rows.column(name).to_numpy() for name in columns])


# ---------------------------------------------------------------------------------------------------------- measuring


def predictor_results(model: Model, *, rounds: int) -> list[dict[str, Any]]:
    """Measure one model in memory: Arrow batches to predictions on the host, conversion included."""
    table = random_rows(8 * BATCH_ROWS, seed=1)
    batches = [table.slice(start, BATCH_ROWS).combine_chunks() for start in range(0, table.num_rows, BATCH_ROWS)]
    predictor = PREDICTORS.get(model.frozen, model.files, **model.options)

    def ours() -> npt.NDArray[Any]:
        return np.concatenate([predictor.predict(Batch(batch)) for batch in batches])

    def bare(native: Native) -> Callable[[], npt.NDArray[Any]]:
        return lambda: np.concatenate([native(stacked(batch, model.frozen.columns)) for batch in batches])

    ways = {name: bare(native) for name, native in model.natives.items()} | {"scoring": ours}
    difference = float(np.abs(ours() - ways["bare"]()).max())
    return report(f"{model.name}, predictor", ways, table.num_rows, rounds, largest_difference=difference)


def split_results(model: Model, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one split of a partition on disk: read, predict, write."""
    import pyarrow as pa

    from scoring.plan import make_plan
    from scoring.scorer import score_split
    from scoring.testing import write_deployment, write_partition

    with tempfile.TemporaryDirectory(prefix="scoring-gpu-") as name:
        folder = Path(name)
        write_partition(folder / "lake", "day", DAY, random_rows(arguments.rows, seed=2), row_group_rows=BATCH_ROWS * 4)
        step = {key: value for key, value in model.options.items() if key in ("precision", "compile")}
        deployment = write_deployment(
            folder / "gpu",
            input={"path": str(folder / "lake"), "partition": "day"},
            output={"path": str(folder / "out")},
            score={"model": "models:/bench/1", "device": "cpu" if arguments.device == "cpu" else "gpu", **step},
            resources={"cpus_per_task": arguments.threads, "split_bytes": 2**40},
        )
        plan, files = make_plan(deployment, DAY, registry=_Given(model))  # type: ignore[arg-type]
        (split,) = plan.splits

        def ours() -> None:
            result = score_split(plan, split, run_id="gpu", files=files, device=arguments.device)
            if (error := result.error()) is not None:
                raise error

        def bare(native: Native) -> Callable[[], None]:
            def loop() -> None:
                schema = pa.schema([("id", pa.int64()), ("score", pa.float64())])
                with pq.ParquetWriter(folder / "bare.parquet", schema, compression="zstd") as writer:
                    for file in sorted((folder / "lake" / f"day={DAY}").iterdir()):
                        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, use_threads=True):
                            scores = native(stacked(batch, model.frozen.columns)).astype(np.float64)
                            writer.write_batch(pa.record_batch([batch.column("id"), pa.array(scores)], schema=schema))

            return loop

        ways: dict[str, Callable[[], Any]] = {label: bare(native) for label, native in model.natives.items()}
        return report(f"{model.name}, split", {**ways, "scoring": ours}, arguments.rows, arguments.rounds)


@dataclass(frozen=True)
class _Given:
    """A registry of one model."""

    model: Model

    def freeze(self, deployment: Any) -> tuple[dict[str, FrozenModel], dict[str, Files]]:
        """Return the model whatever the deployment says."""
        models = {step.model: self.model.frozen for step in deployment.model_steps}
        return models, {self.model.frozen.digest: self.model.files}


def report(
    case: str, ways: Mapping[str, Callable[[], Any]], rows: int, rounds: int, **facts: Any
) -> list[dict[str, Any]]:
    """Run the ways in turn, after one round that is not counted, and compare their medians with the bare loop's."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[way].append(round(time.perf_counter() - start, 4))
    bare = statistics.median(seconds["bare"])
    return [
        {
            "case": case,
            "way": way,
            "seconds": found,
            "median_s": statistics.median(found),
            "rows_per_s": round(rows / statistics.median(found)),
            "speed_of_bare": round(bare / statistics.median(found), 3),
            **facts,
        }
        for way, found in seconds.items()
    ]


if __name__ == "__main__":
    main()
