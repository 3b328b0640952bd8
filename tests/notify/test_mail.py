from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest

from scoring.checks.report import Severity, Verdict
from scoring.errors import ConfigurationError
from scoring.monitoring.report import DecisionKind
from scoring.notify.mail import POLICY, TEXT_WIDTH, address
from scoring.notify.night import Night
from tests.notify.mail_server import MailServer
from tests.notify.nights import drifted, failed
from tests.throughput.made import totals

Rendered = Callable[[Night], EmailMessage]
HOSTILE = "<script>alert(1)</script> `<img src=x>`\r\nBcc: eve@example.com\r\n\r\n{{ 7 * 7 }} \"'&\x00\u202e é 猫"


class Page(HTMLParser):
    """What a mail client would see of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href" and value]
        self.pictures += [value for name, value in attrs if name == "src" and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def html_of(mail: EmailMessage) -> str:
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())


def test_arrives_over_smtp_as_text_and_page_with_picture(
    server: MailServer, drifting: Night, rendered: Rendered
) -> None:
    server.send(rendered(drifting))
    (mail,) = server.mails
    assert mail["Subject"] == "[flight_delays] 2013-07-05: 40 % of columns drifted, retraining started"
    assert mail["From"] == "scoring@localhost"
    assert mail["To"] == "anna@example.com"
    assert mail["Date"].datetime.isoformat() == "2013-07-06T03:10:00+00:00"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert [part.get_content_type() for part in mail.walk()] == [
        *("multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png")
    ]
    for body in (text_of(mail), html_of(mail)):
        for said in ("40 % of the watched columns", "2013-01-01 to 2013-03-31", "temp", "2.31", "Started retraining"):
            assert said in " ".join(body.split())
    page = Page(html_of(mail))
    (picture,) = page.pictures
    (image,) = (part for part in mail.walk() if part.get_content_type() == "image/png")
    assert picture == f"cid:{image['Content-ID'].strip('<>')}"
    assert image.get_content() == drifting.chart
    assert image.get_content_disposition() == "inline"


def test_loads_nothing_from_elsewhere(drifting: Night, rendered: Rendered) -> None:
    html = html_of(rendered(drifting))
    page = Page(html)
    assert page.links == list(drifting.links.values())
    assert all(picture.startswith("cid:") for picture in page.pictures)
    assert not {"script", "link", "style", "iframe", "object"} & set(page.tags)
    assert "url(" not in html
    assert len(html) < 20_000


def test_no_picture_without_chart(drifting: Night, rendered: Rendered) -> None:
    mail = rendered(replace(drifting, chart=None))
    assert Page(html_of(mail)).pictures == []
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]


def test_speed_and_warnings_stand_among_the_numbers(drifting: Night, rendered: Rendered) -> None:
    warnings = ("scored 2,500 rows/s, less than half of the median", "no GPU was found")
    mail = rendered(replace(drifting, totals=totals(), devices=("cpu",), warnings=warnings))
    for body in (text_of(mail), Page(html_of(mail)).text):
        said = " ".join(body.split())
        assert "Scored 2,500 rows/s, less than half of the median. No GPU was found." in said
        assert "reading 20 s, predicting 2 min 30 s, writing 10 s, loading models 2 s (2 loads)" in said
        assert "2 on cpu, each at most 812 MiB" in said
        assert "at most 131,072 rows" in said


def test_picture_is_described_for_those_who_do_not_see_it(drifting: Night, rendered: Rendered) -> None:
    assert re.search(r'alt="Picture: share of drifted columns[^"]+limit 30 %"', html_of(rendered(drifting)))


def test_text_version_fits_a_terminal(drifting: Night, rendered: Rendered) -> None:
    text = text_of(rendered(replace(drifting, checks=Verdict.WARNING, failed_expectations=(failed(),))))
    long = [line for line in text.splitlines() if len(line) > TEXT_WIDTH and "https://" not in line]
    assert long == []
    headings = [line for line in text.splitlines() if line.isupper() and not line.startswith("-")]
    assert headings[:3] == ["WHAT IT MEANS", "WHAT SCORING DID", "WHAT YOU CAN DO"]


def test_command_is_in_one_line_and_can_be_copied(night: Callable[..., Night], rendered: Rendered) -> None:
    mail = rendered(night(is_published=False, error="it broke."))
    command = "scoring run flight_delays --partition 2013-07-05"
    assert f"`{command}`" in text_of(mail)
    assert f"<code>{command}</code>" in html_of(mail)


def test_hostile_text_reaches_neither_headers_nor_markup(
    server: MailServer, night: Callable[..., Night], rendered: Rendered
) -> None:
    told = night(
        deployment=HOSTILE,
        partition=HOSTILE,
        team=HOSTILE,
        run_id="a3f1",
        is_published=False,
        error=HOSTILE,
        checks=Verdict.FAILED,
        failed_expectations=(failed(severity=Severity.CRITICAL, column=HOSTILE, seen=HOSTILE),),
        drifted_columns=(drifted(HOSTILE, 3.0),),
        reasons=(HOSTILE,),
        model_versions={HOSTILE: 1},
        links={HOSTILE: "javascript:alert(1)", "report": 'https://a.example/"onmouseover="x'},
    )
    server.send(rendered(told))
    (mail,) = server.mails
    assert server.recipients == [["anna@example.com"]]
    assert mail["Bcc"] is None
    assert set(mail.keys()) == {
        *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type")
    }
    assert "\n" not in mail["Subject"]
    page = Page(html_of(mail))
    assert not {"script", "img"} & set(page.tags)
    assert page.links == ['https://a.example/"onmouseover="x']
    assert "<script>alert(1)</script> `<img src=x>` Bcc: eve@example.com {{ 7 * 7 }} \"'& é 猫" in page.text
    assert "\u202e" not in text_of(mail) + html_of(mail)


def test_long_lists_are_cut(drifting: Night, rendered: Rendered) -> None:
    columns = tuple(drifted(f"column_{n}", 2.0) for n in range(300))
    mail = rendered(replace(drifting, drifted_columns=columns, failed_expectations=(failed(),) * 12))
    for body in (text_of(mail), Page(html_of(mail)).text):
        assert "and 290 more" in body
        assert "and 2 more" in body
        assert "column_9" in body
        assert "column_10" not in body


def test_place_without_address_is_told_in_words(drifting: Night, rendered: Rendered) -> None:
    mail = rendered(replace(drifting, links={"Run record": "MLflow run a3f1"}))
    assert Page(html_of(mail)).links == []
    assert "Run record: MLflow run a3f1" in html_of(mail)
    assert "- Run record: MLflow run a3f1" in text_of(mail)


def test_message_id_is_the_same_for_every_rendering_of_a_run_and_differs_between_runs(
    drifting: Night, rendered: Rendered
) -> None:
    first, again = rendered(drifting), rendered(replace(drifting, seconds=1.0))
    other = rendered(replace(drifting, run_id="b" * 32))
    assert first["Message-ID"] == again["Message-ID"] == f"<{drifting.run_id}@localhost>"
    assert other["Message-ID"] != first["Message-ID"]


@pytest.mark.parametrize("name", ["flight_delays", "a" * 63, "猫" * 63])
def test_every_mail_survives_being_written_and_read(night: Callable[..., Night], rendered: Rendered, name: str) -> None:
    told = night(deployment=name, decision=DecisionKind.NOTIFY, reasons=("drift " * 30,), run_id="a" * 32)
    mail = rendered(told)
    read = message_from_bytes(mail.as_bytes(), policy=POLICY)
    assert {key: str(value) for key, value in read.items()} == {key: str(value) for key, value in mail.items()}
    assert read.as_bytes() == mail.as_bytes()
    assert max(len(line) for line in mail.as_bytes().splitlines()) <= 88


def test_all_owners_are_addressed(server: MailServer, drifting: Night, rendered: Rendered) -> None:
    server.send(rendered(replace(drifting, recipients=("anna@example.com", "bo@bücher.example"))))
    assert server.recipients == [["anna@example.com", "bo@xn--bcher-kva.example"]]


def test_sender_may_have_a_name() -> None:
    assert str(address("Scoring <scoring@example.com>")) == "Scoring <scoring@example.com>"


@pytest.mark.parametrize(
    "text", ["", "anna", "anna@", "@example.com", "a;b@example.com", "ü@example.com", "a@" + "x" * 70]
)
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no mail can be addressed: expected an e-mail address, got '.*'\. Corr"
    ):
        address(text)
