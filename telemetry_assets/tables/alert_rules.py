"""The alert rules: which readings of which cars are alerts. A TOML file defines them.

``alert_rules.toml`` in this package has the rules of docs/contract.md, section 4.3. A deployment can use its own file.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from telemetry_assets.tables.contract import DerivedTable
from telemetry_assets.tables.silver_car_telemetry import SILVER

Severity = Literal["WARNING", "CRITICAL"]
CarAttribute = Literal["gas_type", "manufacturer", "model"]
Cars = dict[CarAttribute, Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]]
Bound = Annotated[float, Field(strict=True)]

DEFAULT_FILE = Path(__file__).with_suffix(".toml")
_NUMERIC = tuple(column.name for column in SILVER.columns if column.type in ("int", "double"))
_LONGEST_WHOLE = 1e15
_PLACEHOLDERS = frozenset({"value", "severity", "bound"})
_HEADER = re.compile(r"\s*\[\[\s*(rules|\"rules\"|'rules')\s*\]\]")
_SUBTABLE = re.compile(r"\s*\[\s*rules\s*\.\s*(\w+)")
_TRIPLE_QUOTES = re.compile("\"{3}|'{3}")
_KEY = re.compile(r"\s*[\"']?(\w+)[\"']?\s*[.=]")

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)


class AlertRule(BaseModel):
    """One alert rule.

    :param name: the alert type, e.g. ``OVERHEAT_ENGINE``.
    :param column: the numeric Silver column with the reading.
    :param direction: whether a reading above or below a bound is an alert.
    :param bounds: the bound of each severity. If a reading crosses both bounds, the alert is critical.
    :param message: the text of an alert, with the placeholders ``{value}``, ``{severity}`` and ``{bound}``.
    :param only: if given, the rule applies only to events with one of these values in each of these columns.
    :param exclude: the rule does not apply to events with one of these values. In the file, its name is ``except``.
    """

    model_config = _STRICT

    name: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=100)]
    column: str
    direction: Literal["above", "below"]
    bounds: dict[Severity, Bound]
    message: Annotated[str, Field(min_length=1, max_length=1000)]
    only: Cars = {}
    exclude: Cars = Field({}, alias="except")

    @field_validator("column")
    @classmethod
    def _numeric(cls, value: str) -> str:
        if value not in _NUMERIC:
            raise ValueError(f"is not a numeric column of {SILVER.full_name}; these are {', '.join(_NUMERIC)}")
        return value

    @field_validator("message")
    @classmethod
    def _known_placeholders(cls, value: str) -> str:
        try:
            fields = [field for _, *field in Formatter().parse(value) if field[0] is not None]
        except ValueError as error:
            raise ValueError(f"is not a message ({error})") from None
        if any(name not in _PLACEHOLDERS or form or conversion for name, form, conversion in fields):
            raise ValueError("has other placeholders than {value}, {severity} and {bound}")
        if not value.isprintable():
            raise ValueError("has characters that cannot be printed")
        return value

    @model_validator(mode="after")
    def _bounds_in_order(self) -> AlertRule:
        warning, critical = self.bounds.get("WARNING"), self.bounds.get("CRITICAL")
        if warning is None and critical is None:
            raise ValueError("bounds: needs a bound for WARNING or CRITICAL")
        if warning is not None and critical is not None and not self.crosses(critical, warning):
            raise ValueError(f"bounds: the CRITICAL bound must be {self.direction} the WARNING bound")
        return self

    def crosses(self, reading: float, bound: float) -> bool:
        """Whether a reading is an alert for a bound."""
        return reading > bound if self.direction == "above" else reading < bound

    def most_severe_first(self) -> list[tuple[Severity, float]]:
        """The severities of the rule and their bounds."""
        severities: tuple[Severity, ...] = ("CRITICAL", "WARNING")
        return [(severity, self.bounds[severity]) for severity in severities if severity in self.bounds]

    def described(self) -> str:
        """The rule in one line."""
        bounds = ", ".join(
            f"{severity} {self.direction} {shown(bound)}" for severity, bound in self.most_severe_first()
        )
        return f"{self.name}: {self.column} {bounds}; {self.cars_described()}"

    def cars_described(self) -> str:
        """The cars to which the rule applies."""
        only = [f"only {name} {' or '.join(values)}" for name, values in self.only.items()]
        excluded = [f"not {name} {' or '.join(values)}" for name, values in self.exclude.items()]
        return ", ".join([*only, *excluded]) or "all cars"


def shown(bound: float) -> str:
    """A bound as text, without a fraction if it is a whole number."""
    return str(int(bound)) if bound.is_integer() and abs(bound) < _LONGEST_WHOLE else repr(bound)


class AlertRules(BaseModel):
    """The alert rules of a deployment."""

    model_config = _STRICT

    rules: Annotated[tuple[AlertRule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique_names(self) -> AlertRules:
        for name, count in Counter(rule.name for rule in self.rules).items():
            if count > 1:
                raise ValueError(f"{count} rules have the name {name}")
        return self

    @cached_property
    def edition(self) -> str:
        """A short text that changes if a rule changes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def transform_edition(table: DerivedTable, rules: AlertRules) -> str:
    """The edition of a table's transform, which includes that of the alert rules if the transform depends on them."""
    return f"{table.transform_edition}.{rules.edition}" if table.uses_alert_rules else str(table.transform_edition)


