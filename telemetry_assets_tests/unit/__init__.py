"""What takes seconds: no service, no process of Spark, no browser."""
