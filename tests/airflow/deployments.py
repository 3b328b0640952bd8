"""Small deployments for tests of the Airflow side: nothing of them is ever scored for real."""

from __future__ import annotations

from pathlib import Path

LABELS = "labels: {path: /nowhere/labels, column: is_late}"
DRIFT = "drift: {reference: {first: 2013-01-01, last: 2013-03-31}, " + LABELS + "}"
RETRAIN = 'retrain: {train: "train:train", approval: %s}'


def write(
    folder: Path,
    name: str,
    *,
    schedule: str | None = "0 3 * * *",
    lag_days: int = 1,
    drift: bool = True,
    retrain: bool = True,
    approval: bool = False,
    team: str = "Flight data",
) -> Path:
    """Write a valid deployment and return its file."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    lines = [
        f"name: {name}",
        f"owner: {{team: {team!r}, email: [owner@example.com]}}",
        *([f'schedule: "{schedule}"'] if schedule else []),
        f"input: {{path: /nowhere/lake, partition: night, keys: [id], lag_days: {lag_days}}}",
        "output: {path: /nowhere/predictions}",
        'score: {model: "models:/delay@champion"}',
        *([DRIFT] if drift else []),
        *([RETRAIN % str(approval).lower()] if retrain else []),
    ]
    file = home / "deployment.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (home / "train.py").write_text("def train():\n    pass\n", encoding="utf-8")
    return file