def read_alert_rules(file: Path = DEFAULT_FILE) -> AlertRules:
    """Read the alert rules of a TOML file.

    :raises ValueError: naming each mistake with its line.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # The path is not quoted, because a user may have entered a secret instead of a path.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"names a file that cannot be read ({reason})") from None
    try:
        return AlertRules(**tomllib.loads(text))
    except ValidationError as error:
        raise ValueError("names a file with mistakes: " + "; ".join(_mistakes(error, text))) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"names a file that is not TOML: {error}") from None


def _mistakes(error: ValidationError, text: str) -> Iterator[str]:
    lines = _lines(text)
    found = error.errors(include_url=False)
    for one in found:
        message, place = one["msg"].removeprefix("Value error, "), one["loc"]
        if one["type"] == "too_short" and place == ("rules",) and len(found) > 1:
            # Rules with mistakes do not count as rules.
            continue
        if place[:1] != ("rules",) or len(place) < 2:
            line = lines.get(place[:1]) or _line_of_second_name(text, lines)
            yield f"{_at(line)}{place[0] if place else 'rules'}: {message}"
            continue
        number, keys = place[1], [str(key) for key in place[2:] if key != "[key]"]
        line = lines.get((number, *keys[:1]), lines.get((number,)))
        yield f"{_at(line)}{'.'.join([f'rule {int(number) + 1}', *keys])}: {message}"


def _at(line: int | None) -> str:
    return "" if line is None else f"line {line}: "


def _line_of_second_name(text: str, lines: dict[tuple[Any, ...], int]) -> int | None:
    """The line of the first rule that has the name of an earlier one."""
    names: set[str] = set()
    for number, rule in enumerate(tomllib.loads(text).get("rules", [])):
        name = rule.get("name") if isinstance(rule, dict) else None
        if name in names:
            return lines.get((number, "name"))
        names.add(str(name))
    return None


def _lines(text: str) -> dict[tuple[Any, ...], int]:
    """The line of each rule and of each of its keys; ``tomllib`` does not return them."""
    lines: dict[tuple[Any, ...], int] = {}
    rule: tuple[int, ...] = ()
    is_in_text = False
    for number, line in enumerate(text.split("\n"), start=1):
        if not is_in_text and _HEADER.match(line):
            rule = (rule[0] + 1,) if rule else (0,)
            lines[rule] = number
        elif not is_in_text and (found := _SUBTABLE.match(line) or _KEY.match(line)):
            lines.setdefault((*rule, found[1]), number)
        # A text of several lines begins and ends with three quotation marks.
        is_in_text ^= len(_TRIPLE_QUOTES.findall(line)) % 2 == 1
    return lines
