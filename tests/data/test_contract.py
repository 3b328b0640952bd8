from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.data.contract import Contract, ContractColumn, contract_of
from scoring.data.partition import InputFile, Partition, RowGroup
from scoring.deployment import Input
from scoring.errors import ContractError
from scoring.testing import frozen_model

NAN = float("nan")


def partition(*schemas: pa.Schema) -> Partition:
    files = [InputFile(f"/lake/{at}.parquet", 1, schema, (RowGroup(1, 1),)) for at, schema in enumerate(schemas)]
    return Partition("day", "2013-01-01", tuple(files))


def source(columns: dict[str, str] | None = None, **settings: object) -> Input:
    return Input.model_validate({"path": "/lake", "partition": "day", "keys": ["id"], "columns": columns, **settings})


def declared(columns: dict[str, str], **settings: object) -> Contract:
    return contract_of(source({"id": "int64", **columns}, **settings), partition(pa.schema([])), [])


def one(values: pa.Array, kind: str, *, parse_text: bool = False) -> tuple[list[object], dict[int, str]]:
    """Apply the contract of one column, and return its kept values and the reasons for the others."""
    contract = declared({"v": kind}, parse_text=parse_text)
    table = pa.table({"id": pa.array(range(len(values)), pa.int64()), "v": values})
    contract.check_files(partition(table.schema))
    result, reasons = contract.apply(table)
    assert result.schema == pa.schema([("id", pa.int64()), ("v", contract.columns[1].type)])
    assert result.num_rows + len(reasons) == table.num_rows
    kept = [row for row in range(table.num_rows) if row not in reasons]
    assert result.column("id").to_pylist() == kept
    return result.column("v").to_pylist(), reasons


# ------------------------------------------------------------------------------------------------------ single values


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        (pa.array([1, 2], pa.int64()), "double", [1.0, 2.0]),
        (pa.array([1, 2], pa.int64()), "int8", [1, 2]),
        (pa.array([1.0, 2.0]), "int32", [1, 2]),
        (pa.array([1, 2], pa.uint8()), "float", [1.0, 2.0]),
        (pa.array([Decimal("1.50")]), "double", [1.5]),
        (pa.array([1.5], pa.float32()), "double", [1.5]),
        (pa.array([0.5], pa.float64()), "float", [0.5]),
        (pa.array([math.inf, -math.inf]), "float", [math.inf, -math.inf]),
        (pa.array(["a", "b"], pa.large_string()), "string", ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), "string", ["a", "b"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "string?", ["a", None, "a"]),
        (pa.array([5, None, 5]).dictionary_encode(), "int32?", [5, None, 5]),
        (pa.array([True, None]), "bool?", [True, None]),
        (pa.nulls(2), "double?", [None, None]),
        (pa.nulls(2), "string?", [None, None]),
        (pa.array([1.0, NAN, None]), "int32?", [1, None, None]),
        (pa.array([dt.date(2013, 1, 1)]), "timestamp", [dt.datetime(2013, 1, 1)]),
        (pa.array([dt.datetime(2013, 1, 1)], pa.timestamp("ms", "UTC")), "date32", [dt.date(2013, 1, 1)]),
        (pa.array([dt.datetime(2013, 1, 1)], pa.timestamp("ns")), "date32", [dt.date(2013, 1, 1)]),
        (pa.array([dt.datetime(2013, 1, 1, 5)], pa.timestamp("s")), "timestamp", [dt.datetime(2013, 1, 1, 5)]),
        (
            pa.array([dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC)], pa.timestamp("ms", "America/New_York")),
            "timestamp",
            [dt.datetime(2013, 1, 1, 5)],
        ),
    ],
)
def test_values_convert_without_loss(values: pa.Array, kind: str, kept: list[object]) -> None:
    assert one(values, kind) == (kept, {})


