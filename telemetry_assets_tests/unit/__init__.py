"""Tests that take seconds and start no service, no Spark process and no browser."""
