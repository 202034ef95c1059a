"""The metadata files at a table's location, for tables whose catalog entry is missing or wrong. Nothing is written."""

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
    """The newest metadata file of a table is ambiguous; the message gives the reason."""


def metadata_files(table_location: str) -> list[str]:
    """All metadata files at a table's location, in descending order of the version in their names."""
    folder = f"{table_location}/metadata"
    found = _files_in_s3(folder) if is_s3(folder) else _files(folder)
    return sorted((file for file in found if _METADATA_FILE.search(file)), key=_version, reverse=True)


def has_snapshot(file: str, io: FileIO) -> bool:
    """Whether a metadata file can be read and has a current snapshot."""
    metadata = _read(io, file)
    return metadata is not None and metadata.current_snapshot_id is not None


def newest_metadata(files: Iterable[str], io: FileIO) -> tuple[str, TableMetadata]:
    """The newest complete metadata file of a table, and its content.

    Metadata is complete if all manifests of its current snapshot exist. After a failed commit the manifests do not
    exist, because PyIceberg deletes them.

    :param files: the result of :func:`metadata_files`.
    :raises AmbiguousMetadataError: if no file is complete, if two files could be the newest, or if the files belong to
        different tables.
    """
    read = [(file, metadata) for file in files if (metadata := _read(io, file)) is not None]
    tables = {metadata.table_uuid for _, metadata in read}
    if len(tables) > 1:
        raise AmbiguousMetadataError(f"the metadata files there belong to {len(tables)} different tables")
    complete = ((file, metadata) for file, metadata in read if _is_complete(io, metadata))
    newest = next(complete, None)
    if newest is None:
        raise AmbiguousMetadataError("none of the metadata files there is complete")
    second = next(complete, None)
    if second is not None and _version(second[0]) == _version(newest[0]):
        raise AmbiguousMetadataError(f"{newest[0]} and {second[0]} could both be the newest")
    return newest


def is_later(file: str, earlier: str) -> bool:
    """Whether a metadata file is a later version than another one of the same table, by their names.

    The metadata log of the later one may no longer have the earlier one.
    """
    is_beside = file.rpartition("/")[0] == earlier.rpartition("/")[0]
    return is_beside and 0 <= _version(earlier) < _version(file)


def _files(folder: str) -> list[str]:
    return [f"file://{path}" for path in Path(folder.removeprefix("file://")).glob("*.json")]


def _files_in_s3(folder: str) -> list[str]:
    from telemetry_assets.aws.clients import s3_client

    location = S3Location.parse(folder)
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.prefix)
    return [f"s3://{location.bucket}/{entry['Key']}" for page in pages for entry in page.get("Contents", [])]


def _version(file: str) -> int:
    found = _METADATA_FILE.search(file)
    return int(found[1] or found[2]) if found else -1


def _read(io: FileIO, file: str) -> TableMetadata | None:
    try:
        return FromInputFile.table_metadata(io.new_input(file))
    except (FileNotFoundError, ValueError, ValidationError):
        # The file was deleted after it was listed, or its writer has not finished. Other errors are raised.
        return None


def _is_complete(io: FileIO, metadata: TableMetadata) -> bool:
    snapshot = metadata.current_snapshot()
    if snapshot is None:
        return True
    try:
        return all(len(io.new_input(manifest.manifest_path)) > 0 for manifest in snapshot.manifests(io))
    except FileNotFoundError:
        return False
