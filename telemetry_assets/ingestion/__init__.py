"""From an upload's bytes to Bronze rows, exactly once. Knows neither Dagster nor Spark."""
