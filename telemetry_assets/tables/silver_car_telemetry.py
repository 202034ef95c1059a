"""The seven tables: the only place that names a column.

Creation, validation, checks, Arrow schemas and the documentation are derived from these contracts.
What the columns mean in full is in ``docs/tables.md``.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetry_assets.tables.contract import Column, TableContract

_EVENT_IDENTITY = (
    Column("event_id", "string", "The event's id, or `<car_chassis>_<time as written>` where it has none.", True),
    Column("car_chassis", "string", "The car's chassis number.", True),
    Column("event_primary_timestamp", "string", "The time of the event, exactly as the upload writes it.", True),
    Column("telemetry_timestamp", "timestamptz", "The time of the event, UTC.", True),
)
_EVENT_DATE = Column("event_date", "date", "The UTC date of the event.", True)
_INGESTED_AT = Column("ingested_at", "timestamptz", "When the batch that brought the row was ingested, UTC.", True)
_BATCH_ID = Column("batch_id", "string", "The ingestion batch that brought the row.", True)
_UPDATED_AT = Column("updated_at", "timestamptz", "When anything else in the row last changed, UTC.", True)

_MANUFACTURER = Column("manufacturer", "string", "The car's manufacturer.")
_MODEL = Column("model", "string", "The car's model.")
_YEAR = Column("year", "int", "The car's year of construction.")
_GAS_TYPE = Column("gas_type", "string", "What the car runs on, e.g. `Flex` or `Electric`.")
_INSURANCE_PROVIDER = Column("insurance_provider", "string", "The car's insurer.")
_INSURANCE_VALID_UNTIL = Column("insurance_valid_until", "date", "The last day of the car's insurance.")
_MILEAGE = Column("current_mileage_km", "double", "The odometer's reading, kilometres.")
_FUEL = Column("fuel_available_liters", "double", "The fuel in the tank, litres.")
_ENGINE_TEMPERATURE = Column("engine_temp_celsius", "double", "The engine's temperature, degrees Celsius.")
_OIL_PRESSURE = Column("oil_pressure_psi", "double", "The oil's pressure, psi.")

BRONZE = TableContract(
    layer="bronze",
    name="car_telemetry",
    description="Every accepted document exactly as received, one row each, append-only.",
    columns=(
        *_EVENT_IDENTITY,
        _EVENT_DATE,
        Column("document_shape", "string", "`event` (flat) or `vehicle` (nested).", True),
        Column("payload", "string", "The document's JSON text, as received.", True),
        Column("source_uri", "string", "The upload that the document came from.", True),
        Column("source_position", "int", "The document's position in the upload, from 0.", True),
        _INGESTED_AT,
        _BATCH_ID,
    ),
    key=("source_uri", "source_position", "batch_id"),
    partition="event_date",
)

REJECTED = TableContract(
    layer="bronze",
    name="rejected_documents",
    description="Every document or upload that was not accepted, exactly as received, with the reason.",
    columns=(
        Column("source_uri", "string", "The upload.", True),
        Column("source_position", "int", "The document's position in the upload, from 0; null for a whole upload."),
        Column("reason", "string", "A code of a closed set.", True),
        Column("message", "string", "What was wrong and what to do, for a person.", True),
        Column("payload", "string", "What was received: text, or base64 where it is not text."),
        _INGESTED_AT,
        _BATCH_ID,
    ),
    key=("source_uri", "source_position", "batch_id"),
    partition="ingested_at",
    partition_by_day=True,
)

UPLOADS = TableContract(
    layer="bronze",
    name="uploads",
    description="The ledger: one row for each upload that was taken. What it says depends on no table's snapshots.",
    columns=(
        _BATCH_ID,
        Column("source_uri", "string", "The upload.", True),
        Column("archive_uri", "string", "Where the archive keeps the upload, as received."),
        Column("stored_bytes", "long", "The upload's size as stored, in bytes."),
        Column("uploaded_at", "timestamptz", "The upload's own time, UTC."),
        _INGESTED_AT,
        Column("documents", "int", "Documents in the upload; 1 where it is rejected as a whole.", True),
        Column("accepted", "int", "Those of them that are rows of `bronze.car_telemetry`.", True),
        Column("rejected", "int", "Those of them that are rows of `bronze.rejected_documents`.", True),
        Column("problem", "string", "The reason code where the upload is rejected as a whole, else null."),
        Column("unknown_fields", "string", "JSON: how often each unknown field occurs, by its path."),
        Column("wrong_typed_fields", "string", "JSON: how often each known field has the wrong type, by its path."),
        Column("out_of_range_fields", "string", "JSON: how often each number is out of its range, by its path."),
    ),
    key=("batch_id", "source_uri"),
    partition="ingested_at",
    partition_by_day=True,
)

SILVER = TableContract(
    layer="silver",
    name="car_telemetry",
    description="One row per event, typed, the newest ingestion of it.",
    columns=(
        *_EVENT_IDENTITY,
        _MANUFACTURER,
        _MODEL,
        _YEAR,
        _MILEAGE,
        _FUEL,
        _ENGINE_TEMPERATURE,
        _OIL_PRESSURE,
        _GAS_TYPE,
        _INSURANCE_PROVIDER,
        _INSURANCE_VALID_UNTIL,
        Column("event_year", "int", "The year of the event date.", True),
        Column("event_month", "int", "The month of the event date, 1 to 12.", True),
        Column("event_day", "int", "The day of the month of the event date, 1 to 31.", True),
        _EVENT_DATE,
        Column("oil_temp_celsius", "double", "The oil's temperature, degrees Celsius."),
        Column("battery_charge_percent", "double", "The battery's charge, percent."),
        Column("tire_pressure_front_left_psi", "double", "Tire pressure, psi."),
        Column("tire_pressure_front_right_psi", "double", "Tire pressure, psi."),
        Column("tire_pressure_rear_left_psi", "double", "Tire pressure, psi."),
        Column("tire_pressure_rear_right_psi", "double", "Tire pressure, psi."),
        Column("trip_distance_km", "double", "The length of the trip that ended with this event, kilometres."),
        Column("trip_fuel_liters", "double", "The fuel that the trip used, litres."),
        Column("trip_max_speed_kmh", "double", "The trip's greatest speed, kilometres per hour."),
        Column("trip_duration_minutes", "double", "The trip's duration, minutes."),
        _INGESTED_AT,
    ),
    key=("event_id", "event_date"),
    partition="event_date",
)

# The attributes of which the current state keeps the last known value.
STATE_ATTRIBUTES = (
    _MANUFACTURER,
    _MODEL,
    _YEAR,
    _GAS_TYPE,
    _INSURANCE_PROVIDER,
    _INSURANCE_VALID_UNTIL,
    _MILEAGE,
    _FUEL,
    _ENGINE_TEMPERATURE,
    _OIL_PRESSURE,
)


def _origin_columns() -> Iterator[Column]:
    yield Column("telemetry_event_id", "string", "The id of the car's latest event.", True, internal=True)
    for attribute in STATE_ATTRIBUTES:
        name = attribute.name
        yield Column(f"{name}_known_at", "timestamptz", f"The time of the event that gave `{name}`.", internal=True)
        yield Column(f"{name}_event_id", "string", f"The id of the event that gave `{name}`.", internal=True)


CURRENT_STATE = TableContract(
    layer="gold",
    name="car_current_state",
    description="One row per car: the last known value of each attribute, and where its insurance stands.",
    columns=(
        Column("car_chassis", "string", "The car's chassis number.", True),
        *STATE_ATTRIBUTES,
        Column("telemetry_timestamp", "timestamptz", "The time of the car's latest event, UTC.", True),
        Column(
            "insurance_status",
            "string",
            "`EXPIRED`, `EXPIRING_IN_90_DAYS`, `ACTIVE` or `UNKNOWN`, as of `insurance_as_of`.",
            True,
        ),
        Column("insurance_days_expired", "int", "Days since the insurance expired; null unless it has."),
        Column("insurance_as_of", "date", "The date that the insurance's status holds for.", True),
        _UPDATED_AT,
        *_origin_columns(),
    ),
    key=("car_chassis",),
)

FUEL_EFFICIENCY = TableContract(
    layer="gold",
    name="fuel_efficiency_monthly",
    description="One row per car and month: kilometres driven and fuel used.",
    columns=(
        Column("car_chassis", "string", "The car's chassis number.", True),
        Column("year_month", "string", "The month, `YYYY-MM`.", True),
        Column("month", "date", "The first day of the month.", True),
        _MANUFACTURER,
        _MODEL,
        Column("total_km_driven", "double", "Kilometres of all contributing events.", True),
        Column("trip_count", "long", "Contributing events.", True),
        Column("measured_km", "double", "Kilometres of the contributing events whose fuel is known.", True),
        Column("total_fuel_liters", "double", "Litres used over `measured_km`.", True),
        Column("avg_fuel_efficiency_kmpl", "double", "Kilometres per litre; null where no fuel was used."),
        _UPDATED_AT,
    ),
    key=("car_chassis", "year_month"),
    partition="month",
)

ALERTS = TableContract(
    layer="gold",
    name="performance_alerts",
    description="One row per event and rule whose bound the event crossed.",
    columns=(
        Column("alert_id", "string", "SHA-256 of `<event_id>|<alert_type>`, lower-case hex.", True),
        Column("event_id", "string", "The event.", True),
        Column("car_chassis", "string", "The car's chassis number.", True),
        Column("alert_type", "string", "The rule, e.g. `OVERHEAT_ENGINE`.", True),
        Column("alert_severity", "string", "`WARNING` or `CRITICAL`.", True),
        Column("alert_value", "double", "The reading, in its column's unit.", True),
        Column("alert_threshold", "double", "The bound that the reading crossed.", True),
        Column("alert_message", "string", "What happened, for a person.", True),
        Column("telemetry_timestamp", "timestamptz", "The time of the event, UTC.", True),
        Column("alert_date", "date", "The UTC date of the event.", True),
        _UPDATED_AT,
    ),
    key=("alert_id", "alert_date"),
    partition="alert_date",
)

CONTRACTS = (BRONZE, REJECTED, UPLOADS, SILVER, CURRENT_STATE, FUEL_EFFICIENCY, ALERTS)
UPSTREAM = {SILVER: BRONZE, CURRENT_STATE: SILVER, FUEL_EFFICIENCY: SILVER, ALERTS: SILVER}


def contract_named(name: str) -> TableContract:
    """The contract of ``<layer>.<table>``, or of ``<table>`` where only one layer has it.

    :raises KeyError: where there is no such table; its text lists the tables.
    """
    for contract in CONTRACTS:
        if name in (contract.full_name, "/".join(contract.identifier)):
            return contract
    candidates = [contract for contract in CONTRACTS if contract.name == name]
    if len(candidates) == 1:
        return candidates[0]
    raise KeyError(f"there is no table {name!r}; the tables are {', '.join(c.full_name for c in CONTRACTS)}")
