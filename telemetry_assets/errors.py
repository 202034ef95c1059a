"""The exceptions of this project. Each message states the problem and the solution.

Add an exception here if a person has to act on it. An invalid document or upload is not an exception: it becomes a row
of ``bronze.rejected_documents`` (see ``ingestion/parsing/documents.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from telemetry_assets.text.plain import plain_text

_MAX_LISTED = 20


class TelemetryAssetsError(Exception):
    """Base class of all exceptions that this project raises."""


class SettingsError(TelemetryAssetsError):
    """A setting is missing or invalid, or contradicts another setting."""


class AwsError(TelemetryAssetsError):
    """A request to AWS failed after all retries of the SDK."""


class CatalogBusyError(TelemetryAssetsError):
    """Another process kept the SQLite catalog locked for longer than :attr:`Settings.catalog_busy_seconds`.

    :param file: path of the catalog's file.
    :param seconds: number of seconds that this process waited for the lock.
    """

    def __init__(self, file: str, seconds: float) -> None:
        super().__init__(
            f"Another process has kept {file} locked for {seconds:g} s, so nothing was committed. The next run "
            "completes the batch in progress. If this happens often, end long transactions of other programs on the "
            "catalog (`lsof` lists the processes that have it open), or raise TELEMETRY_CATALOG_BUSY_SECONDS."
        )


class CatalogUnusableError(TelemetryAssetsError):
    """The SQLite catalog cannot be read or written.

    :param file: path of the catalog's file.
    :param problem: SQLite's message and the solution.
    """

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(
            f"The catalog {file} cannot be used. {problem[:1].upper()}{problem[1:]}. The next run "
            "completes the batch in progress."
        )


class StorageError(TelemetryAssetsError):
    """A file operation failed because of the file system or a limit of the operating system.

    Completed commits are unaffected, and the next run continues. ``file_system.py`` creates the message.
    """


class TableMismatchError(TelemetryAssetsError):
    """A table differs from its contract, or a catalog entry differs from its table. Nothing was written to the table.

    :param table: name of the table, for example ``silver.car_telemetry``.
    :param differences: one phrase for each difference.
    :param in_catalog: whether only the catalog entry differs, which ``telemetry-assets doctor`` can repair.
    """

    def __init__(self, table: str, differences: Sequence[str], *, in_catalog: bool = False) -> None:
        self.table = table
        self.differences = tuple(differences)
        listed = "\n".join(f"  - {difference}" for difference in self.differences)
        if in_catalog:
            super().__init__(
                f"The catalog entry of {table} differs from the table, so nothing was written to it:\n{listed}\n"
                "Run `telemetry-assets doctor --repair`. It repairs the entry and never changes rows. If it cannot "
                "repair the entry, it prints the reason."
            )
            return
        alternative = (
            "Do not drop it: the only other copy of its data is in the archive. If its rows are lost, rename it, and "
            "copy the archive's uploads to the landing location."
            if table.startswith("bronze.")
            else "Or drop or rename it, and the next run rebuilds it from Bronze."
        )
        super().__init__(
            f"{table} differs from its contract, so nothing was written to it:\n{listed}\n"
            "`telemetry-assets doctor` checks all tables. Undo the changes to this table. "
            f"{alternative}"
        )


class TableMissingError(TelemetryAssetsError):
    """A table to read is not in the catalog."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table} is not in the catalog. If no run has created it yet, run `telemetry-assets process`. Otherwise "
            "its catalog entry was lost; run `telemetry-assets doctor`."
        )


class SparkError(TelemetryAssetsError):
    """The refresh of a table failed in Spark.

    :param table: name of the table.
    :param cause: message of the Java exception.
    """

    def __init__(self, table: str, cause: str) -> None:
        super().__init__(
            f"Spark could not bring {table} up to date, and nothing was committed: {plain_text(cause)}. docs/spark.md "
            "lists common causes. The run's log contains the full error."
        )


