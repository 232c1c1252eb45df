"""The calendar of the real-time clock: its registers' fields to microseconds and back.

Microseconds count from 1970-01-01 00:00:00. Fields that are no date (month 0, 30 February, BCD
nibbles above 9) mean the day that counting on from a valid one gives: a guest may write them.
"""

from __future__ import annotations

from typing import NamedTuple

SECOND = 1_000_000
DAY_SECONDS = 86_400

_DAYS_0000_TO_1970 = 719_468  # from 0000-03-01
_DAYS_400_YEARS, _DAYS_YEAR = 146_097, 365


class Moment(NamedTuple):
    """A date and time; `month` and `day` count from 1, `weekday` 1 is Sunday."""

    year: int
    month: int
    day: int
    weekday: int
    hour: int
    minute: int
    second: int


def moment(microseconds: int) -> Moment:
    """The date and time, proleptic Gregorian, that `microseconds` are."""
    days, rest = divmod(microseconds // SECOND, DAY_SECONDS)
    year, month, day = _date(days)
    hour, rest = divmod(rest, 3600)
    minute, second = divmod(rest, 60)
    return Moment(year, month, day, (days + 4) % 7 + 1, hour, minute, second)


def microseconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """The microseconds of a date and time, whose fields may be out of their ranges."""
    seconds = (hour * 60 + minute) * 60 + second
    return (_days(year, month, day) * DAY_SECONDS + seconds) * SECOND


# Years begin in March here, so that the leap day is the last one of its year.


def _days(year: int, month: int, day: int) -> int:
    years, month = divmod(month - 3, 12)
    year += years
    leap_days = year // 4 - year // 100 + year // 400
    return year * _DAYS_YEAR + leap_days + (153 * month + 2) // 5 + day - 1 - _DAYS_0000_TO_1970


def _date(days: int) -> tuple[int, int, int]:
    centuries4, day = divmod(days + _DAYS_0000_TO_1970, _DAYS_400_YEARS)
    year = (day - day // 1460 + day // 36524 - day // 146_096) // _DAYS_YEAR
    day -= year * _DAYS_YEAR + year // 4 - year // 100
    month = (5 * day + 2) // 153
    year += centuries4 * 400 + (month >= 10)
    return year, (month + 2) % 12 + 1, day - (153 * month + 2) // 5 + 1