@pytest.mark.parametrize(
    ("values", "kind", "kept", "reasons"),
    [
        (pa.array([1.5, 2.0]), "int32", [2], {0: "v: 1.5 is not int32"}),
        (pa.array([2**40, 7]), "int32", [7], {0: "v: 1099511627776 is not int32"}),
        (pa.array([-1, 7]), "uint8", [7], {0: "v: -1 is not uint8"}),
        (pa.array([2**53 + 1, 7]), "double", [7.0], {0: "v: 9007199254740993 is not double"}),
        (pa.array([2**24 + 1, 7]), "float", [7.0], {0: "v: 16777217 is not float"}),
        (pa.array([1e300, 7.0]), "float", [7.0], {0: "v: 1e+300 is not float"}),
        (pa.array([math.inf, 7.0]), "int8", [7], {0: "v: inf is not int8"}),
        (pa.array([1, None]), "int32", [1], {1: "v: null in a required column"}),
        (pa.array([1.0, NAN]), "double", [1.0], {1: "v: null in a required column"}),
        (pa.array([1.0, NAN]), "int32", [1], {1: "v: null in a required column"}),
        (pa.array(["a", None]), "string", ["a"], {1: "v: null in a required column"}),
        (pa.nulls(1), "double", [], {0: "v: null in a required column"}),
        (pa.array([1.5, None, 3.0]), "int32?", [None, 3], {0: "v: 1.5 is not int32"}),
        (
            pa.array([dt.datetime(2013, 1, 1, 5), dt.datetime(2013, 1, 2)], pa.timestamp("us")),
            "date32",
            [dt.date(2013, 1, 2)],
            {0: "v: datetime.datetime(2013, 1, 1, 5, 0) is not date32[day]"},
        ),
    ],
)
def test_a_row_that_breaks_the_contract_is_left_out_with_its_reason(
    values: pa.Array, kind: str, kept: list[object], reasons: dict[int, str]
) -> None:
    assert one(values, kind) == (kept, reasons)


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize(
    ("kind", "good", "bad", "parsed"),
    [
        ("double", ["1.5", " 2 ", "-3e4"], ["1,5", "n/a", ""], [1.5, 2.0, -30000.0]),
        ("int32", ["1", " 2 "], ["1.5", "x", "3000000000"], [1, 2]),
        ("bool", ["true", "false"], ["maybe"], [True, False]),
        ("date32", ["2013-01-31"], ["31.01.2013", "2013-02-30"], [dt.date(2013, 1, 31)]),
        ("timestamp", ["2013-01-31T05:00:00"], ["yesterday"], [dt.datetime(2013, 1, 31, 5)]),
    ],
)
def test_text_is_parsed_when_the_deployment_says_so(
    text: pa.DataType, kind: str, good: list[str], bad: list[str], parsed: list[object]
) -> None:
    values, reasons = one(pa.array([*bad, *good], pa.string()).cast(text), kind, parse_text=True)
    assert values == parsed
    assert list(reasons) == list(range(len(bad)))
    assert reasons[0].startswith(f"v: {bad[0]!r} is not ")


@pytest.mark.parametrize(
    ("values", "kind", "kept", "reasons"),
    [
        (pa.array([Decimal("0.7"), Decimal("1e-9")]), "double", [0.7, 1e-9], {}),
        (
            pa.array([Decimal(2**53 + 1), Decimal(7)]),
            "double",
            [7.0],
            {0: "v: Decimal('9007199254740993') is not double"},
        ),
        (pa.array([1.5, 2.0, NAN], pa.float16()), "int8?", [2, None], {0: "v: 1.5 is not int8"}),
        (
            pa.array([Decimal("1.5"), Decimal(2)]).cast(pa.decimal32(5, 1)),
            "int8",
            [2],
            {0: "v: Decimal('1.5') is not int8"},
        ),
        (
            pa.array([10**13, 60], pa.timestamp("s")),
            "timestamp",
            [dt.datetime(1970, 1, 1, 0, 1)],
            {0: "v: 10000000000000 of timestamp[s] is not timestamp[us]"},
        ),
        (
            pa.array([2**31 - 1, 0], pa.date32()),
            "timestamp",
            [dt.datetime(1970, 1, 1)],
            {0: "v: 2147483647 of date32[day] is not timestamp[us]"},
        ),
    ],
)
def test_values_of_rare_types_are_exact_or_left_out(
    values: pa.Array, kind: str, kept: list[object], reasons: dict[int, str]
) -> None:
    assert one(values, kind) == (kept, reasons)


