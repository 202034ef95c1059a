"""Behaviour that is the same on every engine, and the Spark engine's requirements."""
