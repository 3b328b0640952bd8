"""The outbox: a mail is composed once per run, kept with the run record, and leaves when the mail server takes it.

A run's tag `mail` is its only state: absent (nothing to tell, or not asked yet), `pending`, `sent`. A mail is sent
again only where a process ends between the server's acceptance and the tag; its Message-ID tells such a double.
"""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from enum import StrEnum
from typing import Any, Final, cast

from scoring import settings
from scoring.deployment import Deployment
from scoring.errors import listed
from scoring.notify.evidence import night_of
from scoring.notify.mail import POLICY, address, render
from scoring.notify.night import worth_telling
from scoring.notify.wording import one_line
from scoring.runs import BACKFILL, RunRecord, RunState, RunStore

MAIL: Final = "mail/message.eml"
_UNFINISHED: Final = frozenset({RunState.RUNNING, RunState.STAGED, RunState.CHECKED})
_ABOUT_ONE_MAIL: Final = (smtplib.SMTPSenderRefused, smtplib.SMTPDataError, smtplib.SMTPNotSupportedError)
"""Refusals of one mail, after which the server may well take the next."""
_FINAL_REPLY: Final = 500
"""SMTP replies from here on are final; below, the server asks to try again later."""

Refusals = Mapping[str, tuple[int, bytes]]
Transport = Callable[[EmailMessage], Refusals | None]
"""Gives one mail to a server and returns whom the server refused, as `smtplib.SMTP.send_message` does.

Raises `OSError` or `smtplib.SMTPException` when nobody got it. Has a timeout of its own.
"""


class _ServerDownError(Exception):
    """The mail server does not answer: it would not take the next mail either."""


class MailState(StrEnum):
    """How far the mail of a run has come."""

    PENDING = "pending"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a deployment's pending mails."""

    sent: tuple[str, ...]
    """Runs whose mail the server took."""
    kept: tuple[str, ...]
    """Runs whose mail waits for the next try."""
    reason: str = ""
    """What went wrong, in one sentence; empty if nothing did."""


def compose_for(
    deployment: Deployment, partition: str, dag_run_id: str | None = None, *, trigger: str, failure: str = ""
) -> bool:
    """Write the mail about a night that has come to its end, and return whether a mail waits to be delivered.

    Does nothing for backfills, for quiet good nights and for runs that already have a mail.

    Args:
        deployment: whose owner is told.
        partition: the night.
        dag_run_id: Airflow's run; None for a run started from the command line.
        trigger: manual, scheduled or backfill.
        failure: what the caller knows to have failed, in one sentence; recorded where the run could not do so itself.
    """
    if trigger == BACKFILL:
        return False
    store = RunStore()
    record = _ended(store, deployment.name, partition, dag_run_id, trigger=trigger, failure=one_line(failure))
    if record is None or record.state is RunState.SUPERSEDED:
        # The run that published the partition tells about it.
        return False
    if "mail" in record.tags:
        return record.tags["mail"] == MailState.PENDING
    night = night_of(deployment, record, store)
    if not worth_telling(night):
        return False
    message = render(night, sender=settings.mail_from(), date=datetime.now(UTC))
    store.put(record.run_id, MAIL, message.as_bytes())
    store.set_tags(record.run_id, {"mail": MailState.PENDING})
    return True


def deliver_pending(deployment: Deployment, transport: Transport) -> Delivery:
    """Give all pending mails of a deployment to `transport`, oldest first; what it does not take stays pending.

    A server that does not answer is asked once, not once per mail.
    """
    store = RunStore()
    sent: list[str] = []
    kept: list[str] = []
    reasons: list[str] = []
    is_server_up = True
    for found in reversed(store.find(deployment.name, mail=MailState.PENDING)):
        # Read again: the task of another night may have sent it since.
        record = store.get(found.run_id)
        if record.tags.get("mail") != MailState.PENDING:
            continue
        is_sent, reason = False, ""
        if is_server_up:
            try:
                is_sent, reason = _deliver(store, record, deployment, transport)
            except _ServerDownError as error:
                reason, is_server_up = str(error), False
        if reason:
            reasons.append(reason)
        (sent if is_sent else kept).append(record.run_id)
    return Delivery(tuple(sent), tuple(kept), listed(reasons))


def _ended(
    store: RunStore, deployment: str, partition: str, dag_run_id: str | None, *, trigger: str, failure: str
) -> RunRecord | None:
    """Return the record of the night's newest run, ended; None if there is nothing to tell about.

    Whoever tells about a night comes last: a run that has not ended by then died, and one without a record died early.
    """
    named = {"dag_run_id": dag_run_id} if dag_run_id else {}
    runs = store.find(deployment, partition=partition, dag_run_id=dag_run_id)
    record = next((run for run in runs if dag_run_id or not run.tags.get("dag_run_id")), None)
    must_have_ended = bool(dag_run_id or failure)
    if record is None:
        if not must_have_ended:
            return None
        run_id = store.start(deployment, partition, tags={"trigger": trigger, **named})
        return _failed(store, run_id, failure or _died(partition, "began"))
    if record.state in _UNFINISHED:
        if not must_have_ended:
            return None
        reached = f"got further than {record.state}"
        return _failed(store, record.run_id, record.tags.get("error") or failure or _died(partition, reached))
    if failure and not record.tags.get("error") and record.state is not RunState.SUPERSEDED:
        store.set_tags(record.run_id, {"error": failure})
        return store.get(record.run_id)
    return record


def _failed(store: RunStore, run_id: str, error: str) -> RunRecord:
    store.set_tags(run_id, {"error": error})
    store.set_state(run_id, RunState.FAILED)
    return store.get(run_id)


def _died(partition: str, reached: str) -> str:
    return (
        f"scoring {partition!r} ended without a word before it {reached}. "
        "Read the end of the task's log: memory, disk and a Spark that did not start are the usual reasons."
    )


def _deliver(store: RunStore, record: RunRecord, deployment: Deployment, transport: Transport) -> tuple[bool, str]:
    """Send one mail to those who have not got it yet; return whether that settles it, and what failed."""
    content = store.read(record.run_id, MAIL)
    if content is None:
        return False, f"run {record.run_id} has lost its artifact {MAIL}"
    message = cast("EmailMessage", message_from_bytes(content, policy=cast("Any", POLICY)))
    accepted: list[str] = json.loads(record.tags.get("mail_accepted", "[]"))
    # The addresses of today: correcting the deployment's owner mends mails that could not be delivered.
    waiting = [found for found in map(address, deployment.owner.email) if found.addr_spec not in accepted]
    refused: Refusals = {}
    if waiting:
        del message["To"]
        message["To"] = waiting
        try:
            refused = transport(message) or {}
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except _ABOUT_ONE_MAIL as error:
            return False, f"the mail server refused the mail of run {record.run_id}: {error}"
        except OSError as error:  # smtplib's errors are OSErrors, too
            raise _ServerDownError(f"the mail server took no mail: {str(error) or type(error).__name__}") from error
    accepted += [found.addr_spec for found in waiting if found.addr_spec not in refused]
    is_sent = bool(accepted) and all(code >= _FINAL_REPLY for code, _ in refused.values())
    state = MailState.SENT if is_sent else MailState.PENDING
    store.set_tags(record.run_id, {"mail": state, "mail_accepted": json.dumps(accepted)})
    replies = (f"{who} ({code} {reply.decode('utf-8', 'replace')})" for who, (code, reply) in refused.items())
    return is_sent, f"the mail of run {record.run_id} was refused by {listed(replies)}" if refused else ""
