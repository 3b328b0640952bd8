"""Nights: timetables whose partitions are dates, so that a backfill of five days makes exactly five runs.

Airflow's `CronPartitionTimetable` gives a partition the hour of its cron expression. A backfill from the 1st to the 5th
then misses the 5th when its bound is midnight. Here a partition is a whole day, whatever the hour that scores it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow._shared.timezones.timezone import coerce_datetime, utcnow
from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo
from airflow.timetables.trigger import CronPartitionTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

KEY_FORMAT: Final = "%Y-%m-%d"
DAY: Final = timedelta(days=1)
SUMMER_TIME: Final = timedelta(hours=1)
GRACE: Final = timedelta(minutes=10)
"""A tick this young is still run for a Dag without runs; else a Dag parsed a second late would lose its first night."""


class NightlyTimetable(CronPartitionTimetable):
    """Scores, at each tick of a cron expression (UTC), the partition of `lag_days` before that day."""

    def __init__(self, cron: str, *, lag_days: int) -> None:
        super().__init__(cron, timezone="UTC", run_immediately=GRACE, key_format=KEY_FORMAT)
        self._lag = timedelta(days=lag_days)

    def serialize(self) -> dict[str, Any]:
        """Return what `deserialize` needs."""
        return {"cron": self._expression, "lag_days": self._lag.days}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> NightlyTimetable:
        """Return the timetable that was serialised."""
        return cls(data["cron"], lag_days=data["lag_days"])

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterable[DagRunInfo]:
        """Yield one run for each day that a backfill names, but none for days that have not begun."""
        first, last = named_days(coerce_datetime(earliest), coerce_datetime(latest))
        last = min(last, midnight(coerce_datetime(utcnow())))
        while first <= last:
            yield DagRunInfo(
                run_after=first, data_interval=None, partition_date=first, partition_key=self._format_key(first)
            )
            first += DAY

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next scheduled run; a backfill, whenever it ran, does not move it."""
        if last_dagrun_info is not None and not self._is_scheduled(last_dagrun_info):
            # Airflow counts a backfill among the automated runs. After a backfill of last summer it would take the
            # newest tick for overdue and score last night at once, which nobody asked for.
            last_dagrun_info = None
        info: DagRunInfo | None = super().next_dagrun_info_v2(
            last_dagrun_info=last_dagrun_info, restriction=restriction
        )
        return info

    def _get_partition_date(self, *, run_date: DateTime) -> DateTime:
        return midnight(coerce_datetime(run_date)) - self._lag

    def _is_scheduled(self, info: DagRunInfo) -> bool:
        is_tick = self._align_to_next(info.run_after) == info.run_after
        return is_tick and self._get_partition_date(run_date=info.run_after) == info.partition_date

    def _decode_partition_date(self, partition_key: str) -> datetime:
        # strptime alone would also take 2013-7-1, and no folder is called so.
        if re.fullmatch(r"\d{4}-\d\d-\d\d", partition_key):
            with contextlib.suppress(InvalidPartitionKeyError):
                return super()._decode_partition_date(partition_key)
        raise InvalidPartitionKeyError(
            f"the partition key is not a date: expected YYYY-MM-DD, as in 2013-07-01, got {partition_key!r}."
        )


class ByHandTimetable(NightlyTimetable):
    """Starts nothing by itself; takes a partition key by hand, and backfills."""

    description = "Started by hand, by other systems or by a backfill"
    can_be_scheduled = False

    def __init__(self) -> None:
        super().__init__("@daily", lag_days=0)
        self.description = type(self).description

    @property
    def summary(self) -> str:
        """What Airflow's list of Dags shows as the schedule."""
        return "by hand"

    def serialize(self) -> dict[str, Any]:
        """Return nothing: there is nothing to remember."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> ByHandTimetable:  # noqa: ARG003
        """Return the timetable."""
        return cls()

    def next_dagrun_info_v2(
        self,
        *,
        last_dagrun_info: DagRunInfo | None,  # noqa: ARG002
        restriction: TimeRestriction,  # noqa: ARG002
    ) -> DagRunInfo | None:
        """Return None: no run is ever due."""
        return None


def midnight(moment: DateTime) -> DateTime:
    """Return the beginning of the moment's day, UTC."""
    return moment.in_timezone("UTC").start_of("day")


def named_days(earliest: DateTime, latest: DateTime) -> tuple[DateTime, DateTime]:
    """Return the first and the last day that the bounds of a backfill mean, as UTC midnights.

    Airflow's form sends the first day's 00:00 and the last day's 23:59:59 in the browser's time zone; the CLI sends
    midnights in UTC. The zone is read off the first bound, as its distance from the nearest UTC midnight.
    """
    first = midnight(earliest + DAY / 2)
    end = latest + (first - earliest)
    if end.second == 59:
        # The end of a day, which a change to winter time in between has moved past midnight.
        end -= SUMMER_TIME
    return first, midnight(end)
