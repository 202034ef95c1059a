"""The Iceberg tables: opening the catalog, creating, reading, writing and repairing tables.

Imports neither Dagster nor Spark. The tables' contracts are in :mod:`telemetry_assets.tables`.
"""
