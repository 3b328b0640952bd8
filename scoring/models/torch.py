"""PyTorch models stored by `torch.export`: a graph and tensors, audited before PyTorch opens the file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scoring.batch import Batch
from scoring.errors import ModelError, cause
from scoring.models.base import BFLOAT16, FLOAT32, Files, FrozenModel, LoadOptions
from scoring.models.memory import is_out_of_memory
from scoring.models.torch_audit import audited
from scoring.models.torch_lane import HostLane, Lane, StagedLane


@dataclass(frozen=True, slots=True)
class TorchPredictor:
    """An exported program that maps a float32 matrix of shape (rows, columns) to one number per row."""

    module: Callable[[torch.Tensor], torch.Tensor]
    columns: tuple[str, ...]
    lane: Lane
    device: str
    precision: str
    threads: int
    size_bytes: int

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Run the program on the shared feature matrix."""
        return self.run(torch.from_numpy(batch.matrix(self.columns)))

    def run(self, features: torch.Tensor) -> npt.NDArray[np.float64]:
        """Run the program on a float32 matrix of the host."""
        # PyTorch counts threads per calling thread, and another model may have set another number.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with torch.inference_mode(), _computing(torch.device(self.device), self.precision):
            values: npt.NDArray[np.float64] = self.lane.run(self.module, features).numpy()
        return np.reshape(values, -1) if values.shape == (len(features), 1) else values


def load(model: FrozenModel, files: Files, options: LoadOptions) -> TorchPredictor:
    """Load `data/model.pt2`; any other format is refused, because opening it can run code."""
    path = f"{model.conf.get('model_data', 'data')}/model.pt2"
    if path not in files:
        raise ModelError(
            f"model {model.label} is stored in a format that can run code",
            "a torch.export file (.pt2)",
            "a pickled module",
            "Log it with mlflow.pytorch.log_model(..., input_example=...), which exports it.",
        )
    torch.set_num_threads(options.threads)
    program = torch.export.load(audited(files[path], label=model.label))
    device = torch.device(options.device)
    if device.type == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    tensors = [*program.state_dict.values(), *program.constants.values()]
    predictor = TorchPredictor(
        # Sizes stay symbols: a batch of another size must not compile the module anew.
        torch.compile(program.module(), dynamic=True, options={"compile_threads": 1})
        if options.compile
        else program.module(),
        model.columns,
        StagedLane.for_columns(len(model.columns), device) if device.type == "cuda" else HostLane(options.threads),
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        size_bytes=sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor)),
    )
    if options.compile or options.precision != FLOAT32:
        _try_out(predictor, model, options)
    return predictor


def _computing(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a program computes.

    Autocast, because it leaves the features and what a program does to prepare them in float32: converted to bfloat16
    as a whole, a program would see the features with 8 significant bits.
    """
    if precision == BFLOAT16:
        context: AbstractContextManager[None] = torch.autocast(device.type, dtype=torch.bfloat16)
        return context
    return nullcontext()


def _try_out(predictor: TorchPredictor, model: FrozenModel, options: LoadOptions) -> None:
    """Compile now, and find out now what cannot be compiled or does not compute in bfloat16."""
    try:
        predictor.run(torch.zeros(2, len(model.columns)))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"model {model.label} does not run with precision: {options.precision}, "
            f"compile: {str(options.compile).lower()} on {options.device}",
            "a program whose operators all can",
            cause(error),
            "Remove 'compile' and 'precision' from the model step; compiling for the CPU needs a C++ compiler.",
        ) from error
