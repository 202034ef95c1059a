"""What each table is: its columns, keys and partitions, and what is derived from them. Imports neither Dagster nor Spark."""
