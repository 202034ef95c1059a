"""What happens between two pieces of a rebuild: uploads are processed, and the next piece is computed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException

from telemetry_assets.engines.base import merge_rows
from telemetry_assets.engines.embedded import EmbeddedEngine, _Frames
from telemetry_assets.engines.inputs import PieceInputs
from telemetry_assets.ingestion.intake import Ingestion
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.tables import ALERTS, FUEL_EFFICIENCY, SILVER, derived_tables
from telemetry_assets.tables.contract import DerivedTable
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment
from telemetry_assets_tests.harness.made_documents import event
from telemetry_assets_tests.harness.rebuilt_days import DAYS, KilledError, raise_edition, rebuilt_in_pieces, update_all

READ_UPSTREAM_ONLY = [contract for contract in derived_tables() if not contract.rebuild_reads_itself]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with rebuilt_in_pieces(tmp_path) as one:
        yield one


def upload_new_car(deployed: Deployment, day: date = DAYS[0]) -> None:
    deployed.upload("new.json", json.dumps([event("NEW", f"{day}T09:00:00Z", engineTempCelsius=130)]))


def alerted(deployed: Deployment) -> set[str]:
    return {row["car_chassis"] for row in deployed.rows(ALERTS)}


def pieces_seen(monkeypatch: pytest.MonkeyPatch, deployed: Deployment) -> list[set[str]]:
    """The cars with alerts, before what happens after each piece, in the order of the pieces."""
    seen: list[set[str]] = []
    has_work = Ingestion.has_work

    def looking(ingestion: Ingestion) -> bool:
        seen.append(alerted(deployed))
        return has_work(ingestion)

    monkeypatch.setattr(Ingestion, "has_work", looking)
    return seen


def test_an_upload_that_the_run_began_with_is_in_gold_after_the_first_piece(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = raise_edition(monkeypatch, SILVER)

    def die(_: Any) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        deployed.pipeline.refresh(changed, "killed", insurance_as_of=AS_OF, between_steps=die)
    upload_new_car(deployed)
    seen = pieces_seen(monkeypatch, deployed)
    deployed.process()
    assert ["NEW" in cars for cars in seen[:3]] == [False, True, True]


def test_an_update_that_failed_is_repeated_after_the_next_piece(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_edition(monkeypatch, SILVER)
    # The newest event date is rebuilt first.
    upload_new_car(deployed, DAYS[-1])
    seen = pieces_seen(monkeypatch, deployed)
    failed: list[str] = []
    update = Pipeline.update

    def failing_once(pipeline: Pipeline, contract: DerivedTable, *arguments: Any) -> Any:
        if contract.name == ALERTS.name and not failed:
            failed.append(contract.name)
            raise OSError("the network is gone")
        return update(pipeline, contract, *arguments)

    monkeypatch.setattr(Pipeline, "update", failing_once)
    deployed.process()
    assert failed
    assert ["NEW" in cars for cars in seen[:3]] == [False, False, True]


def test_a_table_that_cannot_be_updated_does_not_keep_uploads_from_the_others(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_edition(monkeypatch, SILVER)
    uploaded: list[str] = []
    seen: list[set[str]] = []
    has_work = Ingestion.has_work

    def arriving(ingestion: Ingestion) -> bool:
        seen.append(alerted(deployed))
        if not uploaded:
            uploaded.append("NEW")
            upload_new_car(deployed)
        return has_work(ingestion)

    update = Pipeline.update

    def failing(pipeline: Pipeline, contract: DerivedTable, *arguments: Any) -> Any:
        if contract.name == FUEL_EFFICIENCY.name:
            raise OSError("the network is gone")
        return update(pipeline, contract, *arguments)

    monkeypatch.setattr(Ingestion, "has_work", arriving)
    monkeypatch.setattr(Pipeline, "update", failing)
    deployed.process()
    assert ["NEW" in cars for cars in seen[:2]] == [False, True]


def test_updated_at_is_not_before_what_happened_between_two_pieces(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = raise_edition(monkeypatch, ALERTS)
    deployed.pipeline.lakehouse.table(ALERTS).delete()
    queried_at = datetime.min.replace(tzinfo=UTC)
    read: set[str] = set()

    def query(_: Any) -> None:
        """Read the rows that have changed since the last query, as docs/querying.md says."""
        nonlocal queried_at
        # The next piece is computed meanwhile.
        time.sleep(1)
        now = datetime.now(UTC)
        read.update(row["alert_id"] for row in deployed.rows(ALERTS) if row["updated_at"] > queried_at)
        queried_at = now

    deployed.pipeline.refresh(changed, "a run", insurance_as_of=AS_OF, between_steps=query)
    query(None)
    assert read == {row["alert_id"] for row in deployed.rows(ALERTS)}


@pytest.mark.parametrize("contract", [SILVER, ALERTS], ids=lambda one: one.full_name)
def test_a_piece_has_the_uploads_that_arrived_while_it_was_computed(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: DerivedTable
) -> None:
    changed = raise_edition(monkeypatch, contract)
    taken: list[date] = []

    def take_upload_of_the_next_piece(step: Any) -> None:
        day = max(step.left)
        # The number of Silver rows does not change.
        deployed.upload(f"{day}.json", json.dumps([event("CAR-1", f"{day}T10:00:00Z", engineTempCelsius=90)]))
        deployed.pipeline.ingest("test-run")
        update_all(deployed)
        taken.append(day)

    deployed.pipeline.refresh(changed, "run", insurance_as_of=AS_OF, between_steps=take_upload_of_the_next_piece)
    assert len(taken) >= 3
    deployed.process()
    deployed.recall_batches()
    deployed.assert_equals_the_contract()


def counted_computations(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each computed piece, whether it was computed ahead."""
    computed: list[bool] = []
    to_arrow = _Frames.to_arrow

    def counted(frames: _Frames, *arguments: Any) -> Any:
        computed.append(threading.current_thread() is not threading.main_thread())
        return to_arrow(frames, *arguments)

    monkeypatch.setattr(_Frames, "to_arrow", counted)
    return computed


