from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.monitoring.sampling import keep_mask, rate_for, smallest

KEYS = [
    pa.array(range(2000), pa.int32()),
    pa.array([None if n % 7 == 0 else n for n in range(2000)], pa.int64()),
    pa.array([2**64 - 1 - n for n in range(2000)], pa.uint64()),
    pa.array([n / 8 for n in range(2000)], pa.float32()),
    pa.array([None if n % 9 == 0 else f"AA{n}" for n in range(2000)]),
    pa.array([f"AA{n}" for n in range(2000)]).dictionary_encode(),
    pa.array([f"AA{n}".encode() for n in range(2000)]),
    pa.array([date(2013, 1, 1) + timedelta(days=n) for n in range(2000)]),
    pa.array([datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(2000)], pa.timestamp("ns", "UTC")),
    pa.array([Decimal(n) / 4 for n in range(2000)], pa.decimal128(12, 2)),
]


def table(values: pa.Array) -> pa.Table:
    return pa.table({"key": values})


@pytest.mark.parametrize("values", KEYS, ids=lambda values: str(values.type))
def test_about_the_wanted_share_is_kept_whatever_the_type(values: pa.Array) -> None:
    kept = keep_mask(table(values), keys=["key"], rate=0.25)
    nulls = values.is_null().to_numpy(zero_copy_only=False)
    assert kept.dtype == bool
    assert 0.2 < kept[~nulls].mean() < 0.3
    assert len(set(kept[nulls])) <= 1, "all nulls are one key"


@pytest.mark.parametrize("values", KEYS, ids=lambda values: str(values.type))
def test_splits_and_batches_do_not_matter(values: pa.Array) -> None:
    whole = keep_mask(table(values), keys=["key"], rate=0.3)
    pieces = [table(values.slice(start, 137)) for start in range(0, len(values), 137)]
    assert np.concatenate([keep_mask(piece, keys=["key"], rate=0.3) for piece in pieces]).tolist() == whole.tolist()
    assert keep_mask(pa.concat_tables(pieces), keys=["key"], rate=0.3).tolist() == whole.tolist()


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | st.none(), st.text()), max_size=40), st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[int | None, str]], random: Any) -> None:
    def kept(shuffled: list[tuple[int | None, str]]) -> dict[tuple[int | None, str], bool]:
        columns = {
            "a": pa.array([row[0] for row in shuffled], pa.int64()),
            "b": pa.array([row[1] for row in shuffled], pa.string()),
        }
        return dict(zip(shuffled, keep_mask(pa.table(columns), keys=["a", "b"], rate=0.5), strict=True))

    assert kept(rows) == kept(random.sample(rows, len(rows)))


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_row_kept_at_a_rate_is_kept_at_every_higher_one(one: float, other: float) -> None:
    low, high = (keep_mask(table(KEYS[0]), keys=["key"], rate=rate) for rate in sorted((one, other)))
    assert (high | ~low).all()


def test_rates_of_one_and_zero_keep_all_and_none() -> None:
    assert keep_mask(table(KEYS[1]), keys=["key"], rate=1.0).all()
    assert not keep_mask(table(KEYS[1]), keys=["key"], rate=0.0).any()
    assert keep_mask(table(KEYS[1]).slice(0, 0), keys=["key"], rate=0.5).shape == (0,)


def test_stored_width_does_not_change_a_key() -> None:
    numbers = [-3, 0, 5, 70, 100]
    masks = {
        str(found): keep_mask(table(pa.array(numbers, found)), keys=["key"], rate=0.5).tolist()
        for found in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    }
    assert len({str(mask) for mask in masks.values()}) == 1


def test_another_process_keeps_the_same_rows() -> None:
    program = (
        "import pyarrow as pa; from scoring.monitoring.sampling import keep_mask;"
        "t = pa.table({'a': [f'AA{n}' for n in range(300)], 'b': range(300)});"
        "print(''.join('01'[int(kept)] for kept in keep_mask(t, keys=['a', 'b'], rate=0.2)))"
    )
    there = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    here = pa.table({"a": [f"AA{n}" for n in range(300)], "b": range(300)})
    assert there == "".join("01"[int(kept)] for kept in keep_mask(here, keys=["a", "b"], rate=0.2))


def test_the_chosen_rows_never_change() -> None:
    """Reference samples are kept for months: another choice would look like drift."""
    kept = keep_mask(
        pa.table({"key": range(100), "text": [f"AA{n}" for n in range(100)]}), keys=["key", "text"], rate=0.1
    )
    assert np.flatnonzero(kept).tolist() == [5, 9, 23, 26, 29, 31, 40, 46, 49, 59, 72, 75]


def test_text_that_repeats_has_the_hashes_of_text_that_does_not() -> None:
    once = pa.array([None, "", *(f"AA{n}" for n in range(1998))])
    often = pa.chunked_array([once.take(pa.array([n % 20 for n in range(3000)])), once.slice(7, 3)])
    chosen = dict(zip(once.to_pylist(), keep_mask(table(once), keys=["key"], rate=0.5), strict=True))
    found = keep_mask(pa.table({"key": often}), keys=["key"], rate=0.5)
    assert found.tolist() == [chosen[value] for value in often.to_pylist()]


def test_the_chosen_rows_never_change_where_text_repeats() -> None:
    kept = keep_mask(pa.table({"text": [f"AA{n % 30}" for n in range(90)]}), keys=["text"], rate=0.2)
    assert np.flatnonzero(kept).tolist() == [15, 21, 22, 26, 45, 51, 52, 56, 75, 81, 82, 86]


@pytest.mark.parametrize(("rows", "wanted", "rate"), [(100, 10, 0.1), (5, 10, 1.0), (0, 10, 1.0), (3, 3, 1.0)])
def test_rate(rows: int, wanted: int, rate: float) -> None:
    assert rate_for(rows, wanted) == rate


def test_smallest_returns_exactly_the_wanted_rows_in_their_order() -> None:
    rows = pa.table({"key": KEYS[5], "place": range(2000)})
    chosen = smallest(rows, keys=["key"], rows=500)["place"].to_pylist()
    assert len(chosen) == 500
    assert chosen == sorted(chosen)
    backwards = rows.take(pa.array(range(1999, -1, -1)))
    assert sorted(smallest(backwards, keys=["key"], rows=500)["place"].to_pylist()) == chosen
    assert smallest(rows, keys=["key"], rows=2000) is rows


def test_smallest_without_keys_spreads_rows_evenly() -> None:
    assert smallest(pa.table({"place": range(100)}), keys=[], rows=4)["place"].to_pylist() == [0, 33, 66, 99]


def test_nights_sampled_at_different_rates_weigh_what_they_have() -> None:
    """90 % of the rows belong to the big night, although both samples are of one size."""
    nights = []
    for night, rows, rate in (("big", 18_000, 1 / 9), ("small", 2_000, 1.0)):
        whole = pa.table({"night": [night] * rows, "key": np.arange(rows) + (100_000 if night == "big" else 0)})
        nights.append(whole.filter(pa.array(keep_mask(whole, keys=["key"], rate=rate))))
    chosen = smallest(pa.concat_tables(nights), keys=["key"], rows=1_000)["night"].to_pylist()
    assert 0.85 < chosen.count("big") / 1_000 < 0.95
