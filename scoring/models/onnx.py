"""ONNX models on onnxruntime: a graph of operators and numbers, run by its CPU or its CUDA provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
import onnxruntime

from scoring.batch import Batch
from scoring.errors import ModelError, listed
from scoring.models.base import (
    CPU,
    Files,
    FrozenModel,
    LoadOptions,
    class_probabilities,
    expected_columns,
    not_binary,
)
from scoring.models.flavors import memory_bytes
from scoring.models.folder import unpacked
from scoring.models.tensors import TEXT, Feed, TensorInput

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(string)": TEXT,
}
"""Input types of onnxruntime that features can have."""
_FLOATS: Final = ("tensor(float)", "tensor(double)", "tensor(float16)")
_CUDA_PROVIDER: Final = "CUDAExecutionProvider"
_CPU_PROVIDER: Final = "CPUExecutionProvider"
_ONLY_ERRORS: Final = 3
"""Of onnxruntime's log: it warns of each operator that stays on the CPU."""


@dataclass(frozen=True, slots=True)
class OnnxPredictor:
    """A session that computes one output for a batch."""

    model: FrozenModel
    session: Any
    feed: Feed
    output: str
    has_probabilities: bool
    outputs: int
    device: str
    size_bytes: int

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Run the graph; NaN is whatever the graph makes of it."""
        (values,) = self.session.run([self.output], self.feed.tensors(batch))
        choose = class_probabilities if self.has_probabilities else expected_columns
        return choose(self.model, values, self.outputs)


def load(model: FrozenModel, files: Files, options: LoadOptions) -> OnnxPredictor:
    """Open a session on a file; what the artifact says of providers and sessions is not followed.

    onnxruntime reads external tensors from below the file's folder only, which holds the artifact and nothing else.

    Raises:
        ModelError: inputs or outputs that cannot be used, or no provider for the device.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
    settings.use_deterministic_compute = True
    settings.log_severity_level = _ONLY_ERRORS
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # tasks share the processors
    with unpacked(files) as folder:
        path = str(folder / model.conf.get("data", "model.onnx"))
        session = onnxruntime.InferenceSession(path, settings, providers=_providers(model, options.device))
    inputs = [
        TensorInput(tensor.name, _DTYPES.get(tensor.type, tensor.type), len(tensor.shape))
        for tensor in session.get_inputs()
    ]
    output, has_probabilities = _output(model, session.get_outputs(), options)
    return OnnxPredictor(
        model,
        session,
        Feed.of(model, inputs),
        output,
        has_probabilities,
        options.outputs,
        device=options.device,
        size_bytes=memory_bytes(model),
    )


def _providers(model: FrozenModel, device: str) -> list[Any]:
    if device == CPU:
        return [_CPU_PROVIDER]
    available = onnxruntime.get_available_providers()
    if _CUDA_PROVIDER not in available:
        raise ModelError(
            f"model {model.label} cannot run on {device}",
            f"an onnxruntime with {_CUDA_PROVIDER}",
            listed(available),
            "pip install onnxruntime-gpu instead of onnxruntime on the GPU executors, or remove 'device: gpu'.",
        )
    return [(_CUDA_PROVIDER, {"device_id": int(device.partition(":")[2])}), _CPU_PROVIDER]


def _output(model: FrozenModel, outputs: Sequence[Any], options: LoadOptions) -> tuple[str, bool]:
    """Return the output to compute and whether it is class probabilities.

    A converted classifier has two outputs: labels, then probabilities. Any other program has one.
    """
    is_classifier = len(outputs) == 2 and outputs[0].type not in _FLOATS and outputs[1].type in _FLOATS
    if not is_classifier:
        if len(outputs) != 1 or not outputs[0].type.startswith("tensor("):
            raise ModelError(
                f"model {model.label} has outputs that cannot be used",
                "one tensor, or labels and a tensor of probabilities",
                listed(f"{tensor.name}: {tensor.type}" for tensor in outputs),
                "Convert a classifier with options={'zipmap': False}.",
            )
        if options.method == "predict_proba":
            raise not_binary(model)
        return outputs[0].name, False
    label, probabilities = outputs
    is_binary = len(probabilities.shape) == 2 and probabilities.shape[1] == 2
    wants_probabilities = is_binary or options.outputs > 1
    if options.method == "predict_proba" or (options.method == "auto" and wants_probabilities):
        return probabilities.name, True
    return label.name, False
