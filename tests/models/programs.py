"""Small PyTorch programs as `torch.export` files, without a registry."""

from __future__ import annotations

import io

import torch

from scoring.models.base import Files, FrozenModel, SignatureColumn, digest_of


def layers(columns: int, *units: int) -> torch.nn.Module:
    """Return layers with random weights, the same whenever they are asked for, that end in one probability."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        found: list[torch.nn.Module] = []
        for before, after in zip((columns, *units), units, strict=False):
            found += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        last = units[-1] if units else columns
        return torch.nn.Sequential(*found, torch.nn.Linear(last, 1), torch.nn.Sigmoid()).eval()


def exported(module: torch.nn.Module, columns: int, *, name: str = "net") -> tuple[FrozenModel, Files]:
    """Return a module as the registry would freeze it; its features are `c0`, `c1` and so on."""
    rows = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.zeros(5, columns),), dynamic_shapes=({0: rows},))
    content = io.BytesIO()
    torch.export.save(program, content)
    files = {"data/model.pt2": content.getvalue()}
    inputs = tuple(SignatureColumn(f"c{position}", "float", required=False) for position in range(columns))
    size = sum(map(len, files.values()))
    return FrozenModel(name, 1, digest_of(files), "pytorch", {"model_data": "data"}, inputs, size), files
