from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scoring import deployment, settings
from scoring.deployment import Combine, EnsembleStep, ModelStep, PipelineStep, RuleStep, load, outputs_of, parse, walk
from scoring.errors import ConfigurationError

FULL = """\
name: flights
description: Probability of a delay.
owner: {team: Flight data, email: [a@example.com, flight-data@mail.example.com]}
schedule: "0 3 * * *"
input:
  path: "${SCORING_HOME}/lake/"
  partition: day
  keys: [id]
  columns:
    id: string
    x: double?
    n: {type: int32, nullable: true}
  parse_text: true
output:
  path: s3://bucket/predictions
  keep: [x]
score:
  pipeline:
    - rule: {python: "rules:add_calendar"}
    - ensemble:
        combine: weighted_mean
        weights: {linear: 0.25, trees: 0.75}
        members:
          linear: {model: "models:/linear@champion"}
          trees:
            pipeline:
              - rule: {sql: "select *, x * 2 as twice from batch"}
              - ensemble:
                  combine: max
                  keep_members: true
                  output: highest
                  members:
                    small: {model: "models:/small@champion", output: p, method: predict_proba, batch_size: 100}
                    large: {model: "models:/large@champion", device: gpu}
    - rule: {sql: "select *, score >= 0.5 as is_late from batch"}
resources: {cpus_per_task: 2, gpus_per_task: 1, allow_cpu: false}
checks: {input: expectations/input.yaml}
drift:
  reference: {first: 2013-01-01, last: 2013-03-31}
  labels: {path: /labels, column: is_late, delay_days: 2}
retrain: {train: "train:train", when: [performance], approval: true}
"""
SMALL = """\
name: small
owner: {team: T, email: [a@b]}
input: {path: /in, partition: day, keys: [id]}
output: {path: /out}
score: {model: "models:/m@champion"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(settings.HOME_VARIABLE, "/home/of/tests")
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(tmp_path))
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "rules.py").write_text("def add_calendar(batch):\n    return batch\n", "utf-8")
    return folder


@pytest.fixture
def full(folder: Path) -> deployment.Deployment:
    folder = folder.rename(folder.with_name("flights"))
    (folder / "train.py").write_text("def train(window):\n    return {}\n", "utf-8")
    (folder / "expectations").mkdir()
    (folder / "expectations" / "input.yaml").write_text("columns: {}\n", "utf-8")
    (folder / "deployment.yaml").write_text(FULL, "utf-8")
    return load("flights")


def refused(text: str, folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, folder=folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def with_score(score: str) -> str:
    return SMALL.replace('{model: "models:/m@champion"}', score)


# ------------------------------------------------------------------------------------------------------ what is read


def test_everything_an_author_may_write_becomes_a_value(full: deployment.Deployment) -> None:
    assert full.name == "flights"
    assert full.owner.email == ("a@example.com", "flight-data@mail.example.com")
    assert full.input.path == "/home/of/tests/lake"
    assert full.output.path == "s3://bucket/predictions"
    assert full.output.quarantine_path == "s3://bucket/predictions_quarantine"
    assert {name: (c.type, c.nullable) for name, c in (full.input.columns or {}).items()} == {
        "id": ("string", False),
        "x": ("double", True),
        "n": ("int32", True),
    }
    assert full.resources.gpus_per_task == 1
    assert full.resources.batch_rows == 65_536
    assert full.retrain is not None
    assert [str(cause) for cause in full.retrain.when] == ["performance"]
    assert full.source("train").is_file()


def test_steps_nest_and_are_walked_outermost_first(full: deployment.Deployment) -> None:
    kinds = [type(step).__name__.removesuffix("Step").lower() for step in walk(full.score)]
    assert kinds == [
        *("pipeline", "rule", "ensemble", "model"),
        *("pipeline", "rule", "ensemble", "model", "model"),
        "rule",
    ]
    assert [step.model for step in full.model_steps] == [
        "models:/linear@champion",
        "models:/small@champion",
        "models:/large@champion",
    ]
    assert [step.device for step in full.model_steps] == ["cpu", "cpu", "gpu"]


def test_a_step_knows_the_column_that_an_ensemble_would_combine(full: deployment.Deployment) -> None:
    outputs = [",".join(outputs_of(step)) for step in walk(full.score)]
    assert outputs == ["score", "", "score", "score", "highest", "", "highest", "p", "score", ""]


def test_a_deployment_cannot_be_changed(full: deployment.Deployment) -> None:
    with pytest.raises(ValueError, match="frozen"):
        full.name = "other"  # type: ignore[misc]


def test_defaults_score_a_partition_without_schedule_checks_drift_and_retraining(folder: Path) -> None:
    small = parse(SMALL, folder=folder)
    assert isinstance(small.score, ModelStep)
    assert (small.score.output, small.score.method, small.score.batch_size) == ("score", "auto", None)
    assert small.schedule is small.drift is small.retrain is small.checks.input is None
    assert small.input.max_quarantined_share == 0.01
    assert small.input.lag_days == 1


@pytest.mark.parametrize("combine", Combine)
def test_every_combiner_can_be_written(folder: Path, combine: Combine) -> None:
    more = {Combine.WEIGHTED_MEAN: "weights: {a: 1}, ", Combine.RANK_MEAN: "quantiles: {a: [0, 1]}, "}
    weights = more.get(combine, "")
    text = with_score(f'{{ensemble: {{combine: {combine}, {weights}members: {{a: {{model: "models:/m/1"}}}}}}}}')
    score = parse(text, folder=folder).score
    assert isinstance(score, EnsembleStep)
    assert score.ensemble.combine is combine


def test_a_dollar_sign_is_doubled(folder: Path) -> None:
    text = with_score("""{rule: {sql: "select *, '$$5' as price from batch"}}""")
    score = parse(text, folder=folder).score
    assert isinstance(score, RuleStep)
    assert score.rule.sql == "select *, '$5' as price from batch"


def test_a_comment_may_hold_a_dollar_sign(folder: Path) -> None:
    assert parse(f"# costs $5\n{SMALL}", folder=folder).name == "small"


def test_a_variable_is_a_value_and_cannot_add_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "T, email: [evil@example.com]}\nretrain: {x: 1 #")
    owner = parse(SMALL.replace("team: T", 'team: "${TEAM}"'), folder=folder).owner
    assert owner.team == "T, email: [evil@example.com]}\nretrain: {x: 1 #"
    assert owner.email == ("a@b",)


def test_an_alias_repeats_a_value_with_its_variables(folder: Path) -> None:
    text = SMALL.replace("path: /in", 'path: &lake "${SCORING_HOME}/$$"') + "description: *lake\n"
    found = parse(text, folder=folder)
    assert found.input.path == found.description == "/home/of/tests/$"


def test_equal_text_gives_equal_deployments(folder: Path) -> None:
    assert parse(SMALL, folder=folder) == parse(SMALL, folder=folder)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name: small", "naem: small", r":1: unknown key 'naem' \(1 more.*got 'naem'\. Did you mean 'name'\?$"),
        ("output: {path: /out}", "output: {pathh: /out}", r":4: unknown key 'output\.pathh'.*Did you mean 'path'\?$"),
        ("keys: [id]", "keys: [id], lagdays: 2", r":3: unknown key 'input\.lagdays': expected one of path, sql, table"),
        ("name: small", "name: small\nzzz: 1", r":2: unknown key 'zzz'.*Remove it\.$"),
        ("owner: {team: T, email: [a@b]}\n", "", r":1: 'owner' is missing\. Add it\.$"),
        ("team: T, ", "", r":2: 'owner\.team' is missing\. Add it\.$"),
        ("[a@b]", "[]", r":2: 'owner\.email' is not valid: expected .*at least 1"),
        ("[a@b]", "[a@b, nobody]", r":2: 'owner\.email\.1' is not valid\. expected an e-mail address, got 'nobody'\.$"),
        ("[a@b]", '["a@b\\nBcc: c@d"]', r"'owner\.email\.0' is not valid.* expected an e-mail address"),
        ("name: small", "name: Small", r":1: 'name' is not valid: expected .*'Small'"),
        ("/in,", "lake,", r":3: 'input\.path' is not valid\. .*got 'lake'\. Write \$\{SCORING_HOME\}/lake\.$"),
        ("partition: day", "partition: a-b", r":3: 'input\.partition' is not valid\. expected a column name.*'a-b'"),
        ("keys: [id]", "keys: []", r":3: 'input\.keys' is not valid: .*at least 1"),
        ("keys: [id]", "keys: [id], columns: {x: double}", r"every key in 'columns', id is missing\.$"),
        ("keys: [id]", 'keys: [id], columns: {id: "string?"}', r"a key cannot be null: remove the '\?' of id\.$"),
        ("keys: [id]", "keys: [id], columns: {id: text}", r":3: 'input\.columns\.id\.type' .*'string'.*got 'text'"),
        ("keys: [id]", "keys: [id], max_quarantined_share: 2", r"'input\.max_quarantined_share' .*less than.*got 2"),
        ("keys: [id]", "keys: [id], extra_columns: maybe", r"'fail' or 'ignore', got 'maybe'"),
        ("name: small", 'name: small\nschedule: "0 3 *"', r":2: 'schedule' .*five fields, got '0 3 \*'\.$"),
        (
            "name: small",
            'name: small\nschedule: "0 24 * * *"',
            r":2: 'schedule' .*expected 0 to 23, .*the hour, got '24'",
        ),
        (
            "name: small",
            "name: small\nretrain: {train: train}",
            r":2: 'retrain\.train' .*'module:function'.*got 'train'",
        ),
        (
            "name: small",
            'name: small\nretrain: {train: "train:train"}',
            r":1: 'the deployment' is not valid\. 'retrain' needs 'drift: labels'",
        ),
        (
            "name: small",
            "name: small\ndrift: {reference: {first: 2013-02-01, last: 2013-01-01}}",
            r":2: 'drift\.reference' is not valid\. expected first <= last, got 2013-02-01 and 2013-01-01\.$",
        ),
        (
            "name: small",
            "name: small\ndrift: {reference: {first: today, last: 2013-01-01}}",
            r"'drift\.reference\.first'",
        ),
        (
            "name: small",
            "name: small\ndrift: {reference: {first: 2013-02-30, last: 2013-03-01}}",
            r":2: 'drift\.reference\.first'",
        ),
        ("name: small", "name: small\nresources: {gpus_per_task: 2}", r"'resources\.gpus_per_task' .*got 2"),
        ("path: /in, ", "", r":3: 'input' is not valid\. expected exactly one of 'path', 'sql' and 'table', got none"),
        ("path: /in", "path: /in, table: a.b", r"exactly one of 'path', 'sql' and 'table', got path, table"),
        ("path: /in", "table: a.b.c.d", r"'input\.table' .*'catalog\.schema\.table', got 'a\.b\.c\.d'"),
        ("path: /in", "sql: drop table a where day = :partition", r"to be a query that begins with SELECT or WITH"),
        ("path: /in", "sql: select id from a", r"expected ':partition' in 'sql', .*where day = :partition"),
        ("path: /in", "sql: 'select 1::partition'", r"expected ':partition' in 'sql'"),
        ("keys: [id]", "keys: [id, day]", r"'input\.keys' names the partition column 'day', .*Remove it there\.$"),
        (
            "path: /out",
            "path: /out, keep: [day]",
            r"'output\.keep' names the partition column 'day', .*Remove it there",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_line(folder: Path, old: str, new: str, sentence: str) -> None:
    assert old in SMALL
    message = refused(SMALL.replace(old, new), folder)
    assert message.startswith(f"{folder / 'deployment.yaml'}:")
    assert re.search(sentence, message), message


def test_a_query_or_a_table_may_be_the_input(folder: Path) -> None:
    for source in ("sql: 'WITH a as (select 1) select id from a where day = :partition'", "table: a", "table: a.b.c"):
        assert parse(SMALL.replace("path: /in", source), folder=folder).input.path is None
    drift = "drift: {reference: {first: 2013-01-01, last: 2013-01-02}}\n"
    message = refused(SMALL.replace("path: /in", "table: a.b") + drift, folder)
    assert re.search(r"'drift' and 'retrain' read their windows from files: expected 'input\.path'", message), message


LABELLED = """\
drift: {reference: {first: 2013-01-01, last: 2013-01-02}, labels: {path: /in/labels, column: late}}
retrain: {train: "rules:add_calendar"}
"""


@pytest.mark.parametrize("uri", ["models:/m/3", "models:/m@challenger"])
def test_only_champions_are_retrained(folder: Path, uri: str) -> None:
    assert parse(SMALL + LABELLED, folder=folder).retrain is not None
    message = refused((SMALL + LABELLED).replace("models:/m@champion", uri), folder)
    assert re.search(rf"every model must end with @champion, got {uri}\. Change it, or remove 'retrain'\.$", message)
    without = SMALL.replace("models:/m@champion", uri)
    assert parse(without, folder=folder).retrain is None


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("/in", "/in", r"'output\.path' \(/in\) and 'input\.path' \(/in\) overlap"),
        ("/in", "/in/out", r"'output\.path' \(/in/out\) and 'input\.path' \(/in\) overlap"),
        ("/lake/in", "/lake", r"'output\.path' \(/lake\) and 'input\.path' \(/lake/in\) overlap"),
        ("/in", "file:///x/../in/", r"'output\.path' .* and 'input\.path' \(/in\) overlap"),
        ("s3://b/in", "s3://me:secret@b/in/out?region=x", r"'output\.path' .* and 'input\.path' .* overlap"),
        ("/a_quarantine", "/a", r"the quarantine of 'output\.path' \(/a_quarantine\) and 'input\.path'.* overlap"),
        ("/lake", "/in/labels", r"'output\.path' \(/in/labels\) and 'drift\.labels\.path' \(/in/labels\) overlap"),
        ("/lake", "/in", r"'output\.path' \(/in\) and 'drift\.labels\.path' \(/in/labels\) overlap"),
    ],
)
def test_what_is_published_is_not_read_as_input(folder: Path, source: str, target: str, sentence: str) -> None:
    text = (SMALL + LABELLED).replace("path: /in,", f'path: "{source}",').replace("path: /out", f'path: "{target}"')
    message = refused(text, folder)
    assert re.search(rf"{sentence}: .*Use separate folders\.$", message), message


@pytest.mark.parametrize(
    ("source", "target"),
    [("/in", "/in2"), ("/lake/in", "/lake/out"), ("s3://a/in", "s3://b/in"), ("/b/in", "s3://b/in")],
)
def test_neighbouring_locations_are_fine(folder: Path, source: str, target: str) -> None:
    text = SMALL.replace("path: /in,", f'path: "{source}",').replace("path: /out", f'path: "{target}"')
    assert parse(text, folder=folder).output.path == target


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (
            "{}",
            r"'score' is not a step: expected exactly one of the keys model, .*, rule, route, values, got \{\}",
        ),
        ("models:/m/1", r"'score' is not a step: .*got 'models:/m/1'"),
        ('{modle: "models:/m/1"}', r"'score' is not a step: .*got modle\. Did you mean 'model'\?$"),
        ('{model: "models:/m/1", rule: {sql: s}}', r"'score' is not a step: .*got model, rule\.$"),
        ("{model: m}", r":5: 'score\.model' is not valid\. expected 'models:/name@alias' or 'models:/name/version'"),
        ('{model: "models:/m/latest"}', r"'score\.model' is not valid\..*got 'models:/m/latest'"),
        ('{model: "runs:/1/m"}', r"'score\.model' is not valid"),
        ('{model: "models:/m/1", batchsize: 3}', r"unknown key 'score\.batchsize'.*Did you mean 'batch_size'\?$"),
        ('{model: "models:/m/1", batch_size: 0}', r"'score\.batch_size' is not valid: expected greater than 0, got 0"),
        ('{model: "models:/m/1", device: cuda}', r"'score\.device' is not valid: expected 'cpu' or 'gpu', got 'cuda'"),
        ('{model: "models:/m/1", method: transform}', r"'auto', 'predict' or 'predict_proba', got 'transform'"),
        (
            '{pipeline: [{model: "models:/m@champion"}, {model: "models:/m/1", output: o}]}',
            r"registered model 'm' is used twice, as 'models:/m@champion' and as 'models:/m/1'",
        ),
        ("{rule: {}}", r"'score\.rule' is not valid\. expected either 'python' or 'sql'\.$"),
        ('{rule: {sql: s, python: "a:b"}}', r"'score\.rule' is not valid\. expected either 'python' or 'sql'\.$"),
        ("{rule: {python: add}}", r"'score\.rule\.python' .*expected 'module:function' of a file .*got 'add'"),
        ('{rule: {python: "../x:add"}}', r"'score\.rule\.python' .*got '\.\./x:add'"),
        ("{pipeline: []}", r"'score\.pipeline' is not valid: .*at least 1"),
        ("{pipeline: [{rule: {sqll: s}}]}", r"unknown key 'score\.pipeline\.0\.rule\.sqll'.*Did you mean 'sql'\?$"),
        (
            "{ensemble: {combine: meen, members: {a: {model: m}}}}",
            r"'score\.ensemble\.combine' .*'meen'\. Did you mean 'mean'",
        ),
        ("{ensemble: {combine: mean, members: {}}}", r"'score\.ensemble\.members' is not valid: .*at least 1"),
        ("{ensemble: {combine: mean, members: {a b: {model: m}}}}", r"members.*expected a column name.*got 'a b'"),
        (
            "{ensemble: {combine: mean, member: {}}}",
            r"unknown key 'score\.ensemble\.member'.*Did you mean 'members'\?$",
        ),
    ],
)
def test_a_wrong_step_is_named_with_its_place(folder: Path, score: str, sentence: str) -> None:
    message = refused(with_score(score), folder)
    assert re.search(sentence, message), message
    assert "models:" not in message.split(" is ")[0]


MEMBERS = 'members: {a: {model: "models:/a/1"}, b: {model: "models:/b/1"}}'


@pytest.mark.parametrize(
    ("ensemble", "sentence"),
    [
        ("combine: weighted_mean", r"weighted_mean needs 'weights', one number per member\.$"),
        ("combine: mean, weights: {a: 1, b: 1}", r"combine: mean takes no 'weights'\. Use weighted_mean\.$"),
        ("combine: max, weights: {a: 1, b: 1}", r"combine: max takes no 'weights'"),
        ("combine: soft_vote, weights: {a: 1, c: 1}", r"weights for exactly a, b, got a, c\.$"),
        ("combine: weighted_mean, weights: {a: 1}", r"weights for exactly a, b, got a\.$"),
        ("combine: weighted_mean, weights: {a: 0, b: 0}", r"weights with a sum above zero\.$"),
        ("combine: hard_vote, weights: {a: -1, b: 3}", r"weights that are finite and not negative\.$"),
        ("combine: weighted_mean, weights: {a: .inf, b: 1}", r"weights that are finite and not negative\.$"),
        ("combine: weighted_mean, weights: {a: .nan, b: 1}", r"weights that are finite and not negative\.$"),
        ("combine: weighted_mean, weights: {a: much, b: 1}", r"weights\.a' is not valid: expected number.*got 'much'"),
    ],
)
def test_an_ensemble_says_what_does_not_fit(folder: Path, ensemble: str, sentence: str) -> None:
    message = refused(with_score(f"{{ensemble: {{{ensemble}, {MEMBERS}}}}}"), folder)
    assert re.search(sentence, message), message
    assert ":5: 'score.ensemble" in message


def test_a_member_needs_an_output_to_combine(folder: Path) -> None:
    message = refused(with_score("{ensemble: {combine: mean, members: {a: {rule: {sql: s}}}}}"), folder)
    assert re.search(r"member 'a' has no output to combine: it holds no model and no ensemble\.$", message)


def test_a_mistake_deep_inside_has_the_line_of_its_key(folder: Path) -> None:
    (folder.parent / "flights").mkdir()
    text = FULL.replace("output: p,", "outputt: p,")
    message = refused(text, folder.parent / "flights")
    line = next(number for number, line in enumerate(text.splitlines(), start=1) if "outputt: p" in line)
    place = "score.pipeline.1.ensemble.members.trees.pipeline.1.ensemble.members.small.outputt"
    assert f":{line}: unknown key '{place}'" in message
    assert message.endswith("Did you mean 'output'?")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", r"is not YAML: got .*line 1"),
        ("- a\n", r"is not a deployment: expected a mapping of keys, got list"),
        ("", r"is not a deployment: expected a mapping of keys, got NoneType"),
        (
            SMALL.replace("/in", '"${NO_SUCH}/in"'),
            r":3: variable 'NO_SUCH' is not set: expected a value, got none\. Export it",
        ),
        (SMALL.replace("/in", "/in$"), r":3: a '\$' starts no variable: expected \$\{NAME\}, or \$\$ .*got '/in\$'\.$"),
        (SMALL + "name: other\n", r":6: key 'name' is there twice\.$"),
        (with_score("{ensemble: {combine: mean, members: {a: {}, a: {}}}}"), r":5: key 'a' is there twice\.$"),
        (
            with_score("&s {pipeline: [*s]}"),
            r":5: 'score\.pipeline\.0' contains itself: expected steps that end, got a cycle\.$",
        ),
        (
            SMALL + "description: !!python/object/apply:os.getcwd []\n",
            r"is not YAML: .*could not determine a constructor",
        ),
        (
            SMALL.replace("small", "other"),
            r"deployment 'other' lies in the wrong folder: expected a folder named 'other', got",
        ),
        (SMALL + "checks: {input: no.yaml}\n", r"names an expectation suite that is missing: expected a file no.yaml"),
        (
            with_score('{rule: {python: "rules:add_calender"}}'),
            r"expected a function 'add_calender' in .*'add_calendar'\?$",
        ),
        (
            with_score('{rule: {python: "ruls:add"}}'),
            r"refers to 'ruls:add': expected a function 'add' in .*no such file",
        ),
    ],
)
def test_a_wrong_file_is_named(folder: Path, text: str, sentence: str) -> None:
    message = refused(text, folder)
    assert re.search(sentence, message), message


def test_a_rule_file_that_is_not_python_is_named_with_its_line(folder: Path) -> None:
    (folder / "rules.py").write_text("def add(batch):\n    return (\n", "utf-8")
    message = refused(with_score('{rule: {python: "rules:add"}}'), folder)
    assert re.search(r"rules\.py is not Python: got .* in line 2", message)


def test_code_of_a_deployment_is_not_run_when_it_is_read(folder: Path) -> None:
    (folder / "rules.py").write_text("raise SystemExit(9)\ndef add(batch):\n    return batch\n", "utf-8")
    assert parse(with_score('{rule: {python: "rules:add"}}'), folder=folder).name == "small"


# ------------------------------------------------------------------------------------------------------ finding them


def test_deployments_are_found_by_name_and_by_path(folder: Path) -> None:
    (folder / "deployment.yaml").write_text(SMALL, "utf-8")
    (folder.parent / "no_deployment").mkdir()
    (folder.parent / ".small.0123.old").mkdir()
    (folder.parent / ".small.0123.old" / "deployment.yaml").write_text(SMALL, "utf-8")
    assert deployment.names() == ["small"]
    assert load("small") == load(folder)
    assert load("small").folder == folder


def test_an_unknown_deployment_names_the_nearest(folder: Path) -> None:
    (folder / "deployment.yaml").write_text(SMALL, "utf-8")
    with pytest.raises(ConfigurationError, match=r"'smal' was not found: .*Did you mean 'small'\?$"):
        load("smal")
    with pytest.raises(ConfigurationError, match=r"'xyz' was not found: .*Known deployments: small\.$"):
        load("xyz")


def test_no_deployments_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.DEPLOYMENTS_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"Known deployments: none\.$"):
        load("xyz")


# ------------------------------------------------------------------------------------------------------ properties


def mutations() -> Iterator[tuple[str, ...]]:
    def paths(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield (*path, key)
                yield from paths(inner, (*path, key))

    return paths(yaml.safe_load(SMALL))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@given(path=st.sampled_from(list(mutations())), value=VALUES)
def test_any_wrong_value_is_a_sentence_and_never_a_traceback(
    path: tuple[str, ...], value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    document = yaml.safe_load(SMALL)
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    text = yaml.safe_dump(document).replace("$", "$$")
    try:
        parse(text, folder=Path("/nowhere/small"))
    except ConfigurationError as error:
        assert str(error)  # noqa: PT017 - a valid value is fine, too


def test_a_pipeline_holds_its_steps_in_order(folder: Path) -> None:
    steps = '{pipeline: [{model: "models:/a/1"}, {model: "models:/b/2", output: p}]}'
    score = parse(with_score(steps), folder=folder).score
    assert isinstance(score, PipelineStep)
    assert [step.model for step in walk(score) if isinstance(step, ModelStep)] == ["models:/a/1", "models:/b/2"]
