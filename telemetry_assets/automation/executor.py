"""The executor of all runs: Dagster's in-process executor, extended with heartbeats and the detection of dead runs.

It extends Dagster's executor in two places: around the execution of all steps, and while a step waits for its pool.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from dagster import DagsterEvent, Executor, ExecutorDefinition, InitExecutorContext, in_process_executor
from dagster._core.errors import raise_execution_interrupts
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import inner_plan_execution_iterator
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor

from telemetry_assets.automation.dead_runs import describe_occupants, end_dead_runs, free_stale_slots
from telemetry_assets.automation.heartbeats import heartbeat

_POLL_SECONDS = 1.0
_DEAD_RUN_CHECK_SECONDS = 5.0


def heartbeat_executor() -> ExecutorDefinition:
    """An in-process executor whose runs send heartbeats, and mark dead runs as failed.

    It has the same configuration as Dagster's in-process executor.
    """

    def create(context: InitExecutorContext) -> Executor:
        create_in_process = in_process_executor.executor_creation_fn
        assert create_in_process is not None
        standard = create_in_process(context)
        return _HeartbeatExecutor(standard.retries, standard.step_dependency_config)

    return ExecutorDefinition(
        name="in_process_with_heartbeats",
        config_schema=in_process_executor.config_schema,  # type: ignore[arg-type]  # Dagster accepts it
        executor_creation_fn=create,
    )


class _HeartbeatExecutor(InProcessExecutor):
    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Execute a run's steps in this process. Heartbeats start before the run waits for its first pool."""
        with heartbeat(plan_context.instance, plan_context.dagster_run):
            end_dead_runs(plan_context.instance)
            yield DagsterEvent.engine_event(
                plan_context,
                f"Executing steps in process (pid: {os.getpid()})",
                event_specific_data=EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
            )
            yield from iter(self._steps(plan_context))

    def _steps(self, plan_context: PlanOrchestrationContext) -> ExecuteRunWithPlanIterable:
        """The same as in the base class, except for how steps wait for their pools."""
        return ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=_execute_steps,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


def _execute_steps(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
    with _Pools(job_context) as pools:
        yield from inner_plan_execution_iterator(job_context, execution_plan, pools)


class _Pools(InstanceConcurrencyContext):
    """The pools of a run's steps.

    While all steps wait for pools, it frees the slots of dead runs and logs which runs occupy the pools.
    """

    def __init__(self, context: PlanExecutionContext) -> None:
        super().__init__(context.instance, context.dagster_run)
        self._context = context
        self._pending_pools: set[str] = set()
        self._logged_occupants: dict[str, list[str]] = {}
        self._last_check = 0.0

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Claim a slot of a pool for a step, and return whether the step has it."""
        claimed = super().claim(concurrency_key, step_key, step_priority)
        if claimed:
            self._pending_pools.discard(concurrency_key)
        else:
            self._pending_pools.add(concurrency_key)
        return claimed

    def interval_to_next_pending_claim_check(self) -> float:
        """The seconds until the next attempt to claim a slot. Dagster calls this while all steps wait.

        :raises DagsterExecutionInterruptedError: if the run is interrupted. Dagster itself checks this only within
            steps.
        """
        with raise_execution_interrupts():
            if time.monotonic() - self._last_check > _DEAD_RUN_CHECK_SECONDS:
                self._free_dead_slots()
                self._last_check = time.monotonic()
        return _POLL_SECONDS

    def _free_dead_slots(self) -> None:
        instance = self._context.instance
        end_dead_runs(instance)
        for pool in sorted(self._pending_pools):
            free_stale_slots(instance, pool)
            occupants = describe_occupants(instance, pool)
            if occupants and occupants != self._logged_occupants.get(pool):
                verb = "occupies" if len(occupants) == 1 else "occupy"
                self._context.log.info(f"Waiting for the pool {pool}, which {' and '.join(occupants)} {verb}.")
            self._logged_occupants[pool] = occupants
