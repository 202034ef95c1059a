"""How each run of this project is executed: in one process, with a life sign, and never behind a dead run.

It is Dagster's in-process executor, with more at two places: around all steps, and while a step waits for its pool.
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

from telemetry_assets.automation.dead_runs import end_dead_runs, free_left_slots, users_of
from telemetry_assets.automation.heartbeats import life_sign

_LOOK_SECONDS = 1.0
_JUDGE_SECONDS = 5.0


def living_executor() -> ExecutorDefinition:
    """Dagster's in-process executor, with its configuration, whose runs show that they live and end dead ones."""

    def create(context: InitExecutorContext) -> Executor:
        create_standard = in_process_executor.executor_creation_fn
        assert create_standard is not None
        standard = create_standard(context)
        return _LivingExecutor(standard.retries, standard.step_dependency_config)

    return ExecutorDefinition(
        name="living_in_process",
        config_schema=in_process_executor.config_schema,  # type: ignore[arg-type]  # Dagster takes its own kind too
        executor_creation_fn=create,
    )


class _LivingExecutor(InProcessExecutor):
    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Execute a run's steps in this process, with a life sign from before the first wait for a pool to the end."""
        with life_sign(plan_context.instance, plan_context.dagster_run):
            end_dead_runs(plan_context.instance)
            yield DagsterEvent.engine_event(
                plan_context,
                f"Executing steps in process (pid: {os.getpid()})",
                event_specific_data=EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
            )
            yield from iter(self._steps(plan_context))

    def _steps(self, plan_context: PlanOrchestrationContext) -> ExecuteRunWithPlanIterable:
        """As the base class has it, but for how steps wait for their pools."""
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
    """The pools of a run's steps. While no step can go on, it frees what dead runs have, and says what it waits for."""

    def __init__(self, context: PlanExecutionContext) -> None:
        super().__init__(context.instance, context.dagster_run)
        self._context = context
        self._waited_for: set[str] = set()
        self._said: dict[str, list[str]] = {}
        self._judged = 0.0

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Whether a step has its pool now."""
        claimed = super().claim(concurrency_key, step_key, step_priority)
        if claimed:
            self._waited_for.discard(concurrency_key)
        else:
            self._waited_for.add(concurrency_key)
        return claimed

    def interval_to_next_pending_claim_check(self) -> float:
        """The seconds until the next look. Dagster asks where no step can go on, and then sleeps.

        :raises DagsterExecutionInterruptedError: where the run is to end, which Dagster looks at in steps only.
        """
        with raise_execution_interrupts():
            if time.monotonic() - self._judged > _JUDGE_SECONDS:
                self._judge()
                self._judged = time.monotonic()
        return _LOOK_SECONDS

    def _judge(self) -> None:
        instance = self._context.instance
        end_dead_runs(instance)
        for pool in sorted(self._waited_for):
            free_left_slots(instance, pool)
            users = users_of(instance, pool)
            if users and users != self._said.get(pool):
                self._context.log.info(f"Waiting for the pool {pool}, which {' and '.join(users)} has.")
            self._said[pool] = users
