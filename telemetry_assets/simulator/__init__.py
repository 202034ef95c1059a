"""A simulated fleet that uploads telemetry, for demos and tests."""
