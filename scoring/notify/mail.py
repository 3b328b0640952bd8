"""A night becomes a mail: text, HTML and an inline picture. Pure: the same facts and time give the same mail."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from functools import cache
from typing import Any, Final, cast

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from scoring.errors import MAX_ITEMS, ConfigurationError
from scoring.notify.night import Night, Occasion, occasions
from scoring.notify.story import story
from scoring.notify.wording import MAX_SUBJECT_CHARS, facts, one_line, percent, printable, subject

TEXT_WIDTH: Final = 76
"""Columns of the text version: mail clients quote it without breaking lines."""
CHART_ID: Final = "drift-chart"
POLICY: Final = SMTP.clone(max_line_length=len("Subject: ") + MAX_SUBJECT_CHARS)
"""For writing and reading mails: a subject is never folded, since `email` reads a folded one with a blank before it."""
_URGENT: Final = frozenset({Occasion.FAILED, Occasion.HELD_BACK})
_COMMAND: Final = re.compile("`([^`]+)`")
_GLUE: Final = "\N{NO-BREAK SPACE}"
_RED: Final = "#b3261e"
_AMBER: Final = "#8a5a00"


def render(night: Night, *, sender: str, date: datetime) -> EmailMessage:
    """Return the mail about a night that is worth telling; `date` is when it was written, with its time zone."""
    night = printable(night)
    message = EmailMessage(policy=SMTP)
    message["Subject"] = subject(night)
    message["From"] = address(sender)
    message["To"] = [address(recipient) for recipient in night.recipients]
    message["Date"] = date
    # The same for every try to send it, so that a mail that arrives twice is recognised as one.
    message["Message-ID"] = f"<{night.run_id}@{address(sender).domain}>"
    message["Auto-Submitted"] = "auto-generated"
    view = _view(night)
    message.set_content(_filled("mail.txt", view), cte="quoted-printable")
    message.add_alternative(_filled("mail.html", view), subtype="html", cte="quoted-printable")
    if night.chart is not None:
        # related belongs to the HTML alone: readers of the text version get no loose attachment.
        page = cast("EmailMessage", message.get_payload(1))
        page.add_related(
            night.chart,
            maintype="image",
            subtype="png",
            cid=f"<{CHART_ID}>",
            disposition="inline",
            filename="drift.png",
        )
    # Only now: quoted-printable and base64 have to keep to shorter lines.
    message.policy = POLICY
    return message


def address(text: str) -> Address:
    """Return an e-mail address, with or without a name before it, ready for a header.

    International domains become their ASCII form.

    Raises:
        ConfigurationError: it is no address that every mail server takes.
    """
    name, plain = parseaddr(text)
    user, _, domain = plain.rpartition("@")
    try:
        ascii_domain = domain.encode("idna").decode("ascii")
        return Address(one_line(name), addr_spec=f"{user}@{ascii_domain}")
    except (ValueError, MessageError) as error:
        raise ConfigurationError(
            "no mail can be addressed",
            "an e-mail address",
            repr(text),
            "Correct the deployment's 'owner', or the sender.",
        ) from error


def _view(night: Night) -> dict[str, Any]:
    told = occasions(night)
    return {
        "night": night,
        "story": story(night),
        "facts": facts(night),
        "failed_expectations": night.failed_expectations[:MAX_ITEMS],
        "more_expectations": len(night.failed_expectations[MAX_ITEMS:]),
        "drifted_columns": night.drifted_columns[:MAX_ITEMS],
        "more_columns": len(night.drifted_columns[MAX_ITEMS:]),
        "chart": f"cid:{CHART_ID}" if night.chart is not None else "",
        "color": _RED if _URGENT.intersection(told) else _AMBER,
        "subject": subject(night),
    }


def _filled(name: str, view: dict[str, Any]) -> str:
    return _environment().get_template(name).render(view).strip() + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("scoring.notify"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "wrapped": _wrapped,
        "bulleted": _bulleted,
        "with_commands": _with_commands,
    }
    environment.tests["address"] = _is_address
    return environment


def _wrapped(sentences: Sequence[str], *, bullet: str = "") -> str:
    wrapper = textwrap.TextWrapper(
        TEXT_WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
    # "36 %" and commands stay in one line: a command is copied from there.
    glued = (re.sub(rf"{_COMMAND.pattern}| %", _glue, sentence) for sentence in sentences)
    return "\n".join(wrapper.fill(sentence) for sentence in glued).replace(_GLUE, " ")


def _glue(found: re.Match[str]) -> str:
    return found[0].replace(" ", _GLUE)


def _with_commands(sentence: str) -> Markup:
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - escaped before


def _bulleted(sentences: Sequence[str]) -> str:
    return _wrapped(sentences, bullet="- ")


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))
