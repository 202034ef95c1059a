"""Jobs, sensors, schedules and run liveness: they start runs and keep the status of runs correct.

- ``jobs.py``, ``sensors.py``, ``schedules.py``: the jobs, and the sensors and schedules that start them.
- ``executor.py``, ``heartbeats.py``, ``servers.py``, ``dead_runs.py``: runs send heartbeats, and a run whose process
  is gone is marked as failed.
- ``remote_runs.py``: a sensor that cancels remote runs without a Dagster run.

Assets and checks are defined in ``assets/``; the work of a run is in ``pipeline.py``.
"""
