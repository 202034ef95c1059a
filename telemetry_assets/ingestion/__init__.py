"""Ingestion: from the bytes of an upload to rows of the Bronze tables, without Dagster and Spark.

- ``landing/``: where uploads wait, and where they are archived.
- ``journal/``: which batch is in progress.
- ``parsing/``: the bytes of an upload to rows, as pure functions.
- ``intake.py`` decides which uploads make the next batch, ``batches.py`` carries a batch into the tables exactly once,
  and ``batch_parser.py`` parses its uploads.
- ``ledger.py``, ``batch_reports.py``, ``reconciliation.py``, ``archive_audit.py``: what happened to each upload, and
  whether the ledger, the tables and the archive agree.
- ``replays.py`` ingests rejected documents again.

What the tables are is in ``tables/``; how a commit is made safe is in ``lakehouse/``.
"""
