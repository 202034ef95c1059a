"""What is the same on every engine, and what the Spark engine needs."""