def test_text_too_large_for_a_number_is_left_out() -> None:
    kept, reasons = one(pa.array(["1e400", "inf", "1e300"]), "double", parse_text=True)
    assert kept == [math.inf, 1e300]
    assert reasons == {0: "v: '1e400' is not double"}


def test_zeros_keep_their_signs_beside_values_that_are_left_out() -> None:
    kept, _ = one(pa.array([-0.0, 1e300, 0.0]), "float")
    assert [math.copysign(1, value) for value in kept] == [-1.0, 1.0]


def test_a_column_in_pieces_is_read_whole() -> None:
    contract = declared({"v": "double"})
    table = pa.table({"id": [1, 2, 3], "v": pa.chunked_array([[1.0], [2.0, 3.0]])})
    assert contract.apply(table)[0].column("v").to_pylist() == [1.0, 2.0, 3.0]
    assert contract.apply(table.slice(1))[0].column("v").to_pylist() == [2.0, 3.0]


def test_the_first_reason_of_a_row_counts() -> None:
    contract = declared({"a": "int8", "b": "double"})
    table = pa.table({"id": [1, None, 3], "a": [1000, 1000, 1], "b": [None, None, 1.0]})
    result, reasons = contract.apply(table)
    assert result.column("id").to_pylist() == [3]
    assert reasons == {0: "a: 1000 is not int8", 1: "id: null in a required column"}


def test_columns_come_in_the_order_of_the_contract_and_others_are_left_out() -> None:
    contract = declared({"a": "double", "b": "double"}, extra_columns="ignore")
    result, _ = contract.apply(pa.table({"c": [1], "b": [2.0], "a": [3.0], "id": [4]}))
    assert result.column_names == ["id", "a", "b"]


numbers = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-(2**40), 2**40).map(float),
    st.sampled_from([0.0, -0.0, 127.0, 128.0, -128.0, -129.0, 0.5]),
)


@given(values=st.lists(numbers, max_size=30), is_nullable=st.booleans())
def test_rows_kept_and_reasons_are_the_rows_given(values: list[float | None], is_nullable: bool) -> None:
    kept, reasons = one(pa.array(values, pa.float64()), "int8?" if is_nullable else "int8")
    expected = []
    for row, value in enumerate(values):
        if value is None or math.isnan(value):
            is_good, wanted = is_nullable, None
        else:
            is_good = math.isfinite(value) and value.is_integer() and -128 <= value <= 127
            wanted = int(value) if is_good else None
        assert is_good == (row not in reasons)
        if is_good:
            expected.append(wanted)
    assert kept == expected


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=6), st.integers(-999, 999).map(str), st.floats().map(str)), max_size=30
    )
)
def test_text_that_parses_and_text_that_does_not_are_all_rows(values: list[str | None]) -> None:
    kept, reasons = one(pa.array(values, pa.string()), "double?", parse_text=True)
    assert len(kept) + len(reasons) == len(values)
    rest = [value for row, value in enumerate(values) if row not in reasons]
    for text, number in zip(rest, kept, strict=True):
        if text is None:
            assert number is None
        else:
            assert repr(float(text.strip())) == repr(number)


# ------------------------------------------------------------------------------------------------------ whole columns


