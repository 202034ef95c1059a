"""Engines refresh derived tables: each reads a table's upstream, runs the transform, and commits the rows.

``plan.py`` defines what a step of a refresh computes, ``inputs.py`` what its transform reads, ``base.py`` how the steps
follow each other, and ``result.py`` the result. ``embedded.py`` runs transforms in this process, ``spark/`` in a JVM on
this machine, and ``remote/`` in job runs of EMR Serverless or Glue, for which ``package/`` builds the package. The
computation of the rows is in ``transforms/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry_assets.settings import Settings, require_engine_settings

if TYPE_CHECKING:
    from telemetry_assets.engines.base import Engine
    from telemetry_assets.lakehouse.catalog import Lakehouse


def open_engine(settings: Settings, lakehouse: Lakehouse) -> Engine:
    """Open the engine that the settings name.

    :raises SettingsError: if a setting, Java or a jar is missing that the engine needs.
    """
    require_engine_settings(settings)
    if settings.is_remote:
        from telemetry_assets.engines.remote.engine import RemoteEngine, open_service

        return RemoteEngine(lakehouse, settings, open_service(settings))
    if settings.engine == "spark":
        from telemetry_assets.engines.spark.engine import SparkEngine
        from telemetry_assets.engines.spark.session import open_session

        return SparkEngine(lakehouse, settings, open_session(settings))
    from telemetry_assets.engines.embedded import EmbeddedEngine
    from telemetry_assets.engines.plan import embedded_limits

    return EmbeddedEngine(lakehouse, embedded_limits(settings))


def parses_batches(settings: Settings) -> bool:
    """Whether the engine is a :class:`ParsingEngine`: Spark, on this machine or remote."""
    return settings.engine != "embedded"


def engine_problems(settings: Settings) -> list[str]:
    """Problems that would prevent the engine from running and can be found without starting it.

    :raises SettingsError: if a setting is missing that the engine needs.
    """
    if settings.is_remote:
        from telemetry_assets.engines.remote.engine import problems
    elif parses_batches(settings):
        from telemetry_assets.engines.spark.session import problems
    else:
        return []
    return problems(settings)
