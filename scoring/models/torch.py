"""PyTorch models stored by `torch.export`: a graph and tensors, audited before PyTorch opens the file.

TorchScript and pickled modules are loaded where the deployment trusts the files.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scoring.batch import Batch
from scoring.errors import ModelError, cause
from scoring.models.base import BFLOAT16, FLOAT32, Files, FrozenModel, LoadOptions, expected_columns
from scoring.models.memory import is_out_of_memory
from scoring.models.torch_audit import audited
from scoring.models.torch_lane import HostLane, Lane, StagedLane
from scoring.models.trust import EXPORTED_PROGRAM, TORCH_FILE, is_torchscript


@dataclass(frozen=True, slots=True)
class TorchPredictor:
    """A program that maps a float32 matrix of shape (rows, columns) to one number, or a row of numbers, per row."""

    model: FrozenModel
    module: Callable[[torch.Tensor], torch.Tensor]
    lane: Lane
    device: str
    precision: str
    threads: int
    outputs: int
    size_bytes: int

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Run the program on the shared feature matrix."""
        return self.run(torch.from_numpy(batch.matrix(self.model.columns)))

    def run(self, features: torch.Tensor) -> npt.NDArray[np.float64]:
        """Run the program on a float32 matrix of the host."""
        # PyTorch counts threads per calling thread, and another model may have set another number.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with torch.inference_mode(), _computing(torch.device(self.device), self.precision):
            values: npt.NDArray[np.float64] = self.lane.run(self.module, features).numpy()
        return expected_columns(self.model, values, self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> TorchPredictor:
    """Load an exported program after an audit, or, of a trusted model, TorchScript or a pickled module."""
    folder, device = model.conf.get("model_data", "data"), torch.device(options.device)
    torch.set_num_threads(options.threads)
    if f"{folder}/{EXPORTED_PROGRAM}" in files:
        content = files[f"{folder}/{EXPORTED_PROGRAM}"]
        program = torch.export.load(io.BytesIO(content) if model.trusted else audited(content, model=model))
        if device.type == "cuda":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return make_predictor(
            model, program.module(), [*program.state_dict.values(), *program.constants.values()], options
        )
    content = files[f"{folder}/{TORCH_FILE}"]
    if is_torchscript(content):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's, of TorchScript itself
            module = torch.jit.load(io.BytesIO(content), map_location=device)
    else:
        module = torch.load(io.BytesIO(content), map_location=device, weights_only=False)
    return make_predictor(model, module.eval(), module.state_dict().values(), options)


def make_predictor(
    model: FrozenModel,
    module: Callable[[torch.Tensor], torch.Tensor],
    tensors: Iterable[object],
    options: LoadOptions,
) -> TorchPredictor:
    """Return a predictor that runs a module, which lies on its device already, as the options say.

    Args:
        model: what was frozen.
        module: maps a float32 matrix to one number, or a row of numbers, for each row.
        tensors: its weights.
        options: of the step.

    Raises:
        ModelError: the module does not run with these options.
    """
    device = torch.device(options.device)
    predictor = TorchPredictor(
        model,
        # Sizes stay symbols: a batch of another size must not compile the module anew.
        torch.compile(module, dynamic=True, options={"compile_threads": 1}) if options.compile else module,
        StagedLane.for_columns(len(model.columns), device) if device.type == "cuda" else HostLane(options.threads),
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        outputs=options.outputs,
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
