"""The embedded stack's own keys and password: made once, kept under `$SCORING_HOME`, readable by its owner only."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FORMAT_VERSION: Final = 1
USERNAME: Final = "admin"


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What Airflow's processes share, and the password people log in with."""

    api_secret_key: str
    jwt_secret: str
    fernet_key: str
    password: str


def load(folder: Path) -> Secrets:
    """Return the secrets kept in `folder`; makes them, and Airflow's password file, the first time."""
    file = folder / "secrets.json"
    if file.exists():
        document = json.loads(file.read_text(encoding="utf-8"))
        document.pop("format_version")
        return Secrets(**document)
    made = Secrets(
        api_secret_key=secrets.token_urlsafe(64),
        jwt_secret=secrets.token_urlsafe(64),
        fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii"),
        password=secrets.token_urlsafe(12),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(passwords_file(folder), {USERNAME: made.password})
    _write(file, {"format_version": FORMAT_VERSION, **asdict(made)})
    return made


def passwords_file(folder: Path) -> Path:
    """Return the file in which Airflow's simple auth manager looks the password up."""
    return folder / "passwords.json"


def _write(file: Path, document: dict[str, object]) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(document, opened)
