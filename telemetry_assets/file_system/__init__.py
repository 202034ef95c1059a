"""Calls of local file systems that differ between them, and what their errors mean.

What the pipeline needs of the landing folder and the lakehouse is tested in ``ingestion/landing/storage_checks.py``.
"""
