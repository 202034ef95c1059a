"""The Iceberg tables in each catalog."""
