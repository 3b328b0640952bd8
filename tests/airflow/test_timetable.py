"""Partition dates are whole days, whoever asks for them."""

from __future__ import annotations

import pendulum
import pytest
from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo, TimeRestriction

from scoring_airflow.timetable import ByHandTimetable, NightlyTimetable

FIVE_NIGHTS = ["2013-07-01", "2013-07-02", "2013-07-03", "2013-07-04", "2013-07-05"]
NO_CATCHUP = TimeRestriction(earliest=None, latest=None, catchup=False)


def keys(timetable: NightlyTimetable, first: pendulum.DateTime, last: pendulum.DateTime) -> list[str]:
    return [info.partition_key for info in timetable.iter_partition_dagrun_infos(earliest=first, latest=last)]


@pytest.mark.parametrize("timetable", [NightlyTimetable("0 3 * * *", lag_days=1), ByHandTimetable()])
@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Honolulu"]
)
def test_a_backfill_makes_one_run_for_each_day_that_the_form_names(timetable: NightlyTimetable, zone: str) -> None:
    first = pendulum.datetime(2013, 7, 1, tz=zone).in_timezone("UTC")
    last = pendulum.datetime(2013, 7, 5, tz=zone).end_of("day").in_timezone("UTC")
    assert keys(timetable, first, last) == FIVE_NIGHTS


def test_a_backfill_asked_for_with_midnights_includes_the_last_day() -> None:
    timetable = NightlyTimetable("0 3 * * *", lag_days=1)
    assert keys(timetable, pendulum.datetime(2013, 7, 1), pendulum.datetime(2013, 7, 5)) == FIVE_NIGHTS


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(("first", "last"), [((2013, 2, 1), (2013, 7, 5)), ((2013, 7, 1), (2013, 12, 5))])
def test_summer_time_adds_and_loses_no_day(zone: str, first: tuple[int, ...], last: tuple[int, ...]) -> None:
    begin, end = pendulum.datetime(*first, tz=zone), pendulum.datetime(*last, tz=zone).end_of("day")
    found = keys(ByHandTimetable(), begin.in_timezone("UTC"), end.in_timezone("UTC"))
    assert (found[0], found[-1]) == (begin.to_date_string(), end.to_date_string())
    assert len(found) == (end.date() - begin.date()).days + 1


def test_runs_of_a_backfill_are_midnights() -> None:
    day = pendulum.datetime(2013, 7, 1)
    (info,) = NightlyTimetable("0 3 * * *", lag_days=1).iter_partition_dagrun_infos(earliest=day, latest=day)
    assert info.partition_date == info.run_after == day
    assert info.data_interval is None


def test_days_that_have_not_begun_are_not_backfilled() -> None:
    today = pendulum.now("UTC").start_of("day")
    assert keys(ByHandTimetable(), today, today.add(days=3)) == [today.to_date_string()]


@pytest.mark.parametrize(("lag_days", "back"), [(0, 0), (1, 1), (2, 2)])
def test_a_night_scores_the_partition_of_its_lag(lag_days: int, back: int) -> None:
    tick = pendulum.datetime(2024, 3, 10, 3)
    timetable = NightlyTimetable("0 3 * * *", lag_days=lag_days)
    last = DagRunInfo(
        run_after=tick, data_interval=None, partition_date=tick.start_of("day").subtract(days=back), partition_key="-"
    )
    restriction = TimeRestriction(earliest=tick, latest=None, catchup=True)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    assert info is not None
    assert info.run_after == pendulum.datetime(2024, 3, 11, 3)
    assert info.partition_key == pendulum.date(2024, 3, 11).subtract(days=back).to_date_string()


def tick_and_next(ago: pendulum.Duration) -> tuple[NightlyTimetable, pendulum.DateTime]:
    tick = pendulum.now("UTC").start_of("minute") - ago
    return NightlyTimetable(f"{tick.minute} {tick.hour} * * *", lag_days=1), tick


def test_a_backfill_starts_no_scheduled_run() -> None:
    timetable, tick = tick_and_next(pendulum.duration(hours=5))
    day = pendulum.datetime(2013, 7, 5)
    backfilled = DagRunInfo(run_after=day, data_interval=None, partition_date=day, partition_key="2013-07-05")
    for last in (None, backfilled):
        info = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=NO_CATCHUP)
        assert info is not None
        assert info.run_after == tick.add(days=1)


def test_a_night_that_was_due_while_the_scheduler_was_down_is_scored() -> None:
    timetable, tick = tick_and_next(pendulum.duration(hours=5))
    before = tick.subtract(days=1)
    date = before.start_of("day").subtract(days=1)
    last = DagRunInfo(run_after=before, data_interval=None, partition_date=date, partition_key=date.to_date_string())
    info = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=NO_CATCHUP)
    assert info is not None
    assert info.run_after == tick


def test_a_new_dag_does_not_lose_the_tick_that_just_passed() -> None:
    timetable, tick = tick_and_next(pendulum.duration(minutes=2))
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=NO_CATCHUP)
    assert info is not None
    assert info.run_after == tick


def test_without_schedule_no_run_is_due() -> None:
    timetable = ByHandTimetable()
    assert timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=NO_CATCHUP) is None
    assert timetable.periodic  # else Airflow refuses to backfill
    assert not timetable.can_be_scheduled


@pytest.mark.parametrize("key", ["2013-7-1", "2013-07-32", "tonight", "2013-07-01T03:00:00"])
def test_a_partition_key_that_is_no_date_is_refused(key: str) -> None:
    with pytest.raises(InvalidPartitionKeyError, match=rf"not a date: expected YYYY-MM-DD, .* got '{key}'\."):
        NightlyTimetable("0 3 * * *", lag_days=1).resolve_partition_date(key)


def test_a_partition_key_by_hand_means_its_midnight() -> None:
    assert ByHandTimetable().resolve_partition_date("2013-07-01") == pendulum.datetime(2013, 7, 1)


@pytest.mark.parametrize("timetable", [NightlyTimetable("30 2 * * 1-5", lag_days=2), ByHandTimetable()])
def test_timetables_survive_serialisation(timetable: NightlyTimetable) -> None:
    again = type(timetable).deserialize(timetable.serialize())
    assert again.serialize() == timetable.serialize()
    assert (again.summary, again.description) == (timetable.summary, timetable.description)
