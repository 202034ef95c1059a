"""What each table is: columns, keys, partitions, and what is derived from them. Knows neither Dagster nor Spark."""
