"""Writes a simulated fleet's uploads to a folder or to S3."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.aws.locations import S3Location, is_s3
from telemetry_assets.simulator.fleet import SimulatedUpload


def send_uploads(uploads: Iterable[SimulatedUpload], place: str) -> int:
    """Write uploads to a folder or a location in S3, and return their number."""
    return put_uploads(uploads, S3Location.parse(place)) if is_s3(place) else write_uploads(uploads, Path(place))


def write_uploads(uploads: Iterable[SimulatedUpload], folder: Path) -> int:
    """Write uploads to a folder, and return their number. Each file gets its name when it is complete."""
    count = 0
    for upload in uploads:
        path = folder / upload.name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.tmp")
        unfinished.write_bytes(upload.content)
        os.replace(unfinished, path)
        count += 1
    return count


def put_uploads(uploads: Iterable[SimulatedUpload], location: S3Location) -> int:
    """Write uploads to a location in S3, and return their number."""
    from telemetry_assets.aws.clients import s3_client
    from telemetry_assets.aws.errors import translate_aws_errors

    client = s3_client()

    def put(upload: SimulatedUpload) -> None:
        key = f"{location.prefix}{upload.name}"
        client.put_object(Bucket=location.bucket, Key=key, Body=upload.content)

    with translate_aws_errors(), ThreadPoolExecutor(MOST_THREADS) as threads:
        return sum(1 for _ in threads.map(put, uploads))
