"""Columns that several tables have."""

from __future__ import annotations

from telemetry_assets.tables.contract import Column, Range

EVENT_IDENTITY = (
    Column("event_id", "string", "The event's id, or `<car_chassis>_<event_primary_timestamp>` if it has none.", True),
    Column("car_chassis", "string", "The car's chassis number.", True),
    Column("event_primary_timestamp", "string", "The time of the event, exactly as in the document.", True),
    Column("telemetry_timestamp", "timestamptz", "The time of the event, UTC.", True),
)
EVENT_DATE = Column("event_date", "date", "The UTC date of the event.", True)
INGESTED_AT = Column("ingested_at", "timestamptz", "The ingestion time of the row's batch, UTC.", True)
BATCH_ID = Column("batch_id", "string", "The id of the ingestion batch that added the row.", True)
UPDATED_AT = Column(
    "updated_at", "timestamptz", "The time at which any other column of the row last changed, UTC.", True
)

MANUFACTURER = Column("manufacturer", "string", "The car's manufacturer.")
MODEL = Column("model", "string", "The car's model.")
YEAR = Column("year", "int", "The car's year of construction.", valid_range=Range(1886, 2100))
GAS_TYPE = Column("gas_type", "string", "The car's fuel type, e.g. `Flex` or `Electric`.")
INSURANCE_PROVIDER = Column("insurance_provider", "string", "The car's insurer.")
INSURANCE_VALID_UNTIL = Column("insurance_valid_until", "date", "The last day of the car's insurance.")
MILEAGE = Column(
    "current_mileage_km",
    "double",
    "The odometer reading, kilometres.",
    valid_range=Range(0, 2_000_000, is_open=True),
)
FUEL = Column("fuel_available_liters", "double", "The fuel in the tank, litres.", valid_range=Range(0, 1_000))
ENGINE_TEMPERATURE = Column(
    "engine_temp_celsius", "double", "The engine temperature, degrees Celsius.", valid_range=Range(-50, 200)
)
OIL_PRESSURE = Column("oil_pressure_psi", "double", "The oil pressure, psi.", valid_range=Range(0, 200))
