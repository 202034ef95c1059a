"""The Glue Data Catalog, opened with a client that determines the outcome of an update whose response was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from pyiceberg.catalog import METADATA_LOCATION, Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.io import PY_IO_IMPL, S3_SSE_KMS_KEY_ID, FileIO, load_file_io
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table

from telemetry_assets.aws.clients import glue_client
from telemetry_assets.aws.errors import error_code, is_unknown_outcome
from telemetry_assets.lakehouse.metastore import LakehouseCatalog
from telemetry_assets.text.plain import plain_logger

if TYPE_CHECKING:
    from mypy_boto3_glue.client import GlueClient
    from mypy_boto3_glue.type_defs import TableTypeDef

logger = plain_logger(__name__)

_LOCK_LOST = "ConcurrentModificationException"


def open_glue_catalog(name: str, warehouse: str, kms_key_id: str) -> Catalog:
    """Open the catalog of the account and region of AWS's own settings.

    :param warehouse: the S3 URI below which the tables are.
    :param kms_key_id: the KMS key that encrypts the tables' files; if empty, the bucket's default encryption applies.
    """
    properties = {"warehouse": warehouse, PY_IO_IMPL: "telemetry_assets.lakehouse.s3_file_io.S3FileIO"}
    if kms_key_id:
        properties[S3_SSE_KMS_KEY_ID] = kms_key_id
    client = _ResolvingClient(glue_client(), load_file_io(properties))
    return _GlueCatalog(name, client=client, **properties)  # type: ignore[arg-type]  # it has the same methods


class _GlueCatalog(LakehouseCatalog, GlueCatalog):
    """PyIceberg's Glue catalog, with what :class:`LakehouseCatalog` adds."""

    def _convert_glue_to_iceberg(self, glue_table: TableTypeDef) -> Table:
        identifier = (glue_table.get("DatabaseName", ""), glue_table["Name"])
        load = super()._convert_glue_to_iceberg
        return self._loaded(
            identifier, glue_table.get("Parameters", {}).get(METADATA_LOCATION), lambda: load(glue_table)
        )


class _ResolvingClient:
    """A Glue client whose ``update_table`` checks whether a failed update took effect before it raises.

    The response can be lost after the update took effect. The SDK then repeats the request, which fails because of its
    own first update. PyIceberg would treat this as a commit of another writer, and delete the manifests of a commit
    that succeeded.
    """

    def __init__(self, client: GlueClient, io: FileIO) -> None:
        self._client = client
        self._io = io

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_table(self, **request: Any) -> Any:
        """Call Glue's ``UpdateTable``; an update that took effect succeeds, even if its response was an error."""
        try:
            return self._client.update_table(**request)
        except (ClientError, BotoCoreError) as error:
            is_lost = isinstance(error, ClientError) and error_code(error) == _LOCK_LOST
            if not (is_lost or is_unknown_outcome(error)) or not self._took_effect(request):
                raise
            logger.warning("an update of the catalog took effect although the response was an error: %s", error)
            return {}

    def _took_effect(self, request: dict[str, Any]) -> bool:
        ours = request["TableInput"]["Parameters"][METADATA_LOCATION]
        name = request["TableInput"]["Name"]
        entry = self._client.get_table(DatabaseName=request["DatabaseName"], Name=name)["Table"]
        current = entry.get("Parameters", {}).get(METADATA_LOCATION)
        if current is None or current == ours:
            return bool(current == ours)
        # Another writer may have committed after this update.
        metadata = FromInputFile.table_metadata(self._io.new_input(current))
        return any(past.metadata_file == ours for past in metadata.metadata_log)
