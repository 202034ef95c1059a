"""The numbers of a table that are worth a plot over its partitions, for rows in Arrow and for rows in Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.silver_car_telemetry import ALERTS, CURRENT_STATE, FUEL_EFFICIENCY, SILVER

if TYPE_CHECKING:
    from pyspark.sql import Column


class Figure(Protocol):
    """One number of some rows."""

    def of_rows(self, rows: pa.Table) -> float:
        """The number, of rows in Arrow."""
        ...

    def aggregate(self) -> Column:
        """The number, as an aggregate of rows in Spark."""
        ...


@dataclass(frozen=True)
class _Total:
    column: str

    def of_rows(self, rows: pa.Table) -> float:
        """See :meth:`Figure.of_rows`."""
        return float(pc.sum(rows[self.column]).as_py() or 0)

    def aggregate(self) -> Column:
        """See :meth:`Figure.aggregate`."""
        from pyspark.sql import functions as f

        return f.coalesce(f.sum(self.column), f.lit(0.0))


@dataclass(frozen=True)
class _Where:
    column: str
    value: str

    def of_rows(self, rows: pa.Table) -> float:
        """See :meth:`Figure.of_rows`."""
        return int(pc.sum(pc.equal(rows[self.column], self.value)).as_py() or 0)

    def aggregate(self) -> Column:
        """See :meth:`Figure.aggregate`."""
        from pyspark.sql import functions as f

        return f.count(f.when(f.col(self.column) == self.value, 1))


@dataclass(frozen=True)
class _Distinct:
    column: str

    def of_rows(self, rows: pa.Table) -> float:
        """See :meth:`Figure.of_rows`."""
        return int(pc.count_distinct(rows[self.column]).as_py())

    def aggregate(self) -> Column:
        """See :meth:`Figure.aggregate`."""
        from pyspark.sql import functions as f

        return f.countDistinct(self.column)


FIGURES: dict[TableContract, dict[str, Figure]] = {
    SILVER: {"cars": _Distinct("car_chassis")},
    CURRENT_STATE: {
        "insurance_expired_cars": _Where("insurance_status", "EXPIRED"),
        "insurance_expiring_in_90_days_cars": _Where("insurance_status", "EXPIRING_IN_90_DAYS"),
    },
    FUEL_EFFICIENCY: {"driven_km": _Total("total_km_driven"), "fuel_liters": _Total("total_fuel_liters")},
    ALERTS: {
        "critical_alerts": _Where("alert_severity", "CRITICAL"),
        "warning_alerts": _Where("alert_severity", "WARNING"),
        "alerted_cars": _Distinct("car_chassis"),
    },
}
"""By table and name."""
