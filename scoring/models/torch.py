"""PyTorch models stored by `torch.export`: a graph and tensors, audited before PyTorch opens the file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.torch_audit import audited


@dataclass(frozen=True, slots=True)
class TorchPredictor:
    """An exported program that maps a float32 matrix of shape (rows, columns) to one number per row."""

    module: torch.nn.Module
    columns: tuple[str, ...]
    device: torch.device

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Run the program on the shared feature matrix."""
        with torch.inference_mode():
            features = torch.from_numpy(batch.matrix(self.columns)).to(self.device)
            values: npt.NDArray[Any] = self.module(features).to("cpu", torch.float64).numpy()
        return np.reshape(values, -1) if values.shape == (batch.rows, 1) else values


def load(model: FrozenModel, files: Files, *, method: str, device: str, threads: int) -> TorchPredictor:
    """Load `data/model.pt2`; any other format is refused, because opening it can run code."""
    path = f"{model.conf.get('model_data', 'data')}/model.pt2"
    if path not in files:
        raise ModelError(
            f"model {model.label} is stored in a format that can run code",
            "a torch.export file (.pt2)",
            "a pickled module",
            "Log it with mlflow.pytorch.log_model(..., input_example=...), which exports it.",
        )
    content = audited(files[path], label=model.label)
    torch.set_num_threads(threads)
    program = torch.export.load(io.BytesIO(content))
    target = torch.device(device)
    if target.type == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, target)
    return TorchPredictor(program.module(), model.columns, target)
