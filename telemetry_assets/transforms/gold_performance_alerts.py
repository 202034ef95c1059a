"""The transform of ``gold.performance_alerts``: one row per event and rule whose bound the event crosses."""

from __future__ import annotations

import operator
from functools import reduce
from string import Formatter

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from telemetry_assets.tables.alert_rules import AlertRule, AlertRules, CarAttribute, Cars, Severity, shown
from telemetry_assets.tables.gold_performance_alerts import ALERTS
from telemetry_assets.transforms.refresh import RebuildInputs, RefreshParameters, UpdateInputs, of_cars
from telemetry_assets.transforms.shaping import shaped


def rebuild(inputs: RebuildInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute the alerts of some event dates."""
    return performance_alerts(of_cars(inputs.upstream(), inputs.cars), parameters.alert_rules)


def update(inputs: UpdateInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute the alerts of the changed events."""
    return performance_alerts(inputs.added(), parameters.alert_rules)


def performance_alerts(silver: DataFrame, rules: AlertRules) -> DataFrame:
    """Compute all alerts of some Silver rows. docs/contract.md, section 4.3."""
    of_event = f.array(*(_alert(rule) for rule in rules.rules))
    alerts = silver.withColumn("_alert", f.explode(of_event)).where("_alert is not null")
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


def _alert(rule: AlertRule) -> Column:
    """The alert of a rule as a struct; null if the event crosses no bound, or the rule does not apply to it."""
    alert = f.lit(None)
    for severity, bound in reversed(rule.most_severe_first()):
        alert = f.when(_crosses(rule, bound), _alert_of(rule, severity, bound)).otherwise(alert)
    return f.when(_applies(rule), alert)


def _alert_of(rule: AlertRule, severity: Severity, bound: float) -> Column:
    return f.struct(
        f.lit(rule.name).alias("type"),
        f.lit(severity).alias("severity"),
        f.col(rule.column).cast("double").alias("value"),
        f.lit(bound).alias("threshold"),
        _message(rule, severity, bound).alias("message"),
    )


def _crosses(rule: AlertRule, bound: float) -> Column:
    """Whether the reading crosses a bound; null if there is no reading."""
    reading = f.col(rule.column).cast("double")
    return reading > f.lit(bound) if rule.direction == "above" else reading < f.lit(bound)


def _applies(rule: AlertRule) -> Column:
    """Whether the rule applies to the event's car."""
    conditions = [_is_one_of(rule.only, name) for name in rule.only]
    conditions += [~_is_one_of(rule.exclude, name) for name in rule.exclude]
    return reduce(operator.and_, conditions, f.lit(True))


def _is_one_of(cars: Cars, name: CarAttribute) -> Column:
    """Whether the event has one of the values of an attribute, ignoring case. A missing value is none of them."""
    return f.coalesce(f.lower(f.col(name)).isin(*(value.lower() for value in cars[name])), f.lit(False))


def _message(rule: AlertRule, severity: Severity, bound: float) -> Column:
    placeholders = {
        "value": _one_decimal(f.col(rule.column).cast("double")),
        "severity": f.lit(severity.lower()),
        "bound": f.lit(shown(bound)),
    }
    parts: list[Column] = []
    for text, name, *_ in Formatter().parse(rule.message):
        parts += [f.lit(text)] if name is None else [f.lit(text), placeholders[name]]
    return f.concat(*parts, f.lit(""))


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
