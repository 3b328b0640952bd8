"""What `deployment.yaml` may say of ensembles, routes and columns, and each mistake with its line and sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scoring import settings
from scoring.cli import execute
from scoring.deployment import Deployment, EnsembleStep, RouteStep, children, load, outputs_of, path_of, places
from scoring.errors import ConfigurationError

HEAD = """\
name: small
owner: {team: T, email: [a@b]}
input: {path: /in, partition: day, keys: [id]}
output: {path: /out}
"""
CONTRACT = 'input: {path: /in, partition: day, keys: [id], columns: {id: int64, x: double, y: "double?", city: string}}'
LABELS = """
drift:
  reference: {first: 2013-01-01, last: 2013-01-02}
  labels:
    path: /labels
    column: late
    output: scores
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(settings.HOME_VARIABLE, "/home/of/tests")
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(tmp_path))
    (tmp_path / "small").mkdir()
    return tmp_path / "small"


def write(folder: Path, score: str, *, with_contract: bool = False, rest: str = "") -> None:
    head = HEAD.replace(HEAD.splitlines()[2], CONTRACT) if with_contract else HEAD
    (folder / "deployment.yaml").write_text(f"{head}score:\n{score.strip(chr(10))}\n{rest}", "utf-8")


def accepted(folder: Path, score: str, **more: bool) -> Deployment:
    write(folder, score, **more)
    (found,) = execute.validate(["small"])
    assert found["error"] is None
    return load("small")


def refused(folder: Path, score: str, *, with_contract: bool = False, rest: str = "") -> str:
    """Return what `scoring validate` says, with the name of the file alone in front."""
    write(folder, score, with_contract=with_contract, rest=rest)
    (found,) = execute.validate(["small"])
    assert found["error"] is not None
    return str(found["error"]).removeprefix(f"{folder}/")


MEMBERS = """
    members:
      linear: {model: "models:/a@champion"}
      trees: {model: "models:/b@champion"}
"""


def ensemble(combine: str, members: str = MEMBERS) -> str:
    return f"  ensemble:\n    {combine}\n{members.strip(chr(10))}"


ROUTE = """
  pipeline:
    - model: "models:/a@champion"
    - route:
        cases:
          - when: "x > 1"
            then: {values: {score: 0.9, reason: cap}}
        otherwise: {values: {reason: model}}
"""


# ---------------------------------------------------------------------------------------------------- what is read


def test_steps_have_paths_as_sentences_write_them(folder: Path) -> None:
    score = """
  pipeline:
    - ensemble:
        combine: {model: "models:/blend@champion"}
        members:
          linear: {model: "models:/a@champion"}
          trees: {model: "models:/b@champion"}
    - route:
        cases:
          - when: "x > 1"
            then: {values: {score: 0.9, reason: cap}}
        otherwise: {values: {reason: model}}
"""
    found = accepted(folder, score, with_contract=True)
    assert [path_of(keys) for keys, _ in places(found.score)] == [
        "score",
        "score.pipeline.0",
        "score.pipeline.0.ensemble.members.linear",
        "score.pipeline.0.ensemble.members.trees",
        "score.pipeline.0.ensemble.combine",
        "score.pipeline.1",
        "score.pipeline.1.route.cases.0.then",
        "score.pipeline.1.route.otherwise",
    ]
    assert [step.model for step in found.model_steps] == [f"models:/{name}@champion" for name in ("a", "b", "blend")]
    (_, ensembles), (_, routed) = children(found.score)
    assert isinstance(ensembles, EnsembleStep)
    assert isinstance(routed, RouteStep)
    assert (outputs_of(ensembles), outputs_of(routed)) == (("score",), ())


@pytest.mark.parametrize(
    ("combine", "names"),
    [("mean", ("p_a", "p_b")), ("mean\n    outputs: [q_a, q_b]", ("q_a", "q_b")), ("soft_vote", ("score",))],
)
def test_an_ensemble_of_members_with_several_outputs_has_names_for_all(
    folder: Path, combine: str, names: tuple[str, ...]
) -> None:
    members = MEMBERS.replace('champion"', 'champion", outputs: [p_a, p_b]')
    assert outputs_of(accepted(folder, ensemble(f"combine: {combine}", members)).score) == names


