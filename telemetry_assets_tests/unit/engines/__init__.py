"""Decisions that are made before an engine starts."""
