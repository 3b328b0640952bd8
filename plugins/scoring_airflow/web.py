"""The page inside Airflow's UI: deployments, their partitions and the kept reports; and the same as JSON.

The plugin mounts the app at `/scoring`, and Airflow frames it at `/plugin/scoring`. It reads deployments and MLflow and
writes nothing. What is heavy is imported when a request comes: every Airflow process loads the plugin.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException, Query, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as RoutingError

from scoring import deployment as deployments
from scoring.addresses import PREFIX, Report, mlflow_run
from scoring.errors import ConfigurationError, ScoringError, TransientError
from scoring_airflow.plan import score_id
from scoring_airflow.web_access import check_may_read, login_address, may_read, signed_in, signed_in_reader
from scoring_airflow.web_pages import kept, page

if TYPE_CHECKING:
    from scoring.deployment import Deployment
    from scoring.runs import RunRecord

SHOWN_PARTITIONS: Final = 60
MAX_PARTITIONS: Final = 2000
API: Final = "/api/"

app = FastAPI(title="scoring", docs_url=None, redoc_url=None, openapi_url=None)
Reader = Annotated[Any, Depends(signed_in_reader)]
Caller = Annotated[Any, Depends(signed_in)]
Prefix = Annotated[str, Query(pattern=r"^[\w.:=+-]{0,100}$")]
Limit = Annotated[int, Query(ge=1, le=MAX_PARTITIONS)]


class Form(StrEnum):
    """How a report is kept."""

    HTML = "html"
    JSON = "json"


class Show(StrEnum):
    """Which partitions the page lists."""

    ALL = "all"
    ATTENTION = "attention"


_MEDIA_TYPES: Final = {Form.HTML: "text/html; charset=utf-8", Form.JSON: "application/json"}


# --------------------------------------------------------------------------------------------------------------- pages


@app.get("/")
def deployments_page(request: Request, user: Reader) -> Response:
    """List the deployments that the user may see."""
    return page(request, "deployments.html", deployments=[_described(name) for name in _visible(user)])


@app.get("/deployments/{name}")
def partitions_page(
    request: Request,
    user: Reader,
    name: str,
    *,
    partition: Prefix = "",
    show: Show = Show.ALL,
    limit: Limit = SHOWN_PARTITIONS,
) -> Response:
    """List a deployment's partitions, newest first."""
    from markupsafe import Markup

    from scoring.diagram.blocks import chain
    from scoring.diagram.svg import picture, style
    from scoring.registry import Registry
    from scoring.status import champions, partitions

    deployment = _deployment(user, name)
    drawn = picture(chain(deployment, Registry().versions(deployment)), title=f"Graph of {deployment.name}")
    # One more than is shown tells whether there are more.
    found = partitions(deployment, limit=limit + 1, prefix=partition)
    names = list(dict.fromkeys(entry.partition for entry in found))
    has_more = len(names) > limit
    entries = [entry for entry in found if not has_more or entry.partition != names[limit]]
    return page(
        request,
        "partitions.html",
        deployment=deployment,
        champions=champions(deployment),
        diagram=Markup(drawn),  # noqa: S704 - every text in it was escaped when it was drawn
        diagram_style=Markup(style()),  # noqa: S704 - a file of ours
        dag_id=score_id(deployment.name),
        entries=[entry for entry in entries if show is Show.ALL or entry.needs_attention],
        looked_at=min(len(names), limit),
        has_more=has_more and limit < MAX_PARTITIONS,
        next_limit=min(limit * 4, MAX_PARTITIONS),
        prefix=partition,
        show=show,
        mlflow_run=mlflow_run,
    )


@app.get("/runs/{run_id}/{report}")
def report_page(request: Request, user: Reader, run_id: str, report: Report) -> Response:
    """Show a kept report, with the way back to its deployment."""
    from scoring.runs import RunStore

    run = _run(user, run_id)
    kept_forms = [form for form in Form if _artifact(report, form) in RunStore().artifacts(run_id, report)]
    if Form.HTML not in kept_forms:
        raise _no_report(run, report)
    return page(request, "report.html", run=run, report=report, forms=kept_forms, mlflow_run=mlflow_run)


@app.get("/runs/{run_id}/{report}/report.{form}")
def kept_report(user: Reader, run_id: str, report: Report, form: Form) -> Response:
    """Return a report as it was kept."""
    from scoring.runs import RunStore

    run = _run(user, run_id)
    content = RunStore().read(run_id, _artifact(report, form))
    if content is None:
        raise _no_report(run, report)
    return kept(content, _MEDIA_TYPES[form])


# ------------------------------------------------------------------------------------------------------------ REST API


@app.get(f"{API}deployments")
def api_deployments(user: Caller) -> dict[str, Any]:
    """Return the deployments that the user may see."""
    return {"deployments": [_document(_described(name)) for name in _visible(user)]}


