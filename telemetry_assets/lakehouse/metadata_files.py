"""Finds the metadata of a table that the catalog no longer points at. Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pyiceberg.exceptions import ValidationError
from pyiceberg.io import FileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata

from telemetry_assets.aws.locations import S3Location, is_s3

_METADATA_FILE = re.compile(r"(?:v(\d+)|(\d+)-[0-9a-f-]+)\.metadata\.json$")


class AmbiguousMetadataError(Exception):
    """Nobody can say which of the metadata files is the table; its text says why, for a person to decide."""


def metadata_files(table_location: str) -> list[str]:
    """All metadata files where a table's files are, the newest first as far as their names tell."""
    folder = f"{table_location}/metadata"
    found = _files_in_s3(folder) if is_s3(folder) else _files(folder)
    return sorted((file for file in found if _METADATA_FILE.search(file)), key=_number, reverse=True)


def holds_rows(file: str, io: FileIO) -> bool:
    """Whether a metadata file is of a table that somebody has written to."""
    metadata = _read(io, file)
    return metadata is not None and metadata.current_snapshot_id is not None


def newest_metadata(files: Iterable[str], io: FileIO) -> tuple[str, TableMetadata]:
    """The newest whole metadata among a table's files.

    A file of a commit that failed is not whole: its manifests have been deleted.

    :raises AmbiguousMetadataError: where none is whole, or more than one could be the newest.
    """
    read = [(file, metadata) for file in files if (metadata := _read(io, file)) is not None]
    tables = {metadata.table_uuid for _, metadata in read}
    if len(tables) > 1:
        raise AmbiguousMetadataError(f"the metadata files there belong to {len(tables)} different tables")
    whole = ((file, metadata) for file, metadata in read if _is_whole(io, metadata))
    newest = next(whole, None)
    if newest is None:
        raise AmbiguousMetadataError("none of the metadata files there is whole")
    second = next(whole, None)
    if second is not None and _number(second[0]) == _number(newest[0]):
        raise AmbiguousMetadataError(f"{newest[0]} and {second[0]} could both be the newest")
    return newest


def _files(folder: str) -> list[str]:
    return [f"file://{path}" for path in Path(folder.removeprefix("file://")).glob("*.json")]


def _files_in_s3(folder: str) -> list[str]:
    from telemetry_assets.aws.clients import s3_client

    location = S3Location.parse(folder)
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.prefix)
    return [f"s3://{location.bucket}/{entry['Key']}" for page in pages for entry in page.get("Contents", [])]


def _number(file: str) -> int:
    found = _METADATA_FILE.search(file)
    return int(found[1] or found[2]) if found else -1


def _read(io: FileIO, file: str) -> TableMetadata | None:
    try:
        return FromInputFile.table_metadata(io.new_input(file))
    except (FileNotFoundError, ValueError, ValidationError):
        # Gone since it was listed, or not yet written to its end. Any other error tells nothing, and is not hidden.
        return None


def _is_whole(io: FileIO, metadata: TableMetadata) -> bool:
    snapshot = metadata.current_snapshot()
    if snapshot is None:
        return True
    try:
        return all(len(io.new_input(manifest.manifest_path)) > 0 for manifest in snapshot.manifests(io))
    except FileNotFoundError:
        return False
