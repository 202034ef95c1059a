"""What starts runs, and what keeps their status true: jobs, sensors, schedules, and run liveness.

- ``jobs.py``, ``sensors.py``, ``schedules.py``: the jobs and what starts them.
- ``executor.py``, ``heartbeats.py``, ``servers.py``, ``dead_runs.py``: runs send heartbeats, and a run whose process
  is gone is marked as failed.
- ``remote_runs.py``: a sensor that cancels remote runs without a Dagster run.

Assets and checks are defined in ``assets/``; the work of a run is in ``pipeline.py``.
"""