@app.get(f"{API}deployments/{{name}}/partitions")
def api_partitions(user: Caller, name: str, partition: Prefix = "", limit: Limit = 100) -> dict[str, Any]:
    """Return a deployment's partitions, newest first; `partition` is how their names start."""
    from scoring.status import partitions

    found = partitions(_deployment(user, name), limit=limit, prefix=partition)
    return {"deployment": name, "partitions": [entry.document() for entry in found]}


# ------------------------------------------------------------------------------------------------------------- lookups


def _visible(user: Any) -> list[str]:
    return [name for name in deployments.names() if may_read(user, name)]


def _described(name: str) -> dict[str, Any]:
    """Return a deployment with what stands at its head, or the sentence that says why it cannot be read."""
    from scoring.status import champions, partitions

    described: dict[str, Any] = {"name": name, "deployment": None, "champions": {}, "newest": None, "error": None}
    try:
        deployment = deployments.load(name)
    except ConfigurationError as error:
        return {**described, "error": str(error)}
    newest = next(iter(partitions(deployment, limit=1)), None)
    return {**described, "deployment": deployment, "champions": champions(deployment), "newest": newest}


def _document(described: dict[str, Any]) -> dict[str, Any]:
    deployment: Deployment | None = described["deployment"]
    own = deployment.model_dump(mode="json", include={"description", "owner", "schedule"}) if deployment else {}
    newest = described["newest"]
    return {
        "name": described["name"],
        **own,
        "champions": described["champions"],
        "newest_partition": newest.document() if newest else None,
        "error": described["error"],
    }


def _deployment(user: Any, name: str) -> Deployment:
    # Asked first: whether a deployment exists is not for everybody either.
    check_may_read(user, name)
    if name not in deployments.names():
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"There is no deployment {name!r}.")
    return deployments.load(name)


def _run(user: Any, run_id: str) -> RunRecord:
    from scoring.runs import RunStore

    try:
        run = RunStore().get(run_id)
    except ConfigurationError as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"There is no run {run_id!r}.") from error
    check_may_read(user, run.deployment)
    return run


def _artifact(report: Report, form: Form) -> str:
    return f"{report}/report.{form}"


def _no_report(run: RunRecord, report: Report) -> HTTPException:
    facts = [
        f"There is no {report} report of {run.deployment!r}, partition {run.partition!r}.",
        f"The run is {run.state}.",
    ]
    facts += filter(None, (run.tags.get("error"), run.tags.get("decision_reasons")))
    return HTTPException(status.HTTP_404_NOT_FOUND, " ".join(facts))


# -------------------------------------------------------------------------------------------------------------- errors


@app.exception_handler(RoutingError)
def on_refusal(request: Request, error: RoutingError) -> Response:
    """Answer in the caller's language: a page, the login page, or JSON."""
    if error.status_code == status.HTTP_401_UNAUTHORIZED and not _is_api(request):
        return RedirectResponse(login_address(request))
    return _sentence(request, error.status_code, str(error.detail))


@app.exception_handler(RequestValidationError)
def on_bad_request(request: Request, error: RequestValidationError) -> Response:
    """Name the first part of the address that is not valid; a path that is not one of ours does not exist."""
    first = error.errors()[0]
    if first["loc"][0] == "path":
        return _sentence(request, status.HTTP_404_NOT_FOUND, "There is no such page.")
    return _sentence(request, status.HTTP_400_BAD_REQUEST, f"{first['loc'][-1]!r} is not valid: {first['msg']}.")


@app.exception_handler(ScoringError)
def on_scoring_error(request: Request, error: ScoringError) -> Response:
    """Show the sentence of an error; an MLflow that does not answer may answer later."""
    is_transient = isinstance(error, TransientError)
    code = status.HTTP_503_SERVICE_UNAVAILABLE if is_transient else status.HTTP_500_INTERNAL_SERVER_ERROR
    return _sentence(request, code, str(error))


def _sentence(request: Request, code: int, sentence: str) -> Response:
    if _is_api(request):
        return JSONResponse({"detail": sentence}, code)
    return page(request, "error.html", status=code, sentence=sentence)


def _is_api(request: Request) -> bool:
    return request.url.path.startswith(str(request.scope.get("root_path", "")) + API)


# ------------------------------------------------------------------------------------------------- what Airflow mounts

FASTAPI_APPS: Final = [{"app": app, "url_prefix": PREFIX, "name": "Scoring"}]
EXTERNAL_VIEWS: Final = [
    # Without a leading slash the frame's address is relative to Airflow's own, wherever that is mounted.
    {"name": "Scoring", "href": f"{PREFIX.lstrip('/')}/", "destination": "nav", "url_route": "scoring"}
]
