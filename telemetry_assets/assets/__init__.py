"""The Dagster assets, their partitions, checks, metadata and resources.

- ``lakehouse.py``: the multi-asset of all tables.
- ``checks.py``: the asset checks.
- ``metadata.py``, ``reports.py``: what a run records about each table.
- ``partitions.py``, ``resources.py``: event dates, and the pipeline as a Dagster resource.

Jobs, sensors and schedules are defined in ``automation/``. How a table is computed is defined in ``tables/`` and
``transforms/``.
"""
