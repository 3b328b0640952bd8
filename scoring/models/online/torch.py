"""PyTorch: steps of gradient descent on an exported program, whose layers stay in evaluation mode."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from scoring.deployment import Online
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.online.update import Rows
from scoring.models.torch_audit import audited

STEP_ROWS: Final = 256
"""Rows of one step."""
MARGIN: Final = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one sure mistake does not make the loss infinite."""


def update(model: FrozenModel, files: Files, rows: Rows, online: Online) -> Mapping[str, bytes]:
    """Descend on the log loss of rows, `online.passes` times, in an order that the seed decides."""
    path = f"{model.conf.get('model_data', 'data')}/model.pt2"
    if path not in files:
        raise ModelError(f"model {model.label} cannot learn online", "a torch.export file (.pt2)", "another format")
    threads = torch.get_num_threads()
    # One thread: sums of several would end in other bits.
    torch.set_num_threads(1)
    try:
        program = torch.export.load(audited(files[path], model=model))
        module = program.module()
        parameters = [parameter.requires_grad_() for parameter in module.parameters()]
        if not parameters:
            raise ModelError(f"model {model.label} cannot learn online", "parameters", "none")
        optimizer = torch.optim.SGD(parameters, lr=online.learning_rate)
        features = torch.from_numpy(rows.batch.matrix(model.columns))
        labels = torch.from_numpy(rows.labels.astype(np.float32))
        random = torch.Generator().manual_seed(rows.seed)
        for _ in range(online.passes):
            for chosen in torch.randperm(len(labels), generator=random).split(STEP_ROWS):
                optimizer.zero_grad()
                scores = module(features[chosen]).reshape(-1).clamp(MARGIN, 1 - MARGIN)
                torch.nn.functional.binary_cross_entropy(scores, labels[chosen]).backward()
                optimizer.step()
        for name, tensor in module.state_dict().items():
            program.state_dict[name].data.copy_(tensor.detach())
        target = io.BytesIO()
        torch.export.save(program, target)
    finally:
        torch.set_num_threads(threads)
    return {path: target.getvalue()}
