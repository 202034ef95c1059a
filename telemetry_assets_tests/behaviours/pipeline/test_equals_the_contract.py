"""Every table equals the independent implementation of the contract, row by row, for any sequence of uploads."""

from __future__ import annotations

import random
import tempfile
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets.tables import derived_tables
from telemetry_assets_tests.harness.deployment import AS_OF, SAMPLES, Deployment, deployment
from telemetry_assets_tests.harness.made_documents import RUNS, UPLOADS, Document, event, framed, vehicle

_SLOW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_SLOWER = settings(_SLOW, max_examples=4)


def process_all(deployed: Deployment, runs: list[list[tuple[list[Document], str]]]) -> None:
    for number, uploads in enumerate(runs):
        for place, (documents, framing) in enumerate(uploads):
            ending, content = framed(documents, framing)
            deployed.upload(f"run-{number}/upload {place}{ending}", content)
        deployed.process()


@pytest.fixture
def samples() -> list[Path]:
    """The real uploads, which are beside the clone on development machines and not in the repository."""
    found = sorted(SAMPLES.glob("*.json"))
    if not found:
        pytest.skip(f"there are no real uploads in {SAMPLES}")
    return found


def test_the_real_uploads(deployed: Deployment, samples: list[Path]) -> None:
    for sample in samples:
        deployed.upload(sample.name, sample.read_bytes())
    deployed.process()
    assert len(deployed.batch_reports) == 1
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("deployed", ["folder", pytest.param("s3", marks=pytest.mark.exhaustive)], indirect=True)
def test_the_real_uploads_one_by_one_in_any_order_and_twice(deployed: Deployment, samples: list[Path]) -> None:
    order = samples + samples[::2]
    random.Random(7).shuffle(order)
    for number, sample in enumerate(order):
        deployed.upload(f"{number}-{sample.name}", sample.read_bytes())
        if number % 5 == 4:
            deployed.process()
    deployed.process()
    deployed.assert_equals_the_contract()


def send_messy_fleet(deployed: Deployment, seed: int) -> None:
    """Uploads of three months, in random order and partly twice, ingested in several runs."""
    fleet = Fleet(date(2026, 1, 9), cars=9, days=62, uploads=40, documents=600, seed=seed, mess=True)
    uploads = list(simulate(fleet))
    order = random.Random(seed)
    uploads += order.sample(uploads, 10)
    order.shuffle(uploads)
    for number, upload in enumerate(uploads):
        deployed.upload(f"{number}/{upload.name}", upload.content)
        if number % 20 == 19:
            deployed.process()
    deployed.process()
    assert len(deployed.batch_reports) >= 3


@pytest.mark.parametrize("deployed", ["folder", pytest.param("s3", marks=pytest.mark.exhaustive)], indirect=True)
def test_a_messy_fleet_over_three_months_in_any_order_and_partly_twice(deployed: Deployment) -> None:
    send_messy_fleet(deployed, 1)
    deployed.assert_equals_the_contract()


@pytest.mark.exhaustive
def test_another_messy_fleet(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        send_messy_fleet(deployed, 2)
        deployed.assert_equals_the_contract()


@pytest.mark.long
@_SLOW
@given(runs=RUNS)
def test_any_uploads_in_any_order_split_repeated_and_corrected(runs: list[list[tuple[list[Document], str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, deployment(Path(folder)) as deployed:
        process_all(deployed, runs)
        deployed.assert_equals_the_contract()


@pytest.mark.long
@_SLOWER
@given(runs=RUNS)
def test_rebuilding_every_date_changes_nothing(runs: list[list[tuple[list[Document], str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, deployment(Path(folder)) as deployed:
        process_all(deployed, runs)
        before = {contract: deployed.rows(contract) for contract in derived_tables()}
        dates = frozenset(row["event_date"] for row in before[next(iter(derived_tables()))])
        for contract in derived_tables():
            if dates:
                deployed.pipeline.refresh(contract, "backfill", dates, insurance_as_of=AS_OF)
            assert deployed.rows(contract) == before[contract], contract.full_name


@pytest.mark.long
@_SLOWER
@given(upload=UPLOADS)
def test_the_same_upload_again_changes_no_gold_row(upload: tuple[list[Document], str]) -> None:
    ending, content = framed(*upload)
    with tempfile.TemporaryDirectory() as folder, deployment(Path(folder)) as deployed:
        deployed.upload(f"first{ending}", content)
        deployed.process()
        gold = {contract: deployed.rows(contract) for contract in derived_tables() if contract.layer == "gold"}
        deployed.upload(f"second{ending}", content)
        deployed.process()
        assert {contract: deployed.rows(contract) for contract in gold} == gold


def test_batches_of_one_upload_each_give_the_same_tables(tmp_path: Path) -> None:
    with deployment(tmp_path, batch_max_uploads=1) as deployed:
        for number in range(5):
            deployed.upload(f"{number}.jsonl", framed([event(engineTempCelsius=number + 97)], "lines")[1])
        deployed.process()
        assert len(deployed.batch_reports) == 5
        deployed.assert_equals_the_contract()


def test_correction_that_removes_the_newest_value_restores_the_previous_one(deployed: Deployment) -> None:
    for number, (time, model) in enumerate([("2025-11-03T08:00:00Z", "old"), ("2025-11-04T08:00:00Z", "new")]):
        document = vehicle(time=time, event_id=f"evt-{number}", static={"Model": model})
        deployed.upload(f"{number}.json", framed([document], "array")[1])
    deployed.process()
    deployed.upload("correction.json", framed([vehicle(time="2025-11-04T08:00:00Z", event_id="evt-1")], "array")[1])
    deployed.process()
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("deployed", ["folder", pytest.param("s3", marks=pytest.mark.exhaustive)], indirect=True)
def test_a_correction_that_gives_an_event_to_another_car(deployed: Deployment) -> None:
    first = event("CAR-A", event_id="evt-1", engineTempCelsius=120)
    deployed.upload("first.json", framed([first], "array")[1])
    deployed.process()
    deployed.upload("second.json", framed([{**first, "carChassis": "CAR-B"}], "array")[1])
    deployed.process()
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("deployed", ["folder", pytest.param("s3", marks=pytest.mark.exhaustive)], indirect=True)
def test_late_events_of_an_earlier_month(deployed: Deployment) -> None:
    for number, (time, mileage) in enumerate(
        [("2025-12-02T08:00:00Z", 500), ("2025-10-31T08:00:00Z", 100), ("2025-11-30T23:00:00Z", 320)]
    ):
        document = event(time=time, currentMileageKm=mileage, fuelAvailableLiters=40 - number)
        deployed.upload(f"{number}.json", framed([document], "array")[1])
        deployed.process()
    deployed.assert_equals_the_contract()
