"""Weights of exported PyTorch programs. BatchNorm's statistics are recomputed by running the program's own graph."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy.typing as npt
import torch  # noqa: TID253 - the soup's part of the flavor's module torch.py

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.soup.weights import Tensors, Weights
from scoring.models.torch_audit import audited

_BATCH_NORM: Final = torch.ops.aten.batch_norm.default
_DROPOUT: Final = torch.ops.aten.dropout.default
_MEAN, _VARIANCE, _IS_TRAINING, _MOMENTUM, _EPSILON = 3, 4, 5, 6, 7
"""Positions among the arguments of `_BATCH_NORM`."""


def read(model: FrozenModel, files: Files) -> Weights:
    """Return parameters as averaged, and the buffers and constants that the graph reads as fixed."""
    program, _ = _program(model, files)
    module = program.module()
    norms = list(_batch_norms(module.graph, model))
    statistics = {node.args[place].target for node in norms for place in (_MEAN, _VARIANCE)}
    read_ones = {node.target for node in module.graph.nodes if node.op == "get_attr" and node.users}
    parameters = dict(module.named_parameters())
    averaged = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and (name in parameters or name in statistics)
    }
    others = {**dict(module.named_buffers()), **parameters, **_constants(program)}
    fixed = {name: tensor for name, tensor in others.items() if name in read_ones and name not in averaged}
    kinds = [f"{name}: {tensor.dtype}" for name, tensor in (averaged | fixed).items()]
    return Weights(
        {name: _array(tensor) for name, tensor in averaged.items()},
        {name: _array(tensor) for name, tensor in fixed.items()},
        frozenset(statistics),
        (*kinds, *(_line(node) for node in module.graph.nodes if node.op != "get_attr" or node.users)),
    )


def write(model: FrozenModel, files: Files, tensors: Tensors, rows: Batch | None) -> Files:
    """Return the artifact with other weights in its program."""
    program, path = _program(model, files)
    _assign(program, {name: torch.from_numpy(array) for name, array in tensors.items()})
    if rows is not None:
        module = program.module()
        with torch.no_grad():
            _Recomputing(module).run(torch.from_numpy(rows.matrix(model.columns)))
        buffers = dict(module.named_buffers())
        _assign(program, {name: tensor for name, tensor in buffers.items() if name in program.state_dict})
    content = io.BytesIO()
    torch.export.save(program, content)
    return {**files, path: content.getvalue()}


def _program(model: FrozenModel, files: Files) -> tuple[torch.export.ExportedProgram, str]:
    """Return the exported program in an artifact, audited before it is opened, and the path of its file."""
    path = f"{model.conf.get('model_data', 'data')}/model.pt2"
    if path not in files:
        raise ModelError(
            f"the weights of model {model.label} cannot be averaged",
            "a torch.export file (.pt2)",
            "another format",
            "Log it with mlflow.pytorch.log_model(..., serialization_format='pt2').",
        )
    return torch.export.load(audited(files[path], model=model)), path


class _Recomputing(torch.fx.Interpreter):  # type: ignore[misc]
    """Runs a graph in which each BatchNorm normalises by the rows that reach it, and remembers their statistics.

    As in training, so that a layer's statistics are those of rows that the layers before it have normalised anew.
    Dropout stays off: it is off in the graph.
    """

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.target is not _BATCH_NORM:
            return super().run_node(n)
        arguments, _ = self.fetch_args_kwargs_from_env(n)
        values, weight, bias, mean, variance = arguments[:_IS_TRAINING]
        return torch.nn.functional.batch_norm(
            values, mean, variance, weight, bias, training=True, momentum=1.0, eps=arguments[_EPSILON]
        )


def _batch_norms(graph: torch.fx.Graph, model: FrozenModel) -> Iterator[torch.fx.Node]:
    for node in graph.nodes:
        if node.op == "call_function" and "batch_norm" in str(node.target):
            if node.target is not _BATCH_NORM or node.args[_IS_TRAINING]:
                raise ModelError(
                    f"model {model.label} has a BatchNorm whose statistics cannot be recomputed",
                    f"{_BATCH_NORM} of a module in evaluation mode",
                    f"{node.target}{' in training mode' * (node.target is _BATCH_NORM)}",
                    "Call module.eval() before it is exported, and export without decompositions.",
                )
            if node.args[_MEAN] is not None:  # without running statistics each batch has its own
                yield node


def _line(node: torch.fx.Node) -> str:
    """Return a node as text, without what has no effect on predictions."""
    arguments = list(node.args)
    if node.target is _DROPOUT and not arguments[2]:
        arguments[1] = 0.0
    elif node.target is _BATCH_NORM:
        arguments[_MOMENTUM] = 0.0
    return f"{node.name} = {node.target}({', '.join(map(str, arguments))}, {dict(node.kwargs)})"


def _constants(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    return {name: value for name, value in program.constants.items() if isinstance(value, torch.Tensor)}


def _assign(program: torch.export.ExportedProgram, tensors: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            program.state_dict[name].copy_(tensor)


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array; bfloat16, which NumPy lacks, as float32."""
    values = tensor.detach().to(torch.float32 if tensor.dtype is torch.bfloat16 else tensor.dtype)
    array: npt.NDArray[Any] = values.numpy().copy()
    return array
