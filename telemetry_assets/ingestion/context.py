"""The objects that all of ingestion uses: the landing location, the tables, the journal and the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from telemetry_assets.ingestion.batch_parser import Parser, limits_of
from telemetry_assets.ingestion.journal.base import Journal
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.settings import Settings


@dataclass(frozen=True)
class IngestionContext:
    """The landing location, the lakehouse and the journal of a deployment.

    :param scaled_parser: opens the parser of batches that are too large for this process; None if the engine has none.
    """

    landing: Landing
    lakehouse: Lakehouse
    journal: Journal
    settings: Settings
    scaled_parser: Callable[[], Parser] | None = None

    @property
    def limits(self) -> Limits:
        """The limits of one upload, from the settings."""
        return limits_of(self.settings)