@pytest.mark.parametrize(
    ("actual", "kind"),
    [
        (pa.string(), "double"),
        (pa.string(), "date32"),
        (pa.bool_(), "int32"),
        (pa.int32(), "bool"),
        (pa.int32(), "string"),
        (pa.int64(), "timestamp"),
        (pa.date32(), "int32"),
        (pa.timestamp("us"), "string"),
        (pa.list_(pa.int32()), "double"),
        (pa.struct([("a", pa.int32())]), "string"),
        (pa.binary(), "string"),
        (pa.dictionary(pa.int8(), pa.string()), "int32"),
        (pa.time32("s"), "timestamp"),
        (pa.duration("s"), "timestamp"),
    ],
)
def test_a_column_of_another_type_stops_the_run(actual: pa.DataType, kind: str) -> None:
    contract = declared({"v": kind})
    with pytest.raises(ContractError, match=r"column 'v' of file /lake/1\.parquet has another type: expected "):
        contract.check_files(
            partition(
                pa.schema([("id", pa.int64()), ("v", contract.columns[1].type)]),
                pa.schema([("id", pa.int64()), ("v", actual)]),
            )
        )


def test_text_in_place_of_numbers_says_what_can_be_done() -> None:
    schema = pa.schema([("id", pa.int64()), ("v", pa.string())])
    with pytest.raises(ContractError, match=r"expected double, got string\. Set 'input\.parse_text: true'"):
        declared({"v": "double"}).check_files(partition(schema))
    with pytest.raises(ContractError, match=r"expected bool, got int64\. Ask the upstream team"):
        declared({"v": "bool"}).check_files(partition(pa.schema([("id", pa.int64()), ("v", pa.int64())])))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["id", "distanc"],
            r"lacks columns of the input contract: expected columns distance.*Was 'distance' renamed to 'distanc'\?$",
        ),
        (["id", "Distance"], r"Was 'distance' renamed to 'Distance'\?$"),
        (["id"], r"expected columns distance, got columns id\. Ask the upstream team\.$"),
        (["id", "distance", "zone"], r"has columns that the input contract does not name: .*got also zone\. Add them"),
        (["Id", "distance"], r"expected columns id, .*Was 'id' renamed to 'Id'\?$"),
    ],
)
def test_missing_renamed_and_additional_columns_stop_the_run(names: list[str], sentence: str) -> None:
    with pytest.raises(ContractError, match=rf"file /lake/0\.parquet {sentence}|{sentence}"):
        declared({"distance": "double"}).check_files(partition(pa.schema([(name, pa.int64()) for name in names])))


def test_two_columns_of_one_name_stop_the_run() -> None:
    schema = pa.schema([("id", pa.int64()), ("v", pa.int64()), ("v", pa.int64())])
    sentence = r"file /lake/0\.parquet has several columns of one name: .*got several of v\. Ask"
    for contract in (declared({"v": "int64"}), contract_of(source(), partition(schema), [])):
        with pytest.raises(ContractError, match=sentence):
            contract.check_files(partition(schema))


@pytest.mark.parametrize(
    "kind",
    [pa.null(), pa.float16(), pa.decimal256(50), pa.duration("ns"), pa.time64("ns"), pa.list_(pa.int8())],
    ids=str,
)
def test_a_key_that_rows_cannot_be_told_apart_by_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ContractError, match=r"key 'id' has a type .*: expected numbers, text, .*, got .*Name other"):
        contract_of(source(), partition(pa.schema([("id", kind)])), [])


def test_every_file_is_looked_at_even_among_equal_ones() -> None:
    good, bad = pa.schema([("id", pa.int64()), ("v", pa.int64())]), pa.schema([("id", pa.int64()), ("v", pa.string())])
    with pytest.raises(ContractError, match=r"file /lake/2\.parquet has another type"):
        declared({"v": "int64"}).check_files(partition(good, good, bad, good))


def test_additional_columns_are_ignored_when_the_deployment_says_so() -> None:
    schema = pa.schema([("id", pa.int64()), ("distance", pa.float64()), ("zone", pa.string())])
    declared({"distance": "double"}, extra_columns="ignore").check_files(partition(schema))


# ------------------------------------------------------------------------------------------------------ without one


