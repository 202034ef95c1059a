"""A car-telemetry lakehouse: a Dagster asset graph over Apache Iceberg tables.

The packages, from those that Dagster and the command line load to those that all others import. A package imports only
from packages below it; ``pyproject.toml`` defines the rule, and ``make lint`` checks it.

- ``definitions.py``: the Dagster definitions. ``cli/``: the command line.
- ``monitoring/``: metrics, CloudWatch, and a smoke test of the AWS account.
- ``automation/``: jobs, sensors, schedules, and the liveness of runs.
- ``assets/``: the Dagster assets, their checks and metadata.
- ``pipeline.py``: a complete run, with or without Dagster.
- ``engines/``: where transforms run: in this process, in a local JVM, in EMR Serverless or Glue.
- ``transforms/``: Silver and Gold as PySpark DataFrame functions.
- ``ingestion/``: from an upload to Bronze rows. ``simulator/``: simulated uploads of a fleet.
- ``lakehouse/``: Iceberg tables: catalogs, commits, changes and repairs.
- ``tables/``: the contract of each table, and the registry of tables.
- ``settings.py``, ``aws/``, ``file_system.py``, ``errors.py``, ``text/``: settings, AWS clients, local file systems,
  exceptions, and text for people.
"""
