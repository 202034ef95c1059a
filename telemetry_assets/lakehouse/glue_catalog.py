"""The Glue Data Catalog, opened so that no commit's outcome is taken for another than it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from pyiceberg.catalog import METADATA_LOCATION, Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.io import PY_IO_IMPL, S3_SSE_KMS_KEY_ID, FileIO, load_file_io
from pyiceberg.serializers import FromInputFile

from telemetry_assets.aws.clients import glue_client
from telemetry_assets.aws.errors import error_code, is_unknown_outcome
from telemetry_assets.lakehouse.commits import OrderedCommits
from telemetry_assets.text.plain import plain_logger

if TYPE_CHECKING:
    from mypy_boto3_glue.client import GlueClient

logger = plain_logger(__name__)

_LOCK_LOST = "ConcurrentModificationException"


def open_glue_catalog(name: str, warehouse: str, kms_key_id: str) -> Catalog:
    """The catalog of the account and region that AWS's own settings name."""
    properties = {"warehouse": warehouse, PY_IO_IMPL: "telemetry_assets.lakehouse.s3_file_io.S3FileIO"}
    if kms_key_id:
        properties[S3_SSE_KMS_KEY_ID] = kms_key_id
    client = _ResolvingClient(glue_client(), load_file_io(properties))
    return _OrderedGlueCatalog(name, client=client, **properties)  # type: ignore[arg-type]  # it answers like one


class _OrderedGlueCatalog(OrderedCommits, GlueCatalog):
    """PyIceberg's own, with moments of commits in their order."""


class _ResolvingClient:
    """A client of Glue whose ``update_table`` reads what became of an update before it says that it failed.

    An answer can be lost after the update took effect. The SDK then asks again and meets its own update, which looks
    like another writer's; PyIceberg believes that, and deletes the manifests of a commit that stands.
    """

    def __init__(self, client: GlueClient, io: FileIO) -> None:
        self._client = client
        self._io = io

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_table(self, **request: Any) -> Any:
        """Glue's ``UpdateTable``; an update that is in the table has succeeded, however it was answered."""
        try:
            return self._client.update_table(**request)
        except (ClientError, BotoCoreError) as error:
            is_lost = isinstance(error, ClientError) and error_code(error) == _LOCK_LOST
            if not (is_lost or is_unknown_outcome(error)) or not self._took_effect(request):
                raise
            logger.warning("an update of the catalog was answered with an error and stands all the same: %s", error)
            return {}

    def _took_effect(self, request: dict[str, Any]) -> bool:
        ours = request["TableInput"]["Parameters"][METADATA_LOCATION]
        name = request["TableInput"]["Name"]
        entry = self._client.get_table(DatabaseName=request["DatabaseName"], Name=name)["Table"]
        current = entry.get("Parameters", {}).get(METADATA_LOCATION)
        if current is None or current == ours:
            return bool(current == ours)
        # Somebody may have committed after it.
        metadata = FromInputFile.table_metadata(self._io.new_input(current))
        return any(past.metadata_file == ours for past in metadata.metadata_log)
