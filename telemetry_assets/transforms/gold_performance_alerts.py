"""The transform of ``gold.performance_alerts``: one row per event and rule whose bound the event crosses."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from telemetry_assets.tables.contract import Changes
from telemetry_assets.tables.gold_performance_alerts import ALERTS
from telemetry_assets.transforms.refresh import Inputs, RefreshParameters, Replacement
from telemetry_assets.transforms.shaping import keep_updated_at, shaped


@dataclass(frozen=True)
class _Rule:
    alert_type: str
    reading: str
    label: str
    unit: str
    warning: float
    critical: float | None
    above: bool = True
    """Whether an alert is for readings above the bound; otherwise it is for readings below it."""

    def crossed(self, bound: float) -> Column:
        """Whether the reading crosses a bound; null if there is no reading."""
        return f.col(self.reading) > f.lit(bound) if self.above else f.col(self.reading) < f.lit(bound)

    def applies(self) -> Column:
        """Whether the rule applies to the car."""
        # Electric cars have no fuel.
        if self.alert_type == "LOW_FUEL":
            return f.lower(f.coalesce(f.col("gas_type"), f.lit(""))) != "electric"
        return f.lit(True)


# docs/contract.md, section 4.3.
_RULES = (
    _Rule("OVERHEAT_ENGINE", "engine_temp_celsius", "Engine temperature", "°C", 100.0, 115.0),
    _Rule("OVERHEAT_OIL", "oil_temp_celsius", "Oil temperature", "°C", 110.0, 125.0),
    _Rule("LOW_OIL_PRESSURE", "oil_pressure_psi", "Oil pressure", "psi", 20.0, 10.0, above=False),
    _Rule("SPEEDING", "trip_max_speed_kmh", "Top speed of the trip", "km/h", 110.0, 140.0),
    _Rule("LOW_FUEL", "fuel_available_liters", "Fuel in the tank", "l", 10.0, 5.0, above=False),
    _Rule("HIGH_MILEAGE", "current_mileage_km", "Odometer", "km", 100_000.0, None),
)
ALERT_TYPES = tuple(rule.alert_type for rule in _RULES)


def refresh(changes: Changes, inputs: Inputs, parameters: RefreshParameters) -> Replacement:
    """Replace the alerts of the changed dates."""
    dates = changes.partitions
    return Replacement(
        keep_updated_at(ALERTS, performance_alerts(inputs.upstream(dates)), inputs.previous(dates)), dates
    )


def performance_alerts(silver: DataFrame) -> DataFrame:
    """Compute all alerts of some Silver rows. docs/contract.md, section 4.3."""
    alerts = silver.withColumn("_alert", f.explode(f.array(*(_alert(rule) for rule in _RULES)))).where(
        "_alert is not null"
    )
    return shaped(
        ALERTS,
        alerts,
        {
            "alert_id": f.sha2(f.concat_ws("|", "car_chassis", "event_id", "_alert.type"), 256),
            "alert_type": f.col("_alert.type"),
            "alert_severity": f.col("_alert.severity"),
            "alert_value": f.col("_alert.value"),
            "alert_threshold": f.col("_alert.threshold"),
            "alert_message": f.col("_alert.message"),
            "alert_date": f.col("event_date"),
            "updated_at": f.current_timestamp(),
        },
    )


def _alert(rule: _Rule) -> Column:
    critical = rule.crossed(rule.critical) if rule.critical is not None else f.lit(False)
    threshold = f.when(critical, f.lit(rule.critical)).otherwise(f.lit(rule.warning))
    side = "above" if rule.above else "below"
    message = f.concat(
        f.lit(f"{rule.label} of "),
        _one_decimal(f.col(rule.reading)),
        f.lit(f" {rule.unit} is {side} the "),
        f.when(critical, f.lit(f"critical bound of {rule.critical or 0:g} {rule.unit}.")).otherwise(
            f.lit(f"warning bound of {rule.warning:g} {rule.unit}.")
        ),
    )
    alert = f.struct(
        f.lit(rule.alert_type).alias("type"),
        f.when(critical, f.lit("CRITICAL")).otherwise(f.lit("WARNING")).alias("severity"),
        f.col(rule.reading).alias("value"),
        threshold.cast("double").alias("threshold"),
        message.alias("message"),
    )
    return f.when(rule.crossed(rule.warning) & rule.applies(), alert)


def _one_decimal(value: Column) -> Column:
    """Format a double with one decimal place.

    It uses only arithmetic whose result is the same on all engines. Casts of doubles to strings or decimals differ.
    """
    tenths = f.floor(f.abs(value) * 10 + 0.5).cast("bigint")
    whole = f.floor(tenths / 10).cast("bigint")
    text = f.concat(
        f.when(value < 0, f.lit("-")).otherwise(f.lit("")),
        whole.cast("string"),
        f.lit("."),
        (tenths - whole * 10).cast("string"),
    )
    return f.when(f.abs(value) < 1e15, text).otherwise(f.lit("over 10^15 (or below its negative)"))
