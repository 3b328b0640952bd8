"""Reads all deployments for the Dag files. One that is not valid never hides the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring import deployment
from scoring.errors import ConfigurationError, ScoringError
from scoring_airflow.plan import dag_ids

if TYPE_CHECKING:
    from airflow.sdk import DAG


def dags_of_all(*, wanted: str | None = None) -> list[DAG]:
    """Return the Dags of all valid deployments; with `wanted`, of the one that this Dag id belongs to.

    A task parses the Dag file too, and needs one Dag: hundreds of other deployments should not make it late.
    """
    names = [name for name in deployment.names() if wanted is None or wanted in dag_ids(name)]
    # What is wrong with the others, `raise_errors` shows in a file of its own.
    return [dag for name in names if not isinstance(dags := _dags_of(name), ScoringError) for dag in dags]


def raise_errors() -> None:
    """Raise what is wrong with deployments, all of it in one error; nothing happens if all are valid.

    Raises:
        ConfigurationError: at least one deployment is not valid.
    """
    errors = [found for name in deployment.names() if isinstance(found := _dags_of(name), ScoringError)]
    if len(errors) == 1:
        # Without the causes, whose tracebacks are long and say the same in other words.
        raise errors[0].with_traceback(None) from None
    if errors:
        sentences = "\n".join(f"{number}. {error}" for number, error in enumerate(errors, start=1))
        raise ConfigurationError(f"{len(errors)} deployments are not valid", hint=f"\n{sentences}")


def _dags_of(name: str) -> list[DAG] | ScoringError:
    from scoring_airflow.build import build

    try:
        dags = list(build(deployment.load(name)))
        for dag in dags:
            dag.validate()
    except ScoringError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is one deployment's, and the others must not suffer
        return ConfigurationError(
            f"deployment {name!r} cannot become a Dag", got=f"{type(error).__name__}: {error}", hint="Mend its file."
        )
    return dags
