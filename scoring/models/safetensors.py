"""PyTorch modules as a safetensors file of weights and the name of an installed class: our own MLflow flavor.

An artifact of it holds `model.safetensors` and, in `MLmodel`:

    flavors:
      safetensors:
        data: model.safetensors
        class: package.module:Class
        arguments: {hidden: 64}        # of the constructor, as JSON

The file holds numbers only, but it chooses which installed class is imported and called. So the package of the class
offers it by the entry-point group `scoring.modules`; any other class needs trust.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

from scoring.errors import ModelError, cause, listed
from scoring.models.base import Files, FrozenModel, LoadOptions
from scoring.models.torch import TorchPredictor, make_predictor
from scoring.models.trust import Finding, refused

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature
    from mlflow.models.model import ModelInfo

FLAVOR: Final = "safetensors"
FILE: Final = "model.safetensors"
ENTRY_POINTS: Final = "scoring.modules"
"""Installed packages name here the classes that artifacts may ask for."""


def log_model(
    module: torch.nn.Module,
    *,
    name: str,
    signature: ModelSignature,
    arguments: Mapping[str, Any] | None = None,
) -> ModelInfo:
    """Log a module's weights, its class's name and the constructor's arguments with the active MLflow run.

    Args:
        module: what was trained; its class can be imported by name.
        name: of the logged model.
        signature: with the columns' names, as every model needs it.
        arguments: with which the class makes a module that has the same tensors.

    Raises:
        ModelError: the class cannot be imported by name, or does not make such a module.
    """
    from mlflow.models import Model

    return Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        module=module,
        signature=signature,
        arguments=json.loads(json.dumps(dict(arguments or {}))),
    )


def save_model(
    *,
    path: str,
    mlflow_model: Model,
    module: torch.nn.Module,
    signature: ModelSignature,
    arguments: Mapping[str, Any],
) -> None:
    """Write the artifact; called by MLflow from within `log_model`."""
    kind, folder = type(module), Path(path)
    reference = f"{kind.__module__}:{kind.__qualname__}"
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in module.state_dict().items()}
    try:
        _construct(reference, arguments, label=repr(reference)).load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{reference!r} cannot be logged", "arguments with which it makes a module like the one given", cause(error)
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / FILE)
    mlflow_model.signature = signature
    mlflow_model.add_flavor(FLAVOR, **{"data": FILE, "class": reference, "arguments": dict(arguments)})
    mlflow_model.save(str(folder / "MLmodel"))


def load(model: FrozenModel, files: Files, options: LoadOptions) -> TorchPredictor:
    """Construct the class that the artifact names, if it may, and give it the weights.

    Raises:
        ModelError: the class is not offered by an installed package, is no module, or has other tensors.
    """
    reference = str(model.conf["class"])
    offered = sorted(point.value for point in entry_points(group=ENTRY_POINTS))
    if reference not in offered and not model.trusted:
        finding = Finding(
            f"one of {listed(offered)}" if offered else f"a class of the entry-point group {ENTRY_POINTS!r}",
            reference,
            f"Let its package offer it by the entry-point group {ENTRY_POINTS!r}.",
        )
        raise refused(model, "names a class that no installed package offers", finding)
    torch.set_num_threads(options.threads)
    module = _construct(reference, model.conf.get("arguments") or {}, label=model.label)
    module.load_state_dict(load_tensors(files[model.conf.get("data", FILE)]))
    module = module.to(torch.device(options.device)).eval()
    return make_predictor(model, module, module.state_dict().values(), options)


def _construct(reference: str, arguments: Mapping[str, Any], *, label: str) -> torch.nn.Module:
    name, _, qualified = reference.partition(":")
    try:
        found = getattr(import_module(name), qualified)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"the class of model {label} cannot be imported",
            f"an importable {reference}",
            str(error),
            "Install its package on the driver and on all executors; classes within functions have no such name.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ModelError(f"the class of model {label} cannot be used", "a torch.nn.Module", reference)
    return found(**arguments)
