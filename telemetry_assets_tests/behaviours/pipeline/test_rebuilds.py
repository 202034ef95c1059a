"""Rebuilds in pieces of bounded rows: exact, continued after a kill, and with uploads processed between two pieces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pyiceberg.expressions import EqualTo

from telemetry_assets.cli.main import main
from telemetry_assets.engines.embedded import EmbeddedEngine
from telemetry_assets.lakehouse.cars import ALL_CARS
from telemetry_assets.lakehouse.commits import set_table_properties
from telemetry_assets.lakehouse.merging import Written, commit_merge
from telemetry_assets.lakehouse.rebuilds import PendingRebuild, Piece, date_ranges, dates_in_ranges, next_piece
from telemetry_assets.lakehouse.snapshots import summary_of
from telemetry_assets.tables import ALERTS, CURRENT_STATE, FUEL_EFFICIENCY, SILVER, derived_tables
from telemetry_assets.tables.contract import DerivedTable
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event
from telemetry_assets_tests.harness.rebuilt_days import DAYS, KilledError, raise_edition, rebuilt_in_pieces, update_all


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with rebuilt_in_pieces(tmp_path) as one:
        yield one


def steps_of(deployed: Deployment, contract: DerivedTable, run_id: str) -> list[str]:
    """The event dates of each snapshot that a run has committed to a table."""
    summaries = map(summary_of, deployed.pipeline.lakehouse.table(contract).snapshots())
    return [one["telemetry.event-dates"] for one in summaries if one.get("telemetry.run-id") == run_id]


def test_a_new_lakehouse_is_filled_in_pieces(deployed: Deployment) -> None:
    deployed.assert_equals_the_contract()
    newest_first = ["2025-11-02,2025-11-28", "2025-10-28,2025-11-01", "2025-10-01,2025-10-02", "2025-09-02,2025-09-28"]
    assert steps_of(deployed, SILVER, "test-run") == [*newest_first, "2025-09-01"]


@pytest.mark.parametrize("contract", [SILVER, CURRENT_STATE, FUEL_EFFICIENCY, ALERTS], ids=lambda one: one.full_name)
def test_a_rebuild_that_was_killed_is_continued_by_the_next_run(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: DerivedTable
) -> None:
    changed = raise_edition(monkeypatch, contract)
    left: list[int] = []

    def die_after_two_pieces(step: Any) -> None:
        left.append(len(step.left))
        if len(left) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        deployed.pipeline.refresh(changed, "killed", insurance_as_of=AS_OF, between_steps=die_after_two_pieces)
    assert changed in deployed.pipeline.tables_behind()
    pending = PendingRebuild.of(deployed.pipeline.lakehouse.table(changed))
    assert pending.cars_done is not None or len(pending.parts) < len(DAYS)
    deployed.process()
    assert deployed.pipeline.tables_behind() == []
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("contract", [SILVER, CURRENT_STATE, FUEL_EFFICIENCY, ALERTS], ids=lambda one: one.full_name)
def test_uploads_are_in_gold_between_two_pieces_of_a_rebuild(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: DerivedTable
) -> None:
    raise_edition(monkeypatch, contract)
    seen: list[set[str]] = []
    has_work = type(deployed.pipeline.ingestion).has_work

    def arriving(ingestion: Any) -> bool:
        # The uploads arrive while the table is rebuilt: new, late and corrected events.
        number = len(seen)
        late = event(f"LATE-{number}", f"{DAYS[number % len(DAYS)]}T09:00:00Z", engineTempCelsius=130)
        corrected = event("CAR-1", f"{DAYS[-1 - number % len(DAYS)]}T10:00:00Z", engineTempCelsius=90 + number)
        deployed.upload(f"{number}.json", json.dumps([late, corrected]))
        seen.append({row["car_chassis"] for row in deployed.rows(ALERTS)})
        return bool(has_work(ingestion))

    monkeypatch.setattr(type(deployed.pipeline.ingestion), "has_work", arriving)
    deployed.process()
    assert len(seen) >= 3
    for number, cars in enumerate(seen[1:]):
        assert f"LATE-{number}" in cars
    monkeypatch.undo()
    raise_edition(monkeypatch, contract)
    deployed.process()
    deployed.recall_batches()
    deployed.assert_equals_the_contract()
    assert deployed.pipeline.tables_behind() == []


def test_the_temporary_files_of_a_piece_are_removed_after_it(deployed: Deployment) -> None:
    engine = deployed.pipeline.engine
    assert isinstance(engine, EmbeddedEngine)
    sizes: list[int] = []
    deployed.pipeline.refresh(
        CURRENT_STATE,
        "a rebuild",
        frozenset(DAYS),
        insurance_as_of=AS_OF,
        between_steps=lambda _: sizes.append(len(list(engine._folder.rglob("*.parquet")))),
    )
    assert len(sizes) > 2
    assert set(sizes) == {0}


def test_readers_see_the_old_rows_of_a_partition_until_its_piece_is_done(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = raise_edition(monkeypatch, ALERTS)
    rows: list[int] = []
    deployed.pipeline.refresh(changed, "run", between_steps=lambda _: rows.append(len(deployed.rows(ALERTS))))
    assert rows == [len(DAYS) * 4] * len(rows)
    assert rows


def test_a_single_date_with_more_rows_than_a_piece_is_rebuilt_by_cars(tmp_path: Path) -> None:
    with deployment(tmp_path, update_max_rows=4, rebuild_max_rows=10, gold_rebuild_max_rows=10) as deployed:
        one_day = [event(f"CAR-{number:02d}", engineTempCelsius=120, currentMileageKm=1000) for number in range(45)]
        deployed.upload("x.json", json.dumps(one_day))
        deployed.process()
        deployed.assert_equals_the_contract()
        for contract in derived_tables():
            pieces = Counter(steps_of(deployed, contract, "test-run"))
            assert list(pieces) == ["2025-11-04"]
            assert pieces["2025-11-04"] >= 4, contract.full_name


def test_the_same_request_continues_and_another_one_starts(deployed: Deployment) -> None:
    days = frozenset(DAYS)

    def die(step: Any) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        deployed.pipeline.refresh(ALERTS, "killed", days, between_steps=die)
    assert len(deployed.pipeline.refresh(ALERTS, "again", days).event_dates) == len(DAYS) - 2
    with pytest.raises(KilledError):
        deployed.pipeline.refresh(ALERTS, "killed", days, between_steps=die)
    others = deployed.pipeline.refresh(ALERTS, "others", frozenset(DAYS[-2:]))
    assert set(others.event_dates) == days


def test_a_request_that_is_registered_during_another_runs_commit_is_not_lost(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = frozenset(DAYS[:2])

    def after_a_request(*arguments: Any) -> Written:
        monkeypatch.undo()
        alerts = deployed.pipeline.lakehouse.table(ALERTS)
        registered = PendingRebuild.of(alerts).with_requested(requested, "a request")
        set_table_properties(alerts, registered.to_property())
        return commit_merge(*arguments)

    # Otherwise the rebuilt date has not changed, and nothing is committed.
    deployed.pipeline.lakehouse.table(ALERTS).delete(EqualTo(term="alert_date", value=DAYS[-1].isoformat()))
    monkeypatch.setattr("telemetry_assets.engines.base.commit_merge", after_a_request)
    result = deployed.pipeline.refresh(ALERTS, "a run", frozenset(DAYS[-1:]))
    assert set(result.event_dates) == {*requested, DAYS[-1]}


def test_the_command_rebuilds_a_range_and_says_what_is_left(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", deployed.settings.lakehouse_uri)
    monkeypatch.setenv("TELEMETRY_LANDING_URI", deployed.settings.landing_uri)
    monkeypatch.setenv("TELEMETRY_REBUILD_MAX_ROWS", "8")
    monkeypatch.setenv("TELEMETRY_GOLD_REBUILD_MAX_ROWS", "8")
    arguments = ["rebuild", "gold.performance_alerts", "--from", "2025-09-01", "--to", "2025-10-31"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "gold.performance_alerts: 4 partitions left" in result.stderr
    assert "gold.performance_alerts: up to date" in result.stderr
    wrong = CliRunner().invoke(main, [*arguments[:3], "2025-11-01", "--to", "2025-10-31"])
    assert (wrong.exit_code, "must not be before --from" in wrong.output) == (2, True)
    wrong = CliRunner().invoke(main, ["rebuild", "bronze.car_telemetry", *arguments[2:]])
    assert (wrong.exit_code, "is not a derived table" in wrong.output) == (2, True)


@pytest.mark.parametrize(
    ("module", "limit"),
    [("gold_fuel_efficiency_monthly", "_MANY_PAIRS"), ("gold_car_current_state", "_MANY_CARS")],
)
def test_an_update_that_needs_much_history_becomes_a_rebuild(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, module: str, limit: str
) -> None:
    monkeypatch.setattr(f"telemetry_assets.transforms.{module}.{limit}", 1)
    # The newest events lose their odometer readings, and so do some of the month before.
    documents = [event(f"CAR-{car}", f"{day}T10:00:00Z") for car in range(3) for day in (DAYS[-1], DAYS[4])]
    deployed.upload("second.json", json.dumps(documents))
    deployed.process()
    deployed.assert_equals_the_contract()
    assert deployed.pipeline.tables_behind() == []


def readings(month: int, **by_day: int) -> list[dict[str, Any]]:
    """One event of a car for each day ``d<day>``, with the odometer reading."""
    return [event("X", f"2025-{month}-{day[1:]}T10:00:00Z", currentMileageKm=km) for day, km in by_day.items()]


def test_month_that_is_updated_while_the_month_before_is_rebuilt_is_exact_afterwards(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        documents = readings(10, d10=1300, d20=1400) + readings(11, d10=1700, d20=1800)
        deployed.upload("first.json", json.dumps(documents))
        deployed.process()
    late = readings(10, d25=1500, d26=1510, d27=1520, d28=1530, d29=1540, d30=1550)
    with deployment(tmp_path, rebuild_max_rows=4, gold_rebuild_max_rows=4, update_max_rows=5) as deployed:
        updated: list[str] = []

        def update_november(step: Any) -> None:
            if step.contract is FUEL_EFFICIENCY and not updated:
                deployed.upload("november.json", json.dumps(readings(11, d15=1750)))
                deployed.pipeline.ingest("between")
                updated.extend(update_all(deployed))

        deployed.upload("october.json", json.dumps(late))
        deployed.pipeline.ingest("a run")
        deployed.pipeline.refresh_all("a run", AS_OF, lambda _: None, update_november)
        assert updated
        deployed.process()
        deployed.recall_batches()
        deployed.assert_equals_the_contract()


def test_values_that_were_never_known_need_no_history(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry_assets.transforms.gold_car_current_state._MANY_CARS", 0)
    changed = raise_edition(monkeypatch, CURRENT_STATE)
    deployed.pipeline.refresh(changed, "a rebuild", insurance_as_of=AS_OF)
    deployed.assert_equals_the_contract()
    assert deployed.pipeline.tables_behind() == []


def test_new_oldest_event_date_does_not_begin_a_rebuild_of_the_state_again(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readings(**by_day: int | None) -> str:
        return json.dumps([event("LATE", f"2025-09-{d[1:]}T10:00:00Z", currentMileageKm=by_day[d]) for d in by_day])

    deployed.upload("second.json", readings(d01=100, d02=200))
    deployed.process()
    # The last known reading is then that of the day before.
    deployed.upload("third.json", readings(d02=None))
    deployed.pipeline.ingest("a run")
    deployed.pipeline.refresh(SILVER, "a run")
    monkeypatch.setattr("telemetry_assets.transforms.gold_car_current_state._MANY_CARS", 0)
    changed = raise_edition(monkeypatch, CURRENT_STATE)
    uploaded: list[str] = []

    def add_a_date(step: Any) -> None:
        if not uploaded:
            uploaded.append("fourth.json")
            deployed.upload("fourth.json", json.dumps([event("CAR-1", "2025-08-01T10:00:00Z")]))
            deployed.pipeline.ingest("between")
            update_all(deployed)

    result = deployed.pipeline.refresh(changed, "a rebuild", insurance_as_of=AS_OF, between_steps=add_a_date)
    assert uploaded
    # Each date is read once.
    assert result.rows_read == Counter(row["event_date"] for row in deployed.rows(SILVER))
    deployed.process()
    deployed.recall_batches()
    deployed.assert_equals_the_contract()


def test_all_tables_become_empty_with_their_upstream(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry_assets.transforms.gold_car_current_state._MANY_CARS", 0)
    deployed.pipeline.lakehouse.table(SILVER.upstream).delete()
    # Ingestion would find in the archive that the rows are missing.
    deployed.pipeline.refresh_all("a run", AS_OF, lambda _: None)
    assert [deployed.rows(contract) for contract in derived_tables()] == [[]] * len(derived_tables())
    assert deployed.pipeline.tables_behind() == []


def test_manually_repeated_month_does_not_count_twice(deployed: Deployment) -> None:
    months = deployed.pipeline.lakehouse.table(FUEL_EFFICIENCY)
    months.append(months.scan().to_arrow().cast(FUEL_EFFICIENCY.arrow_schema))
    documents = [event(f"CAR-{car}", "2025-11-29T10:00:00Z", currentMileageKm=1200) for car in range(4)]
    deployed.upload("second.json", json.dumps(documents))
    deployed.process()
    november = [row for row in deployed.rows(FUEL_EFFICIENCY) if row["year_month"] == "2025-11"]
    expected = deployed.expected().fuel_efficiency_monthly
    assert {row["car_chassis"]: row["total_km_driven"] for row in november} == {
        row["car_chassis"]: row["total_km_driven"] for row in expected if row["year_month"] == "2025-11"
    }


def test_an_engine_that_replaces_whole_partitions_begins_a_split_one_again(deployed: Deployment) -> None:
    silver = deployed.pipeline.lakehouse.table(SILVER)
    pending = PendingRebuild(frozenset(DAYS), begun=frozenset(DAYS[-1:]), cars_done="CAR-1")
    split = next_piece(ALERTS, silver, pending, 2)
    whole = next_piece(ALERTS, silver, pending, 2, splits=False)
    assert (split.parts, split.cars.after) == (frozenset(DAYS[-1:]), "CAR-1")
    assert (whole.parts, whole.cars) == (frozenset(DAYS[-1:]), ALL_CARS)


class TestPendingRebuilds:
    def test_dates_are_stored_as_ranges(self) -> None:
        ranges = ["2025-09-01/2025-09-02", "2025-09-28"]
        assert date_ranges([DAYS[2], DAYS[0], DAYS[1]]) == ranges
        assert dates_in_ranges(ranges) == frozenset(DAYS[:3])

    def test_a_change_of_a_begun_part_begins_it_again(self) -> None:
        pending = PendingRebuild(frozenset(DAYS), begun=frozenset(DAYS[-1:]), cars_done="CAR-3")
        assert pending.with_changed(frozenset(DAYS[:1])).cars_done == "CAR-3"
        assert pending.with_changed(frozenset(DAYS[-1:])).cars_done is None

    def test_nothing_is_left_after_the_last_piece(self) -> None:
        piece = Piece(frozenset(DAYS), frozenset(DAYS), 0)
        assert not PendingRebuild(frozenset(DAYS), "a reason", "a request").without(piece)
