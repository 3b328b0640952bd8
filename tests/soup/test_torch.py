"""Soups of exported programs, against averages and statistics that PyTorch itself computes on the modules."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from scoring.batch import Batch
from scoring.errors import ModelError
from scoring.models.base import Files, FrozenModel
from scoring.models.soup import torch as soup
from scoring.models.soup.weights import average, check_compatible
from tests.models.programs import exported

COLUMNS = 3
ROWS = np.random.default_rng(0).normal(size=(500, COLUMNS)).astype(np.float32)


class Net(nn.Module):
    """Scales features, then two layers, each with a BatchNorm."""

    def __init__(
        self, *, seed: int, units: int = 8, dropout: float = 0.1, mean: float = 0.5, slope: float = 0.0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.register_buffer("means", torch.full((COLUMNS,), mean))
        self.layers = nn.Sequential(
            nn.Linear(COLUMNS, units),
            nn.BatchNorm1d(units, momentum=dropout),
            nn.LeakyReLU(slope),
            nn.Dropout(dropout),
            nn.Linear(units, 6),
            nn.BatchNorm1d(6, affine=False),
            nn.Linear(6, 1),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layers(features - self.means)).squeeze(1)


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def program(module: nn.Module, version: int = 1) -> tuple[FrozenModel, Files]:
    frozen, files = exported(module.eval(), COLUMNS)
    return FrozenModel("net", version, frozen.digest, frozen.flavor, frozen.conf, frozen.inputs, 0), files


def batch() -> Batch:
    return Batch(pa.table({f"c{position}": ROWS[:, position] for position in range(COLUMNS)}))


def predicted(files: Files) -> torch.Tensor:
    return torch.export.load(io.BytesIO(files["data/model.pt2"])).module()(torch.from_numpy(ROWS)).detach()


def test_parameters_are_averaged_and_statistics_recomputed_as_pytorch_does() -> None:
    nets = [Net(seed=1, dropout=0.1), Net(seed=2, dropout=0.3), Net(seed=3, dropout=0.2)]
    programs = [program(net) for net in nets]
    weights = [soup.read(*found) for found in programs]
    check_compatible({f"v{number}": found for number, found in enumerate(weights)})
    mixed = average([found.averaged for found in weights], np.full(3, 1 / 3))
    made = soup.write(*programs[0], mixed, batch())

    native = torch.optim.swa_utils.AveragedModel(Net(seed=9))
    for net in nets:
        native.update_parameters(net)
    for layer in native.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0  # PyTorch would draw random numbers while it looks at statistics
    torch.optim.swa_utils.update_bn([torch.from_numpy(ROWS)], native)
    native.eval()

    found = soup.read(programs[0][0], made)
    expected = native.module.state_dict()
    assert set(found.averaged) == {name for name in expected if "num_batches" not in name and name != "means"}
    for name, tensor in found.averaged.items():
        np.testing.assert_allclose(tensor, expected[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    with torch.no_grad():
        torch.testing.assert_close(predicted(made), native(torch.from_numpy(ROWS)), rtol=1e-5, atol=1e-6)


def test_an_averaged_linear_model_predicts_the_mean_of_its_parents() -> None:
    nets = [nn.Sequential(nn.Linear(COLUMNS, 1), nn.Flatten(0)) for _ in range(2)]
    programs = [program(net) for net in nets]
    mixed = average([soup.read(*found).averaged for found in programs], [0.25, 0.75])
    made = soup.write(*programs[0], mixed, None)
    expected = 0.25 * predicted(programs[0][1]) + 0.75 * predicted(programs[1][1])
    torch.testing.assert_close(predicted(made), expected, rtol=1e-5, atol=1e-6)


def test_weights_written_as_they_were_predict_the_same() -> None:
    frozen, files = program(Net(seed=1))
    again = soup.write(frozen, files, soup.read(frozen, files).averaged, None)
    torch.testing.assert_close(predicted(again), predicted(files), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"units": 4}, r"tensor 'layers\.0\.weight' differs: expected float32 of shape \(8, 3\) .*\(4, 3\)"),
        ({"mean": 0.25}, r"'means', which prepares features and is not averaged, differs at \[0\]: expected 0\.5"),
        ({"slope": 0.5}, r"their computations differ in line \d+: expected '.*leaky_relu.* got '.*0\.5"),
    ],
)
def test_other_architectures_are_refused(changed: dict[str, Any], sentence: str) -> None:
    parents = {"v1": program(Net(seed=1)), "v2": program(Net(seed=2, **changed))}
    with pytest.raises(ModelError, match=sentence):
        check_compatible({label: soup.read(*found) for label, found in parents.items()})


def test_a_module_that_was_exported_in_training_mode_is_refused() -> None:
    frozen, files = exported(Net(seed=1).train(), COLUMNS)
    with pytest.raises(ModelError, match=r"has a BatchNorm whose statistics cannot be recomputed: .* in training mode"):
        soup.read(frozen, files)


def test_another_format_is_refused() -> None:
    frozen, _ = program(Net(seed=1))
    with pytest.raises(ModelError, match=r"cannot be averaged: expected a torch\.export file"):
        soup.read(frozen, {"data/model.pth": b""})
