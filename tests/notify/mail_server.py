# ruff: noqa: N802, ARG002 - names and arguments are aiosmtpd's
from __future__ import annotations

import smtplib
import socket
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

LOOPBACK = "127.0.0.1"


class MailServer:
    """A real SMTP server on loopback that can be stopped, started again on its port, and told whom to refuse."""

    def __init__(self) -> None:
        with socket.create_server((LOOPBACK, 0)) as free:
            self.port = free.getsockname()[1]
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refusals: dict[str, str] = {}
        self.answer_to_data = "250 taken"
        self.connections = 0
        self._controller: Controller | None = None

    def start(self) -> None:
        self._controller = Controller(self, hostname=LOOPBACK, port=self.port, enable_SMTPUTF8=False)
        self._controller.start()

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answer_to_data.startswith("250"):
            self.mails.append(message_from_bytes(envelope.original_content or b"", policy=default))
            self.recipients.append(list(envelope.rcpt_tos))
        return self.answer_to_data

    def send(self, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
        """The transport: what Airflow's hook does, with the standard library."""
        with smtplib.SMTP(LOOPBACK, self.port, timeout=20) as client:
            return client.send_message(message)
