"""Car telemetry as a Dagster asset graph over Apache Iceberg tables.

Layers, from the ground up; a module imports from its own layer and from those before it:
``errors``, ``settings``, ``lakehouse``, ``ingestion``, ``transforms``, ``steps``, ``engines``,
``assets``, ``automation``, and on top ``definitions`` (for Dagster) and ``__main__`` (the command
line). ``pyproject.toml`` holds the rule that keeps it so.
"""