def test_without_a_contract_keys_and_signatures_say_what_rows_need() -> None:
    schema = pa.schema(
        [
            ("id", pa.int32()),
            ("x", pa.int32()),
            ("y", pa.float32()),
            ("city", pa.dictionary(pa.int8(), pa.string())),
            ("raw", pa.binary_view()),
        ]
    )
    model = frozen_model("m", {"x": "long", "y": "double?"})
    contract = contract_of(source(), partition(schema), [model])
    assert contract.columns == (
        ContractColumn("id", pa.int32(), nullable=False),
        ContractColumn("x", pa.int64(), nullable=False),
        ContractColumn("y", pa.float64(), nullable=True),
        ContractColumn("city", pa.string(), nullable=True),
        ContractColumn("raw", pa.binary(), nullable=True),
    )
    contract.check_files(partition(schema))
    assert not contract.is_closed


@pytest.mark.parametrize(
    ("kinds", "type_", "nullable"),
    [
        (("double?", "double"), pa.float64(), False),
        (("double?", "double?"), pa.float64(), True),
        (("integer", "long?"), pa.int64(), False),
        (("integer?", "double?"), pa.float64(), True),
        (("float", "integer", "double"), pa.float64(), False),
        (("string?", "string"), pa.string(), False),
    ],
)
def test_the_signatures_of_all_models_count_whatever_their_order(
    kinds: tuple[str, ...], type_: pa.DataType, *, nullable: bool
) -> None:
    models = [frozen_model(f"m{number}", {"x": kind}) for number, kind in enumerate(kinds)]
    files = partition(pa.schema([("id", pa.int32()), ("x", pa.int32())]))
    for ordered in permutations(models):
        assert contract_of(source(), files, ordered).columns[1] == ContractColumn("x", type_, nullable)


@pytest.mark.parametrize(
    ("first", "second", "types"),
    [
        ("long", "double", ("int64", "double")),
        ("integer", "float", ("int32", "float")),
        ("string", "double", ("string", "double")),
        ("boolean", "long", ("bool", "int64")),
    ],
)
def test_signatures_that_do_not_fit_each_other_name_both_models(
    first: str, second: str, types: tuple[str, str]
) -> None:
    models = [frozen_model("a", {"x": first}), frozen_model("b", {"x": second}, version=3)]
    files = partition(pa.schema([("id", pa.int32()), ("x", pa.int32())]))
    sentence = (
        rf"types of column 'x' that do not fit each other: expected one type .*, "
        rf"got {types[0]} \(model 'a' version 1\) and {types[1]} \(model 'b' version 3\)\. Declare its type in"
    )
    with pytest.raises(ContractError, match=sentence):
        contract_of(source(), files, models)


def test_a_key_that_no_file_has_is_missed_even_without_a_contract() -> None:
    files = partition(pa.schema([("x", pa.int32())]))
    with pytest.raises(ContractError, match=r"lacks columns of the input contract: expected columns id"):
        contract_of(source(), files, []).check_files(files)


def test_a_second_file_of_other_columns_is_noticed_even_without_a_contract() -> None:
    files = partition(
        pa.schema([("id", pa.int32()), ("x", pa.int32())]), pa.schema([("id", pa.int32()), ("x", pa.string())])
    )
    with pytest.raises(ContractError, match=r"column 'x' of file /lake/1\.parquet has another type: expected int32"):
        contract_of(source(), files, []).check_files(files)


# ------------------------------------------------------------------------------------------------------ travelling


def test_a_contract_survives_json() -> None:
    kinds = ["bool", "int8", "uint64", "float", "double", "string", "date32", "timestamp"]
    contract = declared({f"c_{kind}": f"{kind}?" for kind in kinds}, parse_text=True)
    assert Contract.from_json(json.loads(json.dumps(contract.to_json()))) == contract


def test_a_part_of_a_contract_is_open() -> None:
    part = declared({"a": "double", "b": "double"}).only(["b", "no such"])
    assert [column.name for column in part.columns] == ["b"]
    assert not part.is_closed


def test_many_distinct_wrong_values_are_found() -> None:
    values = np.arange(20_000) + 0.5
    values[::2] -= 0.5
    kept, reasons = one(pa.array(values), "int32")
    assert len(kept) == len(reasons) == 10_000
