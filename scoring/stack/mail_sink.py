"""An SMTP server that keeps every mail as a file and sends none on: `python -m scoring.stack.mail_sink PORT FOLDER`."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from scoring.stack.ports import LOOPBACK


class Keeper:
    """Writes each mail it is handed to `<time>-<n>.eml`, complete or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802, ARG002 - aiosmtpd's name
        """Keep one mail."""
        self._count += 1
        file = self._folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{self._count:04}.eml"
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(envelope.original_content or b"")
        unfinished.rename(file)
        return "250 kept"


def serve(port: int, folder: Path) -> None:
    """Keep mails until the process is stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    controller = Controller(Keeper(folder), hostname=LOOPBACK, port=port)
    controller.start()
    threading.Event().wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