def test_a_later_output_may_replace_an_earlier_one_where_that_is_said(folder: Path) -> None:
    steps = '  pipeline: [{model: "models:/a@champion"}, {model: "models:/b@champion", replace: true}]'
    assert outputs_of(accepted(folder, steps).score) == ("score",)


def test_after_a_rule_nobody_knows_which_columns_there_are(folder: Path) -> None:
    rule = '{rule: {sql: "select * exclude (score), score as first from batch"}}'
    steps = f'  pipeline: [{{model: "models:/a@champion"}}, {rule}, {{model: "models:/b@champion"}}]'
    assert accepted(folder, steps, with_contract=True).name == "small"


def test_defaults_and_reasons_fit_each_other(folder: Path) -> None:
    assert accepted(folder, ROUTE, with_contract=True).name == "small"
    assert accepted(folder, ROUTE).name == "small", "what the files hold is seen when a run is planned"


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (
            "  &again\n  pipeline: [*again]",
            """deployment.yaml:6: 'score.pipeline.0' contains itself: expected steps that end, got a cycle.""",
        ),
        (
            """
  pipeline:
    - {model: "models:/a@champion", inputs: {f: second}}
    - {model: "models:/b@champion", output: second}
""",
            """deployment.yaml:7: 'score.pipeline.0.inputs.f' reads a column that is made later: expected a column of
            the input or of a step before, got 'second', which 'score.pipeline.1' makes. Change the order of the
            steps.""",
        ),
        (
            '  pipeline:\n    - {model: "models:/a@champion"}\n    - {model: "models:/b@champion"}',
            """deployment.yaml:8: 'score.pipeline.1' makes a column that is there already: expected another name than
            'score', which 'score.pipeline.0' makes, got the same. Set 'output', or 'replace: true' if that is
            meant.""",
        ),
        (
            ensemble("combine: weighted_mean\n    weights: {linear: 0, trees: 0}"),
            """deployment.yaml:8: 'score.ensemble' is not valid. expected weights with a sum above zero.""",
        ),
        (
            ensemble("combine: weighted_mean\n    weights: {linear: 1, treees: 2}"),
            """deployment.yaml:8: 'score.ensemble' is not valid. expected weights for exactly linear, trees, got
            linear, treees. Did you mean 'trees'?""",
        ),
        (
            ensemble("combine: mean", MEMBERS.replace('{model: "models:/b@champion"}', "")),
            """deployment.yaml:10: 'score.ensemble.members.trees' is not a step: expected exactly one of the keys
            model, pipeline, ensemble, rule, route, values, got None.""",
        ),
        (
            ensemble("combine: wieghted_mean"),
            """deployment.yaml:7: 'score.ensemble.combine' is not valid: expected 'mean', 'weighted_mean', 'median',
            'geometric_mean', 'rank_mean', 'min', 'max', 'soft_vote' or 'hard_vote', got 'wieghted_mean'. Did you
            mean 'weighted_mean'?""",
        ),
        (
            ensemble("combine: median\n    weights: {linear: 1, trees: 2}"),
            """deployment.yaml:8: 'score.ensemble' is not valid. combine: median takes no 'weights'. Use
            weighted_mean.""",
        ),
        (
            ensemble("combine: soft_vote", MEMBERS.replace('b@champion"', 'b@champion", method: predict')),
            """deployment.yaml:10: 'score.ensemble' is not valid. soft_vote averages probabilities, and trees gives
            classes. Remove 'method: predict', or use hard_vote.""",
        ),
        (
            ensemble("combine: mean\n    ties: last"),
            """deployment.yaml:8: 'score.ensemble' is not valid. 'ties' is for soft_vote and hard_vote.""",
        ),
        (
            ensemble("combine: soft_vote\n    ties: frist"),
            """deployment.yaml:8: 'score.ensemble.ties' is not valid: expected 'first' or 'last', got 'frist'. Did you
            mean 'first'?""",
        ),
        (
            ensemble("combine: rank_mean"),
            """deployment.yaml:6: 'score.ensemble' is not valid. combine: rank_mean needs 'quantiles' of every member's
            scores, and no other combiner does.""",
        ),
        (
            ensemble("combine: rank_mean\n    quantiles: {linear: [0, 1], trees: [1, 0]}"),
            """deployment.yaml:8: 'score.ensemble' is not valid. expected at least two finite numbers that do not fall
            as quantiles of 'trees'.""",
        ),
        (
            ensemble("combine: mean", MEMBERS.replace('a@champion"', 'a@champion", outputs: [p, q]')),
            """deployment.yaml:10: 'score.ensemble' is not valid. members cannot be combined: expected outputs p, q of
            'trees', as of 'linear', got score.""",
        ),
        (
            ensemble(
                "combine: soft_vote\n    outputs: [a, b]", MEMBERS.replace('champion"', 'champion", outputs: [p, q]')
            ),
            """deployment.yaml:8: 'score.ensemble' is not valid. soft_vote gives one class number: name it with
            'output'.""",
        ),
        (
            ensemble("combine: mean\n    output: p", MEMBERS.replace('champion"', 'champion", outputs: [p, q]')),
            """deployment.yaml:6: 'score.ensemble' is not valid. members have 2 outputs each: expected as many names in
            'outputs'.""",
        ),
        (
            ensemble(
                "combine: mean\n    keep_members: true",
                MEMBERS.replace('champion"', 'champion", outputs: [p, p_trees]'),
            ),
            """deployment.yaml:6: 'score.ensemble' is not valid. two of the ensemble's columns are called p_trees.
            Rename a member or an output.""",
        ),
        (
            ensemble('combine: {model: "models:/c@champion", output: p}'),
            """deployment.yaml:7: 'score.ensemble' is not valid. expected output on the ensemble, not on its
            combiner.""",
        ),
        (
            ensemble('combine: {modell: "models:/c@champion"}'),
            """deployment.yaml:7: unknown key 'score.ensemble.combine.modell' (1 more after this one): expected one of
            output, outputs, replace, model, inputs, method, batch_size, device, precision, compile, got 'modell'.
            Did you mean 'model'?""",
        ),
        (
            ensemble('combine: {model: "models:/c@champion"}\n    on_failure: drop'),
            """deployment.yaml:8: 'score.ensemble' is not valid. a learned combiner needs every member, so that none
            can be dropped: remove 'on_failure'.""",
        ),
        (
            '  {model: "models:/a@champion", output: p, outputs: [p, q]}',
            """deployment.yaml:5: 'score' is not valid. expected either 'output' or 'outputs'.""",
        ),
        (
            '  {model: "models:/a@champion", outputs: [p, p]}',
            """deployment.yaml:5: 'score' is not valid. expected every name in 'outputs' once, p is there twice.""",
        ),
        (
            ROUTE.replace("when:", "wen:"),
            """deployment.yaml:10: unknown key 'score.pipeline.1.route.cases.0.wen' (1 more after this one): expected
            one of when, then, got 'wen'. Did you mean 'when'?""",
        ),
        (
            ROUTE.replace("{values: {reason: model}}", "eror"),
            """deployment.yaml:12: 'score.pipeline.1.route.otherwise' is not valid: expected 'error', got 'eror'. Did
            you mean 'error'?""",
        ),
        (
            ROUTE.replace("{score: 0.9, reason: cap}", "{score: [0.9]}"),
            """deployment.yaml:11: 'score.pipeline.1.route.cases.0.then.values.score' is not valid. expected a finite
            number of 64 bits, text, true, false or null, got [0.9].""",
        ),
        (
            ROUTE.replace("x > 1", "x >"),
            """'x >' is not a predicate: expected one SQL expression over the columns of a row, got syntax error at or
            near ")".""",
        ),
    ],
)
def test_a_mistake_in_the_graph_is_named_with_its_line(folder: Path, score: str, sentence: str) -> None:
    assert refused(folder, score) == " ".join(sentence.split())


