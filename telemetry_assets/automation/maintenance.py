"""The job `maintain`: maintains the tables, deletes what is older than its retention, and removes old runs."""

from datetime import UTC, datetime, timedelta

from dagster import Config, Failure, JobDefinition, OpExecutionContext, RunConfig, config_mapping, job, op
from pydantic import Field

from telemetry_assets.assets.checks import as_dagster_failure, check_condition, check_keys, evaluation
from telemetry_assets.assets.lakehouse import asset_tables
from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.assets.reports import log_maintenance
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.automation.history import remove_old_runs
from telemetry_assets.tables import all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_lines


class MaintenanceConfig(Config):
    """Selects the tables to maintain, e.g. ``silver.car_telemetry``.

    If ``tables`` is empty, all tables are maintained, old data and runs are removed, and the archive is audited. If
    ``dry_run`` is true, nothing is changed, and the log says what would be done.
    """

    tables: list[str] = Field(default_factory=list)
    dry_run: bool = False

    def contracts(self) -> list[TableContract]:
        """The contracts of the tables.

        :raises Failure: if a table does not exist.
        """
        by_name = {contract.full_name: contract for contract in all_tables()}
        unknown = [number for number, name in enumerate(self.tables) if name not in by_name]
        if unknown:
            raise Failure(
                f"tables has invalid entries (numbers {unknown}, from 0). Valid tables are: {', '.join(by_name)}."
            )
        return [by_name[name] for name in self.tables] if self.tables else list(by_name.values())


@op(name="maintain_tables", description="Compacts tables, expires snapshots, and deletes files that no table needs.")
def _maintain_tables(context: OpExecutionContext, telemetry: TelemetryResource, config: MaintenanceConfig) -> None:
    with as_dagster_failure(context):
        for report in telemetry.pipeline.maintain(config.contracts(), dry_run=config.dry_run):
            context.log.info(str(report))
            if report.contract in asset_tables() and not config.dry_run:
                log_maintenance(context, report)
                checked = evaluation(check_condition(telemetry.pipeline, report.contract))
                context.log_event(checked)  # type: ignore[arg-type]  # Dagster accepts it


@op(name="clean_up", description="Deletes what is older than its retention, and audits the archive of the last days.")
def _clean_up(context: OpExecutionContext, telemetry: TelemetryResource, config: MaintenanceConfig) -> None:
    if config.tables:
        return
    with as_dagster_failure(context):
        result = telemetry.pipeline.clean_up(context.run.run_id, dry_run=config.dry_run)
    context.log.info(str(result))
    for finding in result.findings:
        context.log.warning(plain_lines(str(finding)))


@op(name="remove_history", description="Removes old runs, without what the UI needs to show the state of the assets.")
def _remove_history(context: OpExecutionContext, telemetry: TelemetryResource, config: MaintenanceConfig) -> None:
    if config.tables or config.dry_run:
        return
    days = telemetry.pipeline.settings.run_history_days
    tables = asset_tables()
    removed = remove_old_runs(
        context.instance,
        datetime.now(UTC) - timedelta(days=days),
        [asset_key(table) for table in tables],
        [key for table in tables for key in check_keys(table)],
    )
    context.log.info(f"{counted(removed, 'run')} older than {days:g} days removed")


@config_mapping
def _of_all_ops(config: MaintenanceConfig) -> RunConfig:
    return RunConfig(ops={"maintain_tables": config, "clean_up": config, "remove_history": config})


def maintain_job() -> JobDefinition:
    """The job ``maintain``. It needs no pool, because maintenance works beside runs."""

    @job(
        name="maintain",
        config=_of_all_ops,
        description="Compacts tables, expires old snapshots, and deletes files that no table needs. It may run at any "
        "time.",
    )
    def maintain() -> None:
        _maintain_tables()
        _clean_up()
        _remove_history()

    return maintain
