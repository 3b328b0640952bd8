"""The page's routes, behind Airflow's own login, over a real MLflow store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from scoring import settings
from scoring_airflow.web import EXTERNAL_VIEWS, FASTAPI_APPS
from scoring_airflow.web_pages import REPORT_POLICY
from tests.airflow.seed import HOSTILE, NIGHTS, Seeded, fill

DRIFT_HTML = b"<!doctype html><script>document.title = 'drift'</script>"
PAGE = "/scoring/deployments/flight_delays"
API = "/scoring/api/deployments"
SECRET = "not a secret, and long enough to sign tokens with SHA-512: 0123456789 0123456789 0123456789"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return fill(tmp_path_factory.mktemp("seeded"), drift_html=DRIFT_HTML)


@pytest.fixture(scope="module")
def _airflow(airflow_database: Path) -> Iterator[None]:
    """Airflow's own login in this process: a database for revoked tokens, a key to sign new ones."""
    home = Path(os.environ["AIRFLOW_HOME"])
    home.mkdir(exist_ok=True)
    shutil.copy(airflow_database, home / "airflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", SECRET)
        yield


@pytest.fixture
def anonymous(_airflow: None, seeded: Seeded, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser in which nobody is signed in."""
    from airflow.api_fastapi.app import _AuthManagerState
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    for name, value in seeded.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_AuthManagerState, "instance", SimpleAuthManager())
    around = FastAPI()
    for mounted in FASTAPI_APPS:
        around.mount(mounted["url_prefix"], mounted["app"])
    with TestClient(around, follow_redirects=False) as client:
        yield client


@pytest.fixture
def viewer(anonymous: TestClient) -> TestClient:
    """A browser in which somebody is signed in who may read Dags."""
    anonymous.cookies.set("_token", _token("VIEWER"))
    return anonymous


def _token(role: str | None) -> str:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ann", role=role))


def _only_hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let people read the Dag of one deployment only."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    monkeypatch.setattr(
        SimpleAuthManager, "is_authorized_dag", lambda _self, *, details, **_: details.id == "score_hostile"
    )


# --------------------------------------------------------------------------------------------------------------- login


@pytest.mark.parametrize("path", ["/scoring/", f"{PAGE}?show=attention", "/scoring/runs/abc/drift"])
@pytest.mark.parametrize("cookie", [None, "not a token"])
def test_pages_send_strangers_to_airflows_login_and_back(anonymous: TestClient, path: str, cookie: str | None) -> None:
    if cookie:
        anonymous.cookies.set("_token", cookie)
    answer = anonymous.get(path)
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("/api/v2/auth/login?next=%2Fscoring%2F")
    assert ("attention" in path) == ("show%3Dattention" in answer.headers["location"])


def test_reports_are_not_for_strangers(anonymous: TestClient, seeded: Seeded) -> None:
    assert anonymous.get(f"/scoring/runs/{seeded.published}/drift/report.html").status_code == 307


def test_the_api_answers_strangers_with_401_as_json(anonymous: TestClient) -> None:
    answer = anonymous.get(API)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})


def test_the_api_takes_a_bearer_token(anonymous: TestClient) -> None:
    assert anonymous.get(API, headers={"Authorization": f"Bearer {_token('VIEWER')}"}).status_code == 200


def test_who_may_read_no_dag_sees_no_deployment(anonymous: TestClient, seeded: Seeded) -> None:
    anonymous.cookies.set("_token", _token(None))
    assert anonymous.get(API).json() == {"deployments": []}
    assert "no deployment that you may see" in anonymous.get("/scoring/").text
    for path in (
        PAGE,
        f"/scoring/runs/{seeded.published}/drift",
        f"/scoring/runs/{seeded.published}/drift/report.json",
    ):
        answer = anonymous.get(path)
        assert answer.status_code == 403
        assert re.search("permission to read Dag &#39;score_flight_delays&#39;", answer.text)
    assert anonymous.get(f"{API}/flight_delays/partitions").status_code == 403


def test_permission_is_that_of_the_deployments_dag(viewer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    _only_hostile(monkeypatch)
    assert [found["name"] for found in viewer.get(API).json()["deployments"]] == ["hostile"]
    assert viewer.get(PAGE).status_code == 403
    # Whether it exists is not told either.
    assert viewer.get("/scoring/deployments/nowhere").status_code == 403


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_nothing_is_served_without_login(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(f"/scoring{path}").status_code == 404


# --------------------------------------------------------------------------------------------------------------- pages


def test_the_list_names_owner_schedule_champions_and_newest_partition(viewer: TestClient) -> None:
    page = viewer.get("/scoring/").text
    row = _row(page, "flight_delays")
    assert "Flight data" in row
    assert "flight-data@example.com" in row
    assert "0 3 * * *" in row
    assert re.search(r"flight_delay_linear <b>v1</b>.*flight_delay_trees <b>v2</b>", row, re.DOTALL)
    assert re.search(r"2013-07-11\s+<span class=\"badge busy\">staged", row)
    assert "Not scored yet" in _row(page, "never_scored")


def test_a_deployment_that_cannot_be_read_is_listed_with_the_reason(viewer: TestClient) -> None:
    assert "unknown key" in _row(viewer.get("/scoring/").text, "broken")


def test_partitions_show_what_happened_newest_first(viewer: TestClient, seeded: Seeded) -> None:
    page = viewer.get(PAGE).text
    assert re.findall(r'<th scope="row">(\S+)', page)[:5] == [
        "2013-07-11",
        "2013-07-10",
        "2013-07-09",
        "2013-07-09",
        "2013-07-08",
    ]
    last = _row(page, "2013-07-10")
    for text in (
        "937",
        "0.43 %",
        "53,210",
        "18 s",
        "passed",
        "46 %",
        "notify",
        "46 % of the columns drifted",
        "table v63",
    ):
        assert text in last
    assert f'href="/scoring/runs/{seeded.published}/drift"' in last
    assert f'href="/scoring/runs/{seeded.published}/quality"' in last
    assert re.search(rf'<a href="/scoring/runs/{seeded.published}/run" title="Run report">53,210</a>', last)
    assert f'href="http://127.0.0.1:5000/#/runs/{seeded.published}"' in last
    assert 'href="/dags/score_flight_delays/runs/manual__2013-07-10T03%3A00%3A00%2B00%3A00"' in last


def test_a_deployment_is_drawn_with_its_champions(viewer: TestClient) -> None:
    page = viewer.get(PAGE).text
    (picture,) = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    for text in ("flight_delay_linear", "flight_delay_trees", "champion: ", "mean"):
        assert text in picture
    assert " style=" not in picture
    assert ".diagram .model rect" in page


def test_warnings_are_marked_beside_the_partition_and_told_in_full(viewer: TestClient) -> None:
    last = _row(viewer.get(PAGE).text, "2013-07-10")
    assert re.search(r'<th scope="row">2013-07-10.*badge warn">2 warnings<.*</th>', last, re.DOTALL)
    told = re.findall('<p class="warning">(.*?)</p>', last)
    assert [text.split("&lt;")[0].strip() for text in told] == ["scored 53,210 rows/s", "no GPU was found"]
    assert "warning" not in _row(viewer.get(PAGE).text, "2013-07-08")


def test_a_newer_failure_stands_above_the_run_that_is_still_published(viewer: TestClient, seeded: Seeded) -> None:
    failed, published = re.findall(r"<tr.*?</tr>", viewer.get(f"{PAGE}?partition=2013-07-09").text, re.DOTALL)[1:]
    assert f'href="/scoring/runs/{seeded.failed}/quality"' in failed
    assert "expected no nulls in &#39;distance&#39;, got 12" in failed
    assert re.search("badge good.>published", published)


def test_a_long_history_is_shown_in_part_and_on_request(viewer: TestClient) -> None:
    page = viewer.get(PAGE).text
    assert "60 partitions, newest first" in page
    more = re.search(r'href="([^"]+)">Show older', page)
    assert more is not None
    whole = viewer.get(more[1].replace("&amp;", "&")).text
    assert f"{NIGHTS + 1} partitions" in whole
    assert "Show older" not in whole


def test_partitions_can_be_filtered(viewer: TestClient) -> None:
    june = viewer.get(f"{PAGE}?partition=2013-06").text
    assert "30 partitions" in june
    assert "2013-07-" not in june
    attention = viewer.get(f"{PAGE}?show=attention").text
    assert re.findall(r'<th scope="row">(\S+)', attention) == ["2013-07-10", "2013-07-09", "2013-07-07"]
    assert "No partition fits" in viewer.get(f"{PAGE}?partition=1999").text


@pytest.mark.parametrize("path", ["/scoring/", "/scoring/deployments/hostile"])
def test_hostile_text_is_shown_not_run(viewer: TestClient, path: str) -> None:
    page = viewer.get(path).text
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") > 2
    assert page.count("<script") == 1


def test_pages_load_nothing_and_run_only_their_own_script(viewer: TestClient) -> None:
    answers = [viewer.get("/scoring/") for _ in range(2)]
    nonces = [re.findall(r'<(?:style|script) nonce="([^"]+)"', answer.text) for answer in answers]
    for answer, (style, script) in zip(answers, nonces, strict=True):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert f"style-src 'nonce-{style}'; script-src 'nonce-{script}'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert nonces[0] != nonces[1]
    assert not re.search(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1:5000/#/runs/)', answers[0].text)


# ------------------------------------------------------------------------------------------------------------- reports


def test_a_report_is_framed_with_the_way_back(viewer: TestClient, seeded: Seeded) -> None:
    page = viewer.get(f"/scoring/runs/{seeded.published}/drift").text
    assert (
        f'<iframe title="Drift report" sandbox="allow-scripts" src="/scoring/runs/{seeded.published}/drift/report.html"'
        in page
    )
    assert 'href="/scoring/deployments/flight_delays"' in page


@pytest.mark.parametrize(
    ("path", "media_type", "start"),
    [
        ("drift/report.html", "text/html; charset=utf-8", DRIFT_HTML.decode()),
        ("quality/report.html", "text/html; charset=utf-8", "<!doctype html>"),
        ("run/report.html", "text/html; charset=utf-8", "<!doctype html><title>Run report"),
        ("quality/report.json", "application/json", "{"),
    ],
)
def test_kept_reports_are_shut_off(viewer: TestClient, seeded: Seeded, path: str, media_type: str, start: str) -> None:
    answer = viewer.get(f"/scoring/runs/{seeded.published}/{path}")
    assert answer.text.startswith(start)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-security-policy"] == REPORT_POLICY
    assert REPORT_POLICY.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in REPORT_POLICY


def test_a_report_that_was_not_kept_says_why(viewer: TestClient, seeded: Seeded) -> None:
    for path in ("drift", "drift/report.html"):
        answer = viewer.get(f"/scoring/runs/{seeded.failed}/{path}")
        assert answer.status_code == 404
        assert re.search(
            "There is no drift report of &#39;flight_delays&#39;, partition &#39;2013-07-09&#39;. The run is failed. "
            "checks of &#39;flight_delays&#39; failed",
            answer.text,
        )


@pytest.mark.parametrize(
    "path",
    [
        "runs/{run}/mail/message.eml",
        "runs/{run}/mail",
        "runs/{run}/quality/report.html/../../../../mlflow.db",
        "runs/{run}/quality/..%2f..%2f..%2fmlflow.db",
        "runs/{run}/..%2f..%2fmlflow.db/report.html",
        "runs/{run}/quality/report.eml",
        "runs/..%2f..%2fx/quality/report.html",
        "runs/%2e%2e/quality/report.html",
        "runs/ffffffffffffffffffffffffffffffff/quality",
        "deployments/..%2f..",
        "deployments/%2e%2e",
        "deployments/nowhere",
        "nowhere",
    ],
)
def test_other_paths_lead_nowhere(viewer: TestClient, seeded: Seeded, path: str) -> None:
    answer = viewer.get("/scoring/" + path.format(run=seeded.published))
    assert answer.status_code == 404
    assert "SQLite" not in answer.text


# ------------------------------------------------------------------------------------------------------------ REST API


def test_the_api_lists_deployments(viewer: TestClient) -> None:
    found = {entry["name"]: entry for entry in viewer.get(API).json()["deployments"]}
    assert list(found) == ["broken", "flight_delays", "hostile", "never_scored"]
    flights = found["flight_delays"]
    assert flights["owner"] == {"team": "Flight data", "email": ["flight-data@example.com"]}
    assert flights["schedule"] == "0 3 * * *"
    assert flights["champions"] == {"flight_delay_linear": 1, "flight_delay_trees": 2}
    assert flights["newest_partition"]["partition"] == "2013-07-11"
    assert flights["error"] is None
    assert "unknown key" in found["broken"]["error"]


def test_the_api_lists_partitions(viewer: TestClient, seeded: Seeded) -> None:
    found = viewer.get(f"{API}/flight_delays/partitions", params={"partition": "2013-07-10"}).json()
    assert found["deployment"] == "flight_delays"
    (entry,) = found["partitions"]
    started, dag_run_id = entry.pop("started"), entry.pop("dag_run_id")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", started)
    assert dag_run_id == "manual__2013-07-10T03:00:00+00:00"
    assert entry == {
        "partition": "2013-07-10",
        "state": "published",
        "rows": 937,
        "quarantined": 4,
        "run_id": seeded.published,
        "model_versions": {"flight_delay_linear": 1, "flight_delay_trees": 2},
        "checks": "passed",
        "drift": 0.46,
        "decision": "notify",
        "decision_reasons": ["46 % of the columns drifted, more than the 30 % allowed.", "A second reason."],
        "published_version": 63,
        "rows_per_s": 53210.4,
        "seconds": 17.6,
        "warnings": [f"scored 53,210 rows/s {HOSTILE}", "no GPU was found"],
        "error": None,
    }


@pytest.mark.parametrize("name", ["limit", "partition"])
def test_a_wrong_parameter_is_named(viewer: TestClient, name: str) -> None:
    answer = viewer.get(f"{API}/flight_delays/partitions", params={name: "'; --"})
    assert answer.status_code == 400
    assert re.match(f"'{name}' is not valid: ", answer.json()["detail"])
    assert viewer.get(PAGE, params={name: HOSTILE}).status_code == 400


def test_a_store_that_does_not_answer_is_said_in_a_sentence(
    viewer: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.TRACKING_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    answer = viewer.get(f"{API}/flight_delays/partitions")
    assert answer.status_code == 503
    assert re.search("the MLflow store does not answer: expected an answer from", answer.json()["detail"])
    assert "the MLflow store does not answer" in viewer.get(PAGE).text


def test_the_frame_follows_airflow_to_wherever_it_is_mounted() -> None:
    (view,) = EXTERNAL_VIEWS
    assert view["href"] == "scoring/"


def _row(page: str, name: str) -> str:
    found = [row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if re.search(rf">{name}\b", row)]
    assert len(found) == 1
    return str(found[0])