@pytest.mark.parametrize(
    ("score", "rest", "sentence"),
    [
        (
            '  {model: "models:/a@champion"}',
            LABELS,
            """deployment.yaml:13: 'drift.labels.output' of 'small' names unknown columns: expected outputs of the
            graph: score, got scores. Did you mean 'score'?""",
        ),
        (
            '  {model: "models:/a@champion", inputs: {f: citty}}',
            "",
            """deployment.yaml:6: 'score.inputs': 'inputs' names unknown columns: expected some of id, x, y, city, day,
            got citty. Did you mean 'city'?""",
        ),
        (
            ROUTE.replace("x > 1", "cty = 'Oslo'"),
            "",
            """deployment.yaml:8: 'score.pipeline.1': predicate "cty = 'Oslo'" of a route names unknown columns:
            expected some of id, x, y, city, day, score, got cty. Did you mean 'city'?""",
        ),
        (
            ROUTE.replace("{reason: model}", "{reasn: model}"),
            "",
            """deployment.yaml:8: 'score.pipeline.1': branch 'otherwise' of a route lacks columns that another branch
            ends with: expected also reason, got columns id, x, y, city, day, score, reasn. Add them with 'values',
            or remove them from the other.""",
        ),
        (
            ensemble('combine: {model: "models:/c@champion"}', MEMBERS.replace("linear", "city")),
            "",
            """deployment.yaml:5: members of an ensemble are called like columns of the batch: expected names that the
            combiner can tell apart, got city. Rename the members.""",
        ),
        (
            "  {values: {nothing: null}}",
            "",
            """deployment.yaml:5: outputs of 'small' are null in every row: expected a value that says their type, got
            nothing.""",
        ),
    ],
)
def test_columns_are_followed_from_a_declared_contract_through_the_graph(
    folder: Path, score: str, rest: str, sentence: str
) -> None:
    assert refused(folder, score, with_contract=True, rest=rest) == " ".join(sentence.split())


