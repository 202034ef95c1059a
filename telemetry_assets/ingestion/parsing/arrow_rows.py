"""Judged documents become rows of Bronze and of the rejected documents, as Arrow tables, with what was counted.

Rows are gathered in pieces of bounded size, because a document takes far more memory as a Python object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.ingestion.parsing.documents import BronzeRow, Rejection
from telemetry_assets.ingestion.parsing.framing import Limits, UploadRejectedError, parse_upload, too_many, whole_upload
from telemetry_assets.lakehouse.encoded_rows import decoded_bytes
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_ROWS_IN_PIECE = 10_000
_CHARACTERS_IN_PIECE = 8 * 1024 * 1024
_NAMES_COUNTED = 10_000
NAMES_LISTED = 100
"""So many names of fields are counted one by one in a report; the rest together."""
_LONGEST_NAME = 100
_OFTEN_THE_SAME = frozenset({"document_shape", "reason", "message"})
OTHERS = "(others)"
"""The name under which the rarest names are counted together."""


class BoundedCounter:
    """Counts names, of which a hostile producer may send any number, in bounded memory.

    The rarest of more than 10,000 names are counted together.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._others = 0

    def names(self) -> Iterable[str]:
        """The names that are counted one by one."""
        return self._counts.keys()

    def is_above(self, names: int) -> bool:
        """Whether more different names were counted, of at most 10,000."""
        return self._others > 0 or len(self._counts) > names

    def add(self, names: Iterable[str]) -> None:
        """Count each name once more."""
        self._counts.update(utf8(name[:_LONGEST_NAME])[:_LONGEST_NAME] for name in names)
        self._bound()

    def add_all(self, other: BoundedCounter) -> None:
        """Count what another has counted."""
        self._counts.update(other._counts)
        self._others += other._others
        self._bound()

    def _bound(self) -> None:
        if len(self._counts) > _NAMES_COUNTED:
            kept = Counter(dict(self._counts.most_common(_NAMES_COUNTED // 2)))
            self._others += self._counts.total() - kept.total()
            self._counts = kept

    def to_json(self) -> dict[str, object]:
        """All of it, for :meth:`heard`."""
        return {"counts": dict(self._counts), "others": self._others}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> BoundedCounter:
        """What another has :meth:`told`."""
        counter = cls()
        counter._counts, counter._others = Counter(told["counts"]), told["others"]
        return counter

    def listed(self, at_most: int) -> dict[str, int]:
        """The most frequent names with their counts, the rest together under :data:`OTHERS`."""
        listed = dict(self._counts.most_common(at_most))
        others = self._counts.total() - sum(listed.values()) + self._others
        return {**listed, OTHERS: others} if others else listed


@dataclass
class Counts:
    """What was noticed about documents, by name."""

    rejected_by_reason: BoundedCounter = field(default_factory=BoundedCounter)
    unknown_fields: BoundedCounter = field(default_factory=BoundedCounter)
    wrong_typed_fields: BoundedCounter = field(default_factory=BoundedCounter)
    event_dates: BoundedCounter = field(default_factory=BoundedCounter)

    def add_all(self, other: Counts) -> None:
        """Count what another has counted."""
        self.rejected_by_reason.add_all(other.rejected_by_reason)
        self.unknown_fields.add_all(other.unknown_fields)
        self.wrong_typed_fields.add_all(other.wrong_typed_fields)
        self.event_dates.add_all(other.event_dates)


@dataclass(frozen=True)
class UploadReport:
    """What became of one upload's documents, as the ledger has it.

    :param problem: the reason code where the upload is rejected as a whole.
    :param unknown_fields: how often each unknown field occurs, by its path.
    :param wrong_typed_fields: how often each known field has the wrong type, by its path.
    """

    accepted: int
    rejected: int
    problem: str | None
    unknown_fields: dict[str, int]
    wrong_typed_fields: dict[str, int]

    @property
    def documents(self) -> int:
        """How many documents were received."""
        return self.accepted + self.rejected


@dataclass(frozen=True)
class UploadRows:
    """An upload's rows, and what was counted.

    In the columns of their tables, but with texts that are the same in many rows stored once (dictionary-encoded);
    :func:`telemetry_assets.lakehouse.batch_rows.append_batch` takes them so.
    """

    bronze: pa.Table
    rejected: pa.Table
    counts: Counts

    @property
    def report(self) -> UploadReport:
        """What became of the upload's documents."""
        whole = self.rejected.filter(pc.field("source_position").is_null())
        return UploadReport(
            accepted=self.bronze.num_rows,
            rejected=self.rejected.num_rows,
            problem=whole["reason"][0].as_py() if whole.num_rows else None,
            unknown_fields=self.counts.unknown_fields.listed(NAMES_LISTED),
            wrong_typed_fields=self.counts.wrong_typed_fields.listed(NAMES_LISTED),
        )

    @property
    def size(self) -> int:
        """Bytes of the rows, each with all its texts."""
        return decoded_bytes(self.bronze) + decoded_bytes(self.rejected)


@dataclass(frozen=True)
class Origin:
    """Where rows come from: the columns that all rows of an upload share."""

    source_uri: str
    ingested_at: datetime
    batch_id: str

    def columns(self, rows: int) -> dict[str, pa.Array]:
        """The shared columns, for so many rows."""
        return {
            "source_uri": _repeated(self.source_uri, rows),
            "ingested_at": pa.repeat(pa.scalar(self.ingested_at, pa.timestamp("us", "UTC")), rows),
            "batch_id": _repeated(self.batch_id, rows),
        }


def upload_rows(name: str, content: bytes, origin: Origin, limits: Limits) -> UploadRows:
    """All documents of an upload as rows. Nothing that is in an upload makes this fail otherwise.

    :raises MemoryError: where there is not enough memory for them.
    """
    try:
        return gathered(parse_upload(name, content, origin.ingested_at, limits), origin, limits)
    except UploadRejectedError as rejected:
        rejection = whole_upload(rejected.reason, rejected.message, content, limits.content_bytes)
    except MemoryError:
        # It may be the machine's state rather than the upload's fault, so another run tries again.
        raise
    except Exception as error:
        # One upload that nobody foresaw must not keep all others from being taken.
        logger.exception("%s cannot be parsed", origin.source_uri)
        message = f"The parser failed with {type(error).__name__}, which is a defect of this pipeline; report it."
        rejection = whole_upload("parser_failed", message, content, limits.content_bytes)
    return gathered([rejection], origin)


def gathered(judged: Iterable[BronzeRow | Rejection], origin: Origin, limits: Limits | None = None) -> UploadRows:
    """Judged documents as rows.

    :param limits: of what may be among them; none where they were rows before.
    :raises UploadRejectedError: where there is more among them.
    """
    counts = Counts()
    bronze, rejected = [_bronze_rows([], origin)], [_rejected_rows([], origin)]
    documents = 0
    for piece in in_pieces(judged):
        documents += len(piece)
        if limits is not None and documents * len(origin.source_uri.encode()) > limits.content_bytes:
            raise _too_long_a_name(limits.content_bytes)
        rows = [one for one in piece if isinstance(one, BronzeRow)]
        rejections = [one for one in piece if isinstance(one, Rejection)]
        counts.unknown_fields.add(chain.from_iterable(row.unknown_fields for row in rows))
        counts.wrong_typed_fields.add(chain.from_iterable(row.wrong_typed_fields for row in rows))
        counts.event_dates.add(row.event_date.isoformat() for row in rows)
        counts.rejected_by_reason.add(rejection.reason for rejection in rejections)
        if limits is not None:
            _require_limits(counts, limits)
        bronze.append(_bronze_rows(rows, origin))
        rejected.append(_rejected_rows(rejections, origin))
    return UploadRows(pa.concat_tables(bronze), pa.concat_tables(rejected), counts)


def _require_limits(counts: Counts, limits: Limits) -> None:
    if counts.event_dates.is_above(limits.event_dates):
        raise too_many("event_dates", limits.event_dates)
    if counts.unknown_fields.is_above(limits.field_names):
        raise too_many("field_names", limits.field_names)


def _too_long_a_name(content_bytes: int) -> UploadRejectedError:
    return UploadRejectedError(
        "too_large",
        f"The upload's URI, which every row of it has, would take more than {content_bytes:,} bytes in all. Give it a "
        "shorter name, or send it in parts. The archive keeps it.",
    )


def in_pieces(judged: Iterable[BronzeRow | Rejection]) -> Iterator[list[BronzeRow | Rejection]]:
    """Judged documents in lists of bounded size; the last list may be empty."""
    piece: list[BronzeRow | Rejection] = []
    characters = 0
    for one in judged:
        piece.append(one)
        characters += len(one.payload or "")
        if len(piece) >= _ROWS_IN_PIECE or characters >= _CHARACTERS_IN_PIECE:
            yield piece
            piece, characters = [], 0
    yield piece


def _bronze_rows(rows: list[BronzeRow], origin: Origin) -> pa.Table:
    own = {name: [getattr(row, name) for row in rows] for name in BRONZE.column_names if name in BronzeRow._fields}
    return _table(BRONZE, {**own, "source_position": [row.position for row in rows]}, origin.columns(len(rows)))


def _rejected_rows(rejections: list[Rejection], origin: Origin) -> pa.Table:
    own: dict[str, list[Any]] = {
        "source_position": [rejection.position for rejection in rejections],
        "reason": [rejection.reason for rejection in rejections],
        "message": [utf8(rejection.message) for rejection in rejections],
        "payload": [rejection.payload for rejection in rejections],
    }
    return _table(REJECTED, own, origin.columns(len(rejections)))


def _table(contract: TableContract, own: Mapping[str, list[Any]], shared: Mapping[str, pa.Array]) -> pa.Table:
    schema = contract.arrow_schema
    arrays = [shared[name] if name in shared else _array(name, own[name], schema) for name in contract.column_names]
    return pa.Table.from_arrays(arrays, contract.column_names)


def _array(name: str, values: list[Any], schema: pa.Schema) -> pa.Array:
    array = pa.array(values, schema.field(name).type)
    return array.dictionary_encode() if name in _OFTEN_THE_SAME else array


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([text]))


def utf8(text: str) -> str:
    """The text with lone surrogates, which no file can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
