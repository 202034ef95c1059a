"""Local file systems: their errors, locks, and writing to the disk.

``ingestion/storage_checks.py`` tests whether a file system has what the pipeline needs.
"""
