"""Converts parsed documents to Arrow rows of Bronze and of the rejected documents, and counts their fields.

Rows are built in pieces of bounded size, because a document takes much more memory as a Python object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.ingestion.parsing.content import UploadRejectedError
from telemetry_assets.ingestion.parsing.documents import BronzeRow, Rejection
from telemetry_assets.ingestion.parsing.framing import Limits, parse_upload, too_many, whole_upload
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets.tables.contract import TableContract, decoded_bytes
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_ROWS_IN_PIECE = 10_000
_CHARACTERS_IN_PIECE = 8 * 1024 * 1024
_NAMES_COUNTED = 10_000
NAMES_LISTED = 100
"""How many names a report lists with their own counts."""
_LONGEST_NAME = 100
_OFTEN_THE_SAME = frozenset({"document_shape", "reason", "message"})
OTHERS = "(others)"
"""The name under which a report counts all names that it does not list."""


class BoundedCounter:
    """Counts names in bounded memory, because an upload can have any number of names.

    Above 10,000 different names, the rarest ones are counted together.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._others = 0

    def names(self) -> Iterable[str]:
        """The names that have their own counts."""
        return self._counts.keys()

    def is_above(self, names: int) -> bool:
        """Whether more than this many different names were counted; at most 10,000."""
        return self._others > 0 or len(self._counts) > names

    def add(self, names: Iterable[str]) -> None:
        """Add one to the count of each name."""
        self._counts.update(utf8(name[:_LONGEST_NAME])[:_LONGEST_NAME] for name in names)
        self._bound()

    def add_all(self, other: BoundedCounter) -> None:
        """Add the counts of another counter."""
        self._counts.update(other._counts)
        self._others += other._others
        self._bound()

    def _bound(self) -> None:
        if len(self._counts) > _NAMES_COUNTED:
            kept = Counter(dict(self._counts.most_common(_NAMES_COUNTED // 2)))
            self._others += self._counts.total() - kept.total()
            self._counts = kept

    def to_json(self) -> dict[str, object]:
        """The counts as JSON, for :meth:`from_json`."""
        return {"counts": dict(self._counts), "others": self._others}

    @classmethod
    def from_json(cls, read: dict[str, Any]) -> BoundedCounter:
        """Read what :meth:`to_json` has written."""
        counter = cls()
        counter._counts, counter._others = Counter(read["counts"]), read["others"]
        return counter

    def listed(self, at_most: int) -> dict[str, int]:
        """The counts of the most frequent names, and the sum of all others under :data:`OTHERS`."""
        listed = dict(self._counts.most_common(at_most))
        others = self._counts.total() - sum(listed.values()) + self._others
        return {**listed, OTHERS: others} if others else listed


@dataclass
class Counts:
    """Counts of rejections, unknown, wrong-typed and out-of-range fields, event dates, and events ahead of the clock.

    :param ahead_of_clock: accepted events by event date, whose time is more than five minutes after their ingestion.
    """

    rejected_by_reason: BoundedCounter = field(default_factory=BoundedCounter)
    unknown_fields: BoundedCounter = field(default_factory=BoundedCounter)
    wrong_typed_fields: BoundedCounter = field(default_factory=BoundedCounter)
    out_of_range_fields: BoundedCounter = field(default_factory=BoundedCounter)
    event_dates: BoundedCounter = field(default_factory=BoundedCounter)
    ahead_of_clock: BoundedCounter = field(default_factory=BoundedCounter)

    def add_all(self, other: Counts) -> None:
        """Add other counts to these."""
        for one in fields(Counts):
            getattr(self, one.name).add_all(getattr(other, one.name))


@dataclass(frozen=True)
class UploadReport:
    """The counts of one upload, as the ledger has them.

    :param accepted: how many documents were accepted.
    :param rejected: how many documents were rejected; an upload that is rejected as a whole counts as one.
    :param problem: the reason code if the upload is rejected as a whole, otherwise None.
    :param unknown_fields: by path, how many documents have this unknown field.
    :param wrong_typed_fields: by path, how many documents have a value of the wrong type in this field.
    :param out_of_range_fields: by path, how many documents have a number outside of the valid range in this field.
    """

    accepted: int
    rejected: int
    problem: str | None
    unknown_fields: dict[str, int]
    wrong_typed_fields: dict[str, int]
    out_of_range_fields: dict[str, int]

    @property
    def documents(self) -> int:
        """How many documents were received."""
        return self.accepted + self.rejected


@dataclass(frozen=True)
class UploadRows:
    """The rows of an upload and its counts.

    The rows have the columns of their tables. Texts that many rows share are dictionary-encoded, which
    :func:`telemetry_assets.lakehouse.batch_rows.append_batch` accepts.
    """

    bronze: pa.Table
    rejected: pa.Table
    counts: Counts

    @property
    def report(self) -> UploadReport:
        """The report of the upload."""
        whole = self.rejected.filter(pc.field("source_position").is_null())
        return UploadReport(
            accepted=self.bronze.num_rows,
            rejected=self.rejected.num_rows,
            problem=whole["reason"][0].as_py() if whole.num_rows else None,
            unknown_fields=self.counts.unknown_fields.listed(NAMES_LISTED),
            wrong_typed_fields=self.counts.wrong_typed_fields.listed(NAMES_LISTED),
            out_of_range_fields=self.counts.out_of_range_fields.listed(NAMES_LISTED),
        )

    @property
    def size(self) -> int:
        """The bytes of the rows in memory without dictionary encoding."""
        return decoded_bytes(self.bronze) + decoded_bytes(self.rejected)


@dataclass(frozen=True)
class Origin:
    """The columns that are the same in all rows of an upload."""

    source_uri: str
    ingested_at: datetime
    batch_id: str

    def columns(self, rows: int) -> dict[str, pa.Array]:
        """The columns with this many rows."""
        return {
            "source_uri": _repeated(self.source_uri, rows),
            "ingested_at": pa.repeat(pa.scalar(self.ingested_at, pa.timestamp("us", "UTC")), rows),
            "batch_id": _repeated(self.batch_id, rows),
        }


def upload_rows(name: str, content: bytes, origin: Origin, limits: Limits) -> UploadRows:
    """Parse an upload. If it cannot be parsed, the result is a row that rejects the whole upload.

    :param name: its file name or key, whose ending decides how it is read.
    :raises MemoryError: if there is not enough memory.
    """
    try:
        return gathered(parse_upload(name, content, origin.ingested_at, limits), origin, limits)
    except UploadRejectedError as rejected:
        rejection = whole_upload(rejected.reason, rejected.message, content, limits.content_bytes)
    except MemoryError:
        # The machine may be at fault and not the upload, so another run tries again.
        raise
    except Exception as error:
        # An unforeseen upload must not stop the ingestion of all others.
        logger.exception("%s cannot be parsed", origin.source_uri)
        message = f"The parser failed with {type(error).__name__}, which is a defect of this pipeline; report it."
        rejection = whole_upload("parser_failed", message, content, limits.content_bytes)
    return gathered([rejection], origin)


def gathered(parsed: Iterable[BronzeRow | Rejection], origin: Origin, limits: Limits | None = None) -> UploadRows:
    """Convert parsed documents to rows.

    :param limits: the limits of one upload; None for documents that were already rows of a table.
    :raises UploadRejectedError: if the documents exceed a limit.
    """
    counts = Counts()
    bronze, rejected = [_bronze_rows([], origin)], [_rejected_rows([], origin)]
    documents = 0
    for piece in in_pieces(parsed):
        documents += len(piece)
        if limits is not None and documents * len(origin.source_uri.encode()) > limits.content_bytes:
            raise _too_long_a_name(limits.content_bytes)
        rows = [one for one in piece if isinstance(one, BronzeRow)]
        rejections = [one for one in piece if isinstance(one, Rejection)]
        counts.unknown_fields.add(chain.from_iterable(row.unknown_fields for row in rows))
        counts.wrong_typed_fields.add(chain.from_iterable(row.wrong_typed_fields for row in rows))
        counts.out_of_range_fields.add(chain.from_iterable(row.out_of_range_fields for row in rows))
        counts.event_dates.add(row.event_date.isoformat() for row in rows)
        counts.ahead_of_clock.add(row.event_date.isoformat() for row in rows if row.is_ahead)
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


def in_pieces(parsed: Iterable[BronzeRow | Rejection]) -> Iterator[list[BronzeRow | Rejection]]:
    """Lists of parsed documents, of bounded size. The last list may be empty."""
    piece: list[BronzeRow | Rejection] = []
    characters = 0
    for one in parsed:
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
    """The text with lone surrogates, which UTF-8 cannot encode, replaced by escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