class RemoteRunError(TelemetryAssetsError):
    """A step on EMR Serverless or Glue failed, was cancelled, or exceeded a time limit.

    :param message: the error that the step reported, or the state in which its run ended.
    :param log: last lines of the driver's log.
    """

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        quoted = "".join(f"\n  | {plain_text(line)}" for line in log)
        super().__init__(message + (f" The driver's last lines:{quoted}" if quoted else ""))


class PackageError(TelemetryAssetsError):
    """The package for remote Spark is missing, or was built from another version of the code."""


class ConcurrentWriteError(TelemetryAssetsError):
    """Each attempt to write failed because another process wrote first.

    :param what: the table, catalog entry or journal entry.
    """

    def __init__(self, what: str, attempts: int) -> None:
        during = "the attempt" if attempts == 1 else f"each of {attempts} attempts"
        super().__init__(
            f"{what} was changed by another process during {during} to write to it, so nothing was written. Stop the "
            "other process, and run this again. For a table, the summaries of its newest snapshots contain the run id "
            "of the other process."
        )


class LandingUnavailableError(TelemetryAssetsError):
    """The landing location does not contain the claimed uploads of the batch in progress."""

    def __init__(self, location: str, claims: str, batch_id: str) -> None:
        super().__init__(
            f"{location} does not exist, or is not the landing location of batch {batch_id}: {claims} is missing. The "
            "batch waits. Mount the landing location and run this again. If the batch's uploads are lost, create the "
            f"folder {claims}."
        )


class LandingUnsafeError(TelemetryAssetsError):
    """Another user could replace the pipeline's files in a folder of the landing location.

    :param folder: path of the folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"{folder} belongs to another user, or others may write to it, so nothing is moved to it. Remove it. Then "
            "make this user the owner of the landing folder and set its sticky bit (docs/security.md). Or put the "
            "landing folder and the lakehouse on one file system; then this folder is not used."
        )


class JournalUnreadableError(TelemetryAssetsError):
    """The journal of the batch in progress cannot be parsed."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path} is not the journal of a batch ({plain_text(problem)}). Another program has written to it. "
            + (
                "Restore an older version of the object. If there is none, remove the uploads that are already in a "
                "table from the landing location, because they would be ingested again. Then delete the object."
                if path.startswith("s3://")
                else "Move the file away and run this again. The uploads that it claimed wait again, except those that "
                "are already in a table."
            )
        )


class UnclaimableUploadsError(TelemetryAssetsError):
    """Some uploads cannot be moved out of the landing location. All others were ingested."""

    def __init__(self, uploads: Sequence[tuple[str, str]]) -> None:
        listed = "\n".join(f"  - {plain_text(uri)}: {plain_text(problem)}" for uri, problem in uploads[:_MAX_LISTED])
        if len(uploads) > _MAX_LISTED:
            listed += f"\n  - and {len(uploads) - _MAX_LISTED} more"
        super().__init__(
            f"These uploads cannot be moved out of the landing location and stay there:\n{listed}\n"
            "Allow this user or role to move them (in a folder: rename; in S3: copy and delete), or remove them."
        )


class MaintenanceError(TelemetryAssetsError):
    """Some tables could not be maintained. All others were.

    :param problems: the problem of each table, by its name.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        listed = "\n".join(f"  - {table}: {plain_text(problem)}" for table, problem in problems.items())
        super().__init__(
            f"These tables could not be maintained:\n{listed}\nNo row was changed, and the other tables were "
            "maintained. Solve the problems; the next maintenance then does the work."
        )


class QualityError(TelemetryAssetsError):
    """Rows of a table, or rows to be written to it, are wrong. For example, two rows have the same key.

    :param table: name of the table.
    :param rows: number of wrong rows.
    """

    def __init__(self, message: str, table: str, rows: int) -> None:
        self.table = table
        self.rows = rows
        super().__init__(message)
