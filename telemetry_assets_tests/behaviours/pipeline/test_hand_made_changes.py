"""Manual changes of tables: distinguishable ones are repaired, and misleading rows do not reach later tables."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo

from telemetry_assets.errors import QualityError
from telemetry_assets.tables import BRONZE, CURRENT_STATE, FUEL_EFFICIENCY, SILVER
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed, vehicle


def test_row_manually_appended_to_bronze_has_the_same_effect_as_in_a_rebuild(deployed: Deployment) -> None:
    deployed.upload("b.json", framed([event(event_id="evt-1", engineTempCelsius=1)], "array")[1])
    deployed.process()
    [row] = deployed.rows(BRONZE)
    payload = row["payload"].replace('"engineTempCelsius": 1', '"engineTempCelsius": 2')
    older = {**row, "source_uri": row["source_uri"].replace("b.json", "a.json"), "payload": payload}
    deployed.pipeline.lakehouse.table(BRONZE).append(pa.Table.from_pylist([older], schema=BRONZE.arrow_schema))
    deployed.process()
    [taken] = deployed.rows(SILVER)
    deployed.pipeline.refresh(SILVER, "rebuild", frozenset([date(2025, 11, 4)]))
    assert [taken["engine_temp_celsius"]] == [one["engine_temp_celsius"] for one in deployed.rows(SILVER)] == [1]


def test_duplicate_rows_of_another_date_do_not_count_twice_in_a_month(deployed: Deployment) -> None:
    for day in ("03", "04"):
        trip = vehicle(time=f"2025-11-{day}T10:00:00Z", trip={"tripMileage": 100, "tripFuelLiters": 10})
        deployed.upload(f"{day}.json", framed([trip], "array")[1])
    deployed.process()
    before = deployed.rows(FUEL_EFFICIENCY)
    silver = deployed.pipeline.lakehouse.table(SILVER)
    of_neighbour = silver.scan(EqualTo(term="event_date", value=date(2025, 11, 4))).to_arrow()
    silver.append(of_neighbour.cast(SILVER.arrow_schema))
    with pytest.raises(QualityError, match="no table was computed from it"):
        deployed.pipeline.refresh(FUEL_EFFICIENCY, "by hand", frozenset([date(2025, 11, 3)]))
    assert deployed.rows(FUEL_EFFICIENCY) == before


def test_deleted_data_file_is_an_error_and_not_considered_empty(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        deployed.upload("x.json", framed([event()], "array")[1])
        deployed.process()
        before = deployed.rows(SILVER)
        [task] = deployed.pipeline.lakehouse.table(BRONZE).scan().plan_files()
        Path(task.file.file_path.removeprefix("file://")).unlink()
        with pytest.raises(FileNotFoundError, match="a data file of the table is missing"):
            deployed.pipeline.refresh(SILVER, "a backfill", frozenset([date(2025, 11, 4)]))
        assert deployed.rows(SILVER) == before


def test_manually_duplicated_state_is_repaired_even_if_no_date_changed(deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    state = deployed.pipeline.lakehouse.table(CURRENT_STATE)
    state.append(state.scan().to_arrow().cast(CURRENT_STATE.arrow_schema))
    deployed.process()
    assert len(deployed.rows(CURRENT_STATE)) == 1
