"""The translation of file systems' errors."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors.exceptions.connect import SparkConnectGrpcException

from telemetry_assets.errors import SettingsError, StorageError
from telemetry_assets.file_system import storage_advice, translate_storage_errors
from telemetry_assets.settings import Settings

GOES_ON = "the batch waits, and the next run continues it."


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, r"no space left on the file system of {} \([\d,]+ MB free of [\d,]+ MB\)\. Free some space; "),
        (errno.EDQUOT, r"quota on the file system of {} is used up"),
        (errno.EROFS, r"file system of {} is read-only"),
        (errno.EIO, r"file system of {} returned an I/O error"),
        (errno.ESTALE, r"file system of {} .*stale file handle"),
        (errno.ENOLCK, r"file system of {} does not support locks"),
        (errno.EMFILE, r"reached its limit of open files \([\d,]+\)\. Raise the limit"),
        (errno.ENFILE, r"This machine has reached its limit of open files\. Raise fs\.file-max"),
    ],
)
def test_each_error_names_its_location_and_its_remedy(tmp_path: Path, number: int, text: str) -> None:
    lakehouse = tmp_path / "lakehouse"
    lakehouse.mkdir()
    with (
        pytest.raises(StorageError, match=text.format(re.escape(str(lakehouse)))) as raised,
        translate_storage_errors(lakehouse, tmp_path / "landing"),
    ):
        raise OSError(number, "no", str(lakehouse / "bronze" / "x.parquet"))
    assert str(raised.value).endswith(GOES_ON)
    assert str(raised.value) == storage_advice(number, lakehouse)


@pytest.mark.parametrize(
    "wrapped",
    [
        OSError(errno.EMFILE, "Too many open files"),
        SparkConnectGrpcException("External error: Too many open files (os error 24)"),
        RuntimeError('failed: Os { code: 24, kind: TooManyOpenFiles, message: "Too many open files" }'),
    ],
    ids=["the error itself", "Sail", "Rust"],
)
def test_error_is_recognized_when_a_library_wraps_it(tmp_path: Path, wrapped: Exception) -> None:
    def wrapping() -> None:
        try:
            raise wrapped
        except type(wrapped) as error:
            raise ValueError("cannot write") from error

    with pytest.raises(StorageError, match="reached its limit of open files"), translate_storage_errors(tmp_path):
        wrapping()


@pytest.mark.parametrize(
    "other",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
        ValueError("[Errno 28]x"),
        SettingsError("no such setting"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_not_translated(tmp_path: Path, other: BaseException) -> None:
    with pytest.raises(type(other)) as raised, translate_storage_errors(tmp_path):
        raise other
    assert raised.value is other


def test_message_is_the_text_of_the_failure_in_dagster(tmp_path: Path) -> None:
    # Imported here: importing Dagster and the engines takes longer than all other tests of this file.
    from dagster import Failure

    from telemetry_assets.assets.checks import as_dagster_failure
    from telemetry_assets.pipeline import translate_errors

    settings = Settings(landing_uri=str(tmp_path / "landing"), lakehouse_uri=str(tmp_path / "lakehouse"))
    context: Any = None
    with (
        pytest.raises(Failure) as raised,
        as_dagster_failure(context),
        translate_errors(settings),
    ):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "landing" / "x.json"))
    assert f"The file system of {tmp_path / 'landing'} is read-only." in str(raised.value.description)
