"""What was found, in words and as a page of Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from telemetry_assets_tests.chaos.player import Outcome
from telemetry_assets_tests.chaos.points import Record

_COUNTED = ("runs", "runs killed", "runs paused", "runs with faults", "faults", "requests", "uploads", "documents")


def again(outcome: Outcome) -> str:
    """The command that plays a schedule once more."""
    schedule = outcome.schedule
    return f"python -m telemetry_assets_tests.chaos --schedules 1 --seed {schedule.seed} --place {schedule.place}"


def failure_in_words(outcome: Outcome) -> str:
    """What is wrong with a deployment, and how it came there."""
    schedule = outcome.schedule
    versioned = "" if schedule.place != "s3" else ", with versioning" if schedule.versioned else ", without versioning"
    lines = [f"Seed {schedule.seed} fails ({schedule.place}{versioned}, {schedule.settings}):"]
    lines += [f"  {number}. {words}" for number, words in enumerate(outcome.story, 1)]
    lines += [f"  - {problem}" for problem in outcome.problems]
    return "\n".join([*lines, f"  Again: {again(outcome)}"])


def page(outcomes: Sequence[Outcome], command: str, seconds: float) -> str:
    """The report."""
    record = Record()
    for outcome in outcomes:
        record.add(outcome.record)
    failed = [outcome for outcome in outcomes if outcome.problems]
    places = [outcome.schedule.place for outcome in outcomes]
    of_places = ", ".join(f"{places.count(one):,} in {one}" for one in sorted(set(places)))
    facts = [
        ("Command", f"`{command}`"),
        ("Schedules", f"{len(outcomes):,} ({of_places})"),
        *((name.capitalize(), f"{record.counts[name]:,}") for name in _COUNTED),
        ("Distinct points disturbed", f"{len(record.points):,}"),
        ("Uploads or documents lost", _verdict(failed)),
        ("Uploads or documents double", _verdict(failed)),
        ("Schedules that failed", f"{len(failed):,}"),
        ("Time taken", f"{seconds / 60:.1f} min"),
    ]
    steps = [(name.removeprefix("step: "), f"{n:,}") for name, n in sorted(record.counts.items()) if "step: " in name]
    lines = ["# Histories checked", "", *_table(("", ""), facts), "", "## Steps", "", *_table(("step", "times"), steps)]
    lines += ["", "## Points", "", *_table(("disturbance", "operation", "of", "times"), _point_rows(record))]
    lines += [line for outcome in failed for line in ("", "```", failure_in_words(outcome), "```")]
    return "\n".join([*lines, ""])


def _verdict(failed: Sequence[Outcome]) -> str:
    return "see the failures" if failed else "0"


def _point_rows(record: Record) -> list[tuple[str, ...]]:
    grouped: defaultdict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for (kind, point), times in record.points.items():
        operation, _, about = point.partition(" ")
        grouped[kind, operation].append((about, times))
    return [
        (kind, operation, about, f"{times:,}")
        for (kind, operation), points in sorted(grouped.items())
        for about, times in sorted(points)
    ]


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
