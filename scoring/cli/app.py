"""All commands of `scoring`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from scoring.cli import execute, show
from scoring.errors import EXIT_CONFIGURATION, EXIT_DONE
from scoring.job import exit_codes
from scoring.models.soup.method import Method

app = typer.Typer(
    name="scoring",
    help="Nightly batch scoring: models over Parquet partitions, checked, published, watched and replaced.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Deployment: its name, or the path of its folder.")]
PartitionOption = Annotated[str, typer.Option("--partition", "-p", help="Partition, like 2013-01-31.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def _print(result: Any, as_json: bool, human: Callable[[Any], None]) -> None:
    show.document(result) if as_json else human(result)


@app.command()
def validate(
    names: Annotated[list[str] | None, typer.Argument(help="Deployments; without any, all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Check deployment files, rules and expectation suites. Loads rule modules; asks no server."""
    with exit_codes(as_json=as_json):
        found = execute.validate(names or [])
        _print(
            found, as_json, lambda rows: show.table("Deployments", rows, {"deployment": "deployment", "error": "error"})
        )
    raise typer.Exit(EXIT_CONFIGURATION if any(row["error"] for row in found) else EXIT_DONE)


@app.command()
def plan(name: Name, partition: PartitionOption, as_json: Json = False) -> None:
    """Show what a run would do: rows, splits, model versions, output columns. Reads no rows."""
    with exit_codes(as_json=as_json):
        _print(execute.plan(name, partition), as_json, lambda found: show.facts(f"plan of {name} {partition}", found))


