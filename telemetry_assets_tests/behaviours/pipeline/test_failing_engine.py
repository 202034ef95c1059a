"""A failure in the engine changes no table, and the next run refreshes what it left."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.errors.exceptions.connect import SparkConnectGrpcException
from pyspark.sql import DataFrame

from telemetry_assets.engines.embedded import EmbeddedEngine
from telemetry_assets.tables import SILVER, derived_tables
from telemetry_assets.transforms import silver_car_telemetry
from telemetry_assets.transforms.refresh import RefreshParameters, UpdateInputs
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

# The embedded engine panics in this function if the number of digits is large.
_PANICKING = "format_number(event_year, event_year * 1000000) <> ''"


def test_table_is_unchanged_and_still_behind_after_the_engine_panicked(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[UpdateInputs] = []
    deployed.upload("a.json", framed([event("CAR-1", engineTempCelsius=120)], "array")[1])
    deployed.process()
    before = [deployed.rows(table) for table in derived_tables()]
    deployed.upload("b.json", framed([event("CAR-2", engineTempCelsius=120)], "array")[1])
    update = silver_car_telemetry.update

    def panicking(inputs: UpdateInputs, parameters: RefreshParameters) -> DataFrame:
        attempts.append(inputs)
        return update(inputs, parameters).where(_PANICKING)

    with monkeypatch.context() as patched:
        patched.setattr(silver_car_telemetry, "update", panicking)
        with pytest.raises(SparkConnectGrpcException, match="panicked"):
            deployed.process()
    assert len(attempts) == 1
    assert [deployed.rows(table) for table in derived_tables()] == before
    assert SILVER in deployed.pipeline.tables_behind()

    deployed.process()
    assert {row["car_chassis"] for row in deployed.rows(SILVER)} == {"CAR-1", "CAR-2"}


@pytest.mark.parametrize("rpc", ["AnalyzePlan", "ExecutePlan"])
def test_a_response_that_cannot_be_decoded_does_not_fail_the_run(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, rpc: str
) -> None:
    engine = deployed.pipeline.engine
    assert isinstance(engine, EmbeddedEngine)
    call = getattr(engine._spark.client._stub, rpc)
    decode = call._response_deserializer
    lost: list[bytes] = []

    def losing_one(message: bytes) -> Any:
        response = decode(message)
        if not lost and (rpc == "AnalyzePlan" or response.HasField("result_complete")):
            lost.append(message)
            raise ValueError("this message cannot be decoded")
        return response

    monkeypatch.setattr(call, "_response_deserializer", losing_one)
    deployed.upload("a.json", framed([event("CAR-1", engineTempCelsius=120)], "array")[1])
    deployed.process()
    assert lost
    deployed.assert_equals_the_contract()
