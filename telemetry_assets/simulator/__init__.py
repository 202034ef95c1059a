"""A simulated fleet, which uploads telemetry for demos and tests."""