@app.command()
def graph(
    name: Name,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also write a picture to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Draw a deployment with its model versions: Mermaid text on stdout."""
    with exit_codes(as_json=as_json):
        _print(execute.graph(name, svg), as_json, lambda found: print(found["mermaid"], end=""))


@app.command()
def run(
    name: Name,
    partition: PartitionOption,
    inspect: Annotated[
        str | None,
        typer.Option("--inspect", help="Keep and print a sample of a step's output: score.pipeline.0."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score one partition here and now: score, check, publish, watch. Sends no mail: you are looking at it."""
    with exit_codes(as_json=as_json):
        found = execute.run(name, partition, inspect=inspect)
        _print(found, as_json, lambda result: show.run(f"{name} {partition}", result))


@app.command()
def train(  # noqa: PLR0917 - typer's options are keyword arguments in all but form
    name: Name,
    first: Annotated[
        str | None, typer.Option(help="First partition to train on; default: the reference window.")
    ] = None,
    last: Annotated[str | None, typer.Option(help="Last partition to train on.")] = None,
    holdout_last: Annotated[
        str | None, typer.Option(help="Last hold-out night; they begin after the training window.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Partition that stands for today; chooses recent windows, as the Dag does.")
    ] = None,
    promote_winner: Annotated[bool, typer.Option("--promote", help="Promote the challengers if they win.")] = False,
    as_json: Json = False,
) -> None:
    """Train challengers, register them, and compare them with the champions on hold-out nights."""
    with exit_codes(as_json=as_json):
        found = execute.train(
            name,
            first=_date(first),
            last=_date(last),
            holdout_last=_date(holdout_last),
            as_of=as_of,
            promote=promote_winner,
        )
        _print(found, as_json, lambda result: show.facts(f"training of {name}", result))


@app.command()
def learn(
    name: Name,
    as_of: Annotated[str, typer.Option(help="Partition that stands for today; later labels are not looked at.")],
    as_json: Json = False,
) -> None:
    """Let models learn from the nights whose labels have arrived since they learned last (section `online`)."""
    with exit_codes(as_json=as_json):
        columns = {column: column for column in ("model", "partition", "update", "version", "reason")}
        _print(execute.learn(name, as_of), as_json, lambda rows: show.table(f"{name} learned", rows, columns))


@app.command()
def soup(  # noqa: PLR0917 - as for train
    name: Name,
    versions: Annotated[str, typer.Option("--from", help="Versions to average, like v3,v4,v5.")],
    model: Annotated[
        str | None, typer.Option(help="Registered model; default: the only one of the deployment.")
    ] = None,
    method: Annotated[
        Method,
        typer.Option(help="uniform: all alike; greedy: what does not harm the best; learned: the smallest loss."),
    ] = Method.GREEDY,
    holdout_first: Annotated[
        str | None, typer.Option(help="First labelled night; default: the hold-out of the newest version's training.")
    ] = None,
    holdout_last: Annotated[str | None, typer.Option(help="Last labelled night.")] = None,
    promote_winner: Annotated[bool, typer.Option("--promote", help="Promote the soup if it wins.")] = False,
    as_json: Json = False,
) -> None:
    """Average the weights of versions of one model into a new version that costs one pass.

    The first half of the hold-out nights chooses the mixture, the second half compares the soup with its parents and
    the champions. The soup is registered as a challenger: scoring promote NAME promotes it if it has won.

    For example:

    scoring soup flight_delays --model flight_delay_net --from v3,v4,v5

    scoring soup flight_delays --model flight_delay_net --from 3,4 --method learned --promote
    """
    with exit_codes(as_json=as_json):
        found = execute.soup(
            name,
            _versions(versions),
            model=model,
            method=method,
            holdout=(_date(holdout_first), _date(holdout_last)),
            promote=promote_winner,
        )
        _print(found, as_json, lambda result: show.facts(f"soup for {name}", result))


@app.command()
def deploy(
    source: Annotated[Path, typer.Argument(help="Folder of the deployment, as it comes from version control.")],
    as_json: Json = False,
) -> None:
    """Validate a deployment's folder, check that its models can be frozen, and install it for Airflow."""
    with exit_codes(as_json=as_json):
        _print(execute.deploy(source), as_json, lambda found: show.facts("deployed", found))


@app.command()
def promote(
    name: Name,
    version: Annotated[
        list[str] | None, typer.Option("--version", help="MODEL=N, repeatable; default: the newest training's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote also a challenger that did not win.")] = False,
    as_json: Json = False,
) -> None:
    """Make challengers champions if they won, or given versions in any case."""
    with exit_codes(as_json=as_json):
        found = execute.promote(name, version or [], force=force)
        _print(found, as_json, lambda result: show.facts(f"promotion of {name}", result))


@app.command()
def rollback(name: Name, as_json: Json = False) -> None:
    """Move the champions back to what the last promotion replaced."""
    with exit_codes(as_json=as_json):
        _print(execute.rollback(name), as_json, lambda found: show.facts(f"roll-back of {name}", found))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Deployment; without it, all of them.")] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="Show this partition alone, with its run report.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the published partitions of a deployment, or show how one partition stands and what its run took."""
    if partition is not None and name is None:
        raise typer.BadParameter("--partition needs the name of a deployment")
    with exit_codes(as_json=as_json):
        if name is None:
            _print(execute.overview(), as_json, show.overview)
        elif partition is not None:
            _print(execute.standing(name, partition), as_json, lambda runs: show.standing(name, runs))
        else:
            _print(execute.status(name), as_json, lambda rows: show.partitions(name, rows))


@app.command()
def drift(name: Name, partition: PartitionOption, as_json: Json = False) -> None:
    """Compare a published partition's window with the reference again, and show every column."""
    with exit_codes(as_json=as_json):
        _print(execute.drift(name, partition), as_json, lambda found: show.drift(name, found))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look for known traps of this machine and say how to mend each."""
    with exit_codes(as_json=as_json):
        found = execute.doctor()
        _print(
            found,
            as_json,
            lambda rows: show.table("Doctor", rows, {"ok": "ok", "name": "what", "found": "found", "mend": "to do"}),
        )
    raise typer.Exit(EXIT_DONE if all(row["ok"] for row in found) else EXIT_CONFIGURATION)


def _versions(text: str) -> list[int]:
    numbers = [part.strip().removeprefix("v") for part in text.split(",")]
    if not all(number.isdigit() for number in numbers):
        raise typer.BadParameter(f"expected versions like v3,v4,v5, got {text!r}")
    return [int(number) for number in numbers]


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"expected a date like 2013-01-31, got {text!r}") from error
