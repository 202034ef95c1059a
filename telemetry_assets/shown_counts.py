"""Counts by name of some batches, as people are shown them: the names are anybody's, and of any number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from telemetry_assets.ingestion.certificates import added_up
from telemetry_assets.ingestion.rows import NAMES_LISTED, OTHERS
from telemetry_assets.plain_text import plain_start

_LONGEST_NAME = 100


def shown_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The most frequent names of all batches together, as short plain text; the rest are counted under `OTHERS`."""
    total = Counter(added_up(counts))
    others = total.pop(OTHERS, 0)
    listed: Counter[str] = Counter()
    for name, count in total.most_common(NAMES_LISTED):
        # Names that differ only where they are cut are counted together.
        listed[plain_start(name, _LONGEST_NAME)] += count
    others += total.total() - listed.total()
    return {**listed, OTHERS: others} if others else dict(listed)
