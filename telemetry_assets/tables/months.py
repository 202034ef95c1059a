"""Calendar months, each represented by its first day."""

from __future__ import annotations

from datetime import date, timedelta


def first_of_month(day: date) -> date:
    """The first day of the day's month."""
    return day.replace(day=1)


def next_month(day: date) -> date:
    """The first day of the month after the day's."""
    return first_of_month(first_of_month(day) + timedelta(days=31))


def previous_month(day: date) -> date:
    """The first day of the month before the day's."""
    return first_of_month(first_of_month(day) - timedelta(days=1))


def days_of_month(first: date) -> list[date]:
    """All days of the month that begins on ``first``."""
    return [first + timedelta(days=offset) for offset in range((next_month(first) - first).days)]