@pytest.mark.parametrize("contract", READ_UPSTREAM_ONLY, ids=lambda one: one.full_name)
def test_pieces_after_the_first_are_computed_ahead(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: DerivedTable
) -> None:
    computed = counted_computations(monkeypatch)
    deployed.pipeline.refresh(raise_edition(monkeypatch, contract), "a run")
    assert computed == [False, True, True, True, True]


def test_a_piece_is_not_computed_again_after_a_conflict(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = raise_edition(monkeypatch, SILVER)
    computed = counted_computations(monkeypatch)
    conflicts = iter([True, False, True])

    def conflicting(*arguments: Any) -> Any:
        if next(conflicts, False):
            raise CommitFailedException("another writer was faster")
        return merge_rows(*arguments)

    monkeypatch.setattr("telemetry_assets.engines.embedded.merge_rows", conflicting)
    deployed.pipeline.refresh(changed, "a run")
    assert len(computed) == 5
    deployed.assert_equals_the_contract()


def test_a_piece_that_could_not_be_computed_ahead_is_computed_in_its_own_step(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = raise_edition(monkeypatch, SILVER)
    to_arrow = _Frames.to_arrow

    def failing_ahead(frames: _Frames, *arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("no space left")
        return to_arrow(frames, *arguments)

    monkeypatch.setattr(_Frames, "to_arrow", failing_ahead)
    deployed.pipeline.refresh(changed, "a run")
    deployed.assert_equals_the_contract()


def test_the_engine_closes_while_a_piece_is_computed_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_arrow, computing = _Frames.to_arrow, threading.Event()

    def endless(frames: _Frames, rows: Any, contract: DerivedTable) -> Any:
        if threading.current_thread() is threading.main_thread():
            return to_arrow(frames, rows, contract)
        computing.set()
        # A query of about 10^12 rows.
        many = frames._spark.range(1_000_000)
        return to_arrow(frames, many.crossJoin(many).selectExpr("count(*) as n"), contract)

    def stop(_: Any) -> None:
        assert computing.wait(30)
        raise KilledError

    with rebuilt_in_pieces(tmp_path) as deployed:
        changed = raise_edition(monkeypatch, SILVER)
        monkeypatch.setattr(_Frames, "to_arrow", endless)
        with pytest.raises(KilledError):
            deployed.pipeline.refresh(changed, "a run", between_steps=stop)
        engine = deployed.pipeline.engine
        assert isinstance(engine, EmbeddedEngine)
    assert not engine._folder.exists()


@pytest.mark.parametrize("contract", READ_UPSTREAM_ONLY, ids=lambda one: one.full_name)
def test_a_transform_whose_pieces_are_computed_ahead_reads_only_the_upstream(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: DerivedTable
) -> None:
    def forbidden(*_: Any) -> Any:
        raise AssertionError("the rows depend on more than the upstream's rows of the piece")

    for name in ("previous", "history"):
        monkeypatch.setattr(PieceInputs, name, forbidden)
    for name in ("pending", "upstream_dates"):
        monkeypatch.setattr(PieceInputs, name, property(forbidden))
    deployed.pipeline.refresh(raise_edition(monkeypatch, contract), "a run")
    assert deployed.rows(contract)
