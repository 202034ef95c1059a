"""A JVM Spark session that reads and writes the tables through Iceberg."""
