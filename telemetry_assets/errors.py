"""What can go wrong, each with what to do about it.

Only errors that a person has to act on. A bad document or upload is not one of them: it becomes
a row of ``bronze.rejected_documents`` (``ingestion/parsing/documents.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

from telemetry_assets.text.plain import plain_text

_LISTED = 20


class TelemetryAssetsError(Exception):
    """Base of every error that this project raises on purpose; its text says what to do."""


class SettingsError(TelemetryAssetsError):
    """A setting is missing, contradicts another, or names something that cannot be used."""


class AwsError(TelemetryAssetsError):
    """AWS, or the way to it, refused a request, and the SDK's retries did not help."""


class CatalogBusyError(TelemetryAssetsError):
    """Another process kept the SQLite catalog locked for longer than :attr:`Settings.catalog_busy_seconds`.

    :param file: the catalog's file.
    :param seconds: how long this process has waited.
    """

    def __init__(self, file: str, seconds: float) -> None:
        super().__init__(
            f"Another process has kept {file} locked for {seconds:g} s. Nothing of this commit is in a table: a batch "
            "in progress waits, and the next run takes it. Where this happens often, end long transactions of other "
            "programs on the catalog (`lsof` lists who has it open), or raise TELEMETRY_CATALOG_BUSY_SECONDS."
        )


class CatalogUnusableError(TelemetryAssetsError):
    """The SQLite catalog cannot be read or written.

    :param file: the catalog's file.
    :param problem: what SQLite says, and what to do.
    """

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(
            f"The catalog {file} cannot be used. {problem[:1].upper()}{problem[1:]}. A batch in progress waits, and "
            "the next run takes it."
        )


class StorageError(TelemetryAssetsError):
    """A file system, or a limit of the operating system, refused a step. Nothing is half done: the next run goes on.

    ``file_system/errors.py`` makes its text.
    """


class TableMismatchError(TelemetryAssetsError):
    """A table is not what its contract says, or its catalog entry not what the table is, so nothing may write to it.

    :param table: the table's name, e.g. ``silver.car_telemetry``.
    :param differences: one sentence for each difference.
    :param in_catalog: whether they are only in what the catalog says, which the table doctor mends.
    """

    def __init__(self, table: str, differences: Sequence[str], *, in_catalog: bool = False) -> None:
        self.table = table
        self.differences = tuple(differences)
        listed = "\n".join(f"  - {difference}" for difference in self.differences)
        if in_catalog:
            super().__init__(
                f"What the catalog says of {table} is not what the table is, so nothing was written to it:\n{listed}\n"
                "Run `telemetry-assets doctor --repair`: it changes what the catalog says, never a row, and says why "
                "where it cannot mend it."
            )
            return
        otherwise = (
            "Do not drop it: only the archive holds its rows too. Where it is lost, move it away and copy the "
            "archive's uploads into the landing location."
            if table.startswith("bronze.")
            else "Or move it away (rename or drop it): the next run makes it anew and fills it from Bronze."
        )
        super().__init__(
            f"{table} differs from its contract, so nothing was written to it:\n{listed}\n"
            "`telemetry-assets doctor` shows every table. Change this one back to its contract. "
            f"{otherwise}"
        )


class TableMissingError(TelemetryAssetsError):
    """A table that somebody wants to read is not in the catalog."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table} is not in the catalog. Before the first run that is as it should be: `telemetry-assets process` "
            "makes it. Otherwise its entry was lost: `telemetry-assets doctor` says what can be done."
        )


class SparkError(TelemetryAssetsError):
    """Spark could not do a step.

    :param table: the table that was to be brought up to date.
    :param cause: what Java says.
    """

    def __init__(self, table: str, cause: str) -> None:
        super().__init__(
            f"Spark could not bring {table} up to date, and nothing of this step is in the table: {plain_text(cause)}. "
            "docs/spark.md has the usual causes; the run's log has the whole of it."
        )


class RemoteRunError(TelemetryAssetsError):
    """A step that was given to EMR Serverless or Glue did not come to its end.

    :param message: what its program has told, or which run ended how.
    :param log: the last lines of its driver.
    """

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        quoted = "".join(f"\n  | {plain_text(line)}" for line in log)
        super().__init__(message + (f" The driver's last lines:{quoted}" if quoted else ""))


class PackageError(TelemetryAssetsError):
    """What remote Spark is to run is not there, or is not of this code."""


class ConcurrentWriteError(TelemetryAssetsError):
    """Other writers kept changing a table until the attempts of this one ran out."""

    def __init__(self, table: str, attempts: int) -> None:
        super().__init__(
            f"{table} was changed by somebody else during each of {attempts} attempts to commit to it. "
            "Nothing of this commit is in the table. Find the other writer (the table's newest snapshots "
            "say which run made them), then run this again."
        )


class LandingUnavailableError(TelemetryAssetsError):
    """The landing location does not hold the claims of the batch in progress, so it is not the one it was."""

    def __init__(self, location: str, claims: str, batch_id: str) -> None:
        super().__init__(
            f"{location} is not there, or not the landing location that batch {batch_id} was begun with: {claims} is "
            "missing. The batch stays as it is. Mount the location, then run this again; if its uploads are gone for "
            f"good, make the folder {claims}."
        )


class LandingUnsafeError(TelemetryAssetsError):
    """Another user could exchange files in a folder that the pipeline needs for itself in the landing location.

    :param folder: the folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"{folder} belongs to another user, or others may write to it, so nothing is put there. Remove it, and let "
            "this pipeline's user own the landing folder with the sticky bit set (docs/security.md), or put landing "
            "folder and lakehouse on one file system, so that it is not needed."
        )


class JournalUnreadableError(TelemetryAssetsError):
    """The journal of the batch in progress is not what this project writes."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path} is no journal of a batch ({plain_text(problem)}), so something else has written to it. "
            + (
                "Bring back an older version of the object. Where there is none: of the batch's uploads, those that a "
                "table has already would be taken again, so take them out of the landing location; then delete it."
                if path.startswith("s3://")
                else "Move it away, then run this again: the uploads that it claimed wait again, but for those that a "
                "table has."
            )
        )


class UnclaimableUploadsError(TelemetryAssetsError):
    """Uploads are in the landing location and cannot be moved out of it; all others were taken."""

    def __init__(self, uploads: Sequence[tuple[str, str]]) -> None:
        listed = "\n".join(f"  - {plain_text(uri)}: {plain_text(problem)}" for uri, problem in uploads[:_LISTED])
        if len(uploads) > _LISTED:
            listed += f"\n  - and {len(uploads) - _LISTED} more"
        super().__init__(
            f"These uploads cannot be taken out of the landing location, and stay there:\n{listed}\n"
            "Let the user or role of this process take them out of there (rename a file; copy and delete an object), "
            "or take them away."
        )


class QualityError(TelemetryAssetsError):
    """Tables hold, or were about to hold, what a consumer would be misled by, such as two rows for one key.

    :param table: the table's name.
    :param rows: how many rows are wrong.
    """

    def __init__(self, message: str, table: str, rows: int) -> None:
        self.table = table
        self.rows = rows
        super().__init__(message)