def test_a_rule_that_reads_a_column_which_no_step_makes_is_named(folder: Path) -> None:
    rules = [
        f'    - {{rule: {{sql: "select *, {column} as {name} from batch"}}}}'
        for column, name in (("x * 2", "twice"), ("twise", "z"))
    ]
    message = refused(folder, "\n".join(["  pipeline:", *rules]), with_contract=True)
    assert message.startswith(
        "deployment.yaml:8: 'score.pipeline.1': rule 'sql: select *, twise as z from batch' raised"
    )
    assert 'Candidate bindings: "twice"' in message


def test_an_output_that_no_step_makes_is_found_without_a_contract_too(folder: Path) -> None:
    message = refused(folder, ROUTE, rest=LABELS)
    assert message.startswith(
        "deployment.yaml:19: 'drift.labels.output' of 'small' names unknown columns: expected outputs"
    )
    assert message.endswith("of the graph: score, reason, got scores. Did you mean 'score'?")


def test_a_kept_column_that_is_not_in_the_contract_is_found(folder: Path) -> None:
    write(folder, '  {model: "models:/a@champion"}', with_contract=True)
    file = folder / "deployment.yaml"
    file.write_text(file.read_text("utf-8").replace("{path: /out}", "{path: /out, keep: [cty]}"), "utf-8")
    (found,) = execute.validate(["small"])
    assert str(found["error"]).endswith(
        "deployment.yaml:4: 'output.keep' of 'small' names unknown columns: expected columns of the input: id, x, y, "
        "city, day, got cty. Did you mean 'city'?"
    )


def test_what_is_wrong_whatever_the_columns_are_is_found_when_the_file_is_read(folder: Path) -> None:
    write(folder, '  pipeline: [{model: "models:/a@champion"}, {model: "models:/b@champion"}]')
    with pytest.raises(ConfigurationError, match=r":6: 'score\.pipeline\.1' makes a column that is there already"):
        load("small")


CHECKING = """
import json, sys, time
from scoring.cli import app
try:
    app(["validate", "small", "--json"])
except SystemExit as end:
    code = end.code
heavy = {"evidently", "great_expectations", "mlflow", "pyspark", "sklearn", "tensorflow", "torch", "xgboost"}
print(json.dumps([code, time.process_time(), sorted(heavy & set(sys.modules))]), file=sys.stderr)
"""


@pytest.mark.parametrize("score", ['  {model: "models:/a@champion"}', ROUTE, ROUTE.replace("x > 1", "xx > 1")])
def test_it_takes_less_than_two_seconds_and_no_framework(folder: Path, score: str) -> None:
    write(folder, score, with_contract=True)
    done = subprocess.run([sys.executable, "-c", CHECKING], capture_output=True, text=True, check=True)
    code, seconds, heavy = json.loads(done.stderr.splitlines()[-1])
    assert code == (2 if "xx" in score else 0), done.stdout
    assert seconds < 2
    assert heavy == []
