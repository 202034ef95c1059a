"""Many uploads in one prefix are all ingested, in bounded batches, oldest first."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import deployment_in_s3
from telemetry_assets_tests.harness.made_documents import FRAMINGS, Document, event, framed, vehicle

pytestmark = pytest.mark.long

SEED_ACCIDENT_FILES = 2_116


def document(number: int, random: Random) -> Document:
    """A document of either shape, or of none."""
    time = f"2025-{number % 2 + 10}-{number % 21 + 1:02d}T{number % 24:02d}:00:00Z"
    car = f"CAR-{number % 40}"
    if number % 50 == 0:
        return {"who": "knows"}
    if random.random() < 0.5:
        return event(car, time, currentMileageKm=number, engineTempCelsius=80 + number % 50)
    snapshot = {"currentMileage": number, "tire_pressures_psi": {"front_left": 30 + number % 5}}
    return vehicle(car, time, snapshot=snapshot, insurance={"provider": "SafeAuto", "validUntil": "2026-02-01"})


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("files", "batch"), [(65, 15), pytest.param(SEED_ACCIDENT_FILES, 500, marks=pytest.mark.exhaustive)]
)
def test_thousands_of_files_of_mixed_shapes_in_one_prefix(aws: AwsServices, files: int, batch: int) -> None:
    random = Random(1)
    with deployment_in_s3(aws, versioned=False, batch_max_uploads=batch) as deployed:

        def send(number: int) -> None:
            documents = [document(number * 3 + one, random) for one in range(number % 3 + 1)]
            ending, content = framed(documents, FRAMINGS[number % len(FRAMINGS)])
            deployed.upload(f"{number:04d}{ending}", content)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(send, range(files)))
        listed = {upload.uri: upload.modified for upload in deployed.pipeline.ingestion.landing.waiting()}
        deployed.process()

        assert [one.uploads for one in deployed.batch_reports] == [batch] * 4 + [files - 4 * batch]
        taken = sorted(deployed.rows(BRONZE) + deployed.rows(REJECTED), key=lambda row: row["ingested_at"])
        batches = [
            [listed[row["source_uri"]] for row in rows]
            for _, rows in itertools.groupby(taken, key=lambda row: row["batch_id"])
        ]
        assert all(max(older) <= min(newer) for older, newer in itertools.pairwise(batches))
        assert {row["source_uri"] for row in taken} == set(listed)
        assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
        assert list(deployed.pipeline.ingestion.landing.waiting()) == []
        deployed.assert_equals_the_contract()
