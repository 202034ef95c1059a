"""The Iceberg tables: what they are, how they are made, written and judged.

Knows neither Dagster nor Spark.
"""
