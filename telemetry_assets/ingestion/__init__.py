"""Ingestion: from the bytes of an upload to rows of the Bronze tables, without Dagster and Spark.

- ``landing/``: where uploads wait, and where they are archived.
- ``journal/``: which batch is in progress.
- ``parsing/``: pure functions that convert the bytes of an upload to rows.
- ``intake.py`` selects the uploads of the next batch, ``batches.py`` writes a batch to the tables exactly once, and
  ``batch_parser.py`` parses its uploads.
- ``ledger.py``, ``reconciliation.py``, ``archive_audit.py``: what happened to each upload, and
  whether the ledger, the tables and the archive agree.
- ``replays.py`` ingests rejected documents again.

The contracts of the tables are in ``tables/``; safe commits are in ``lakehouse/``.
"""
