"""How a remote program tells: Dagster Pipes' messages in S3, encrypted as all else, and not lost with one request."""

from __future__ import annotations

from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError
from dagster_pipes import PipesS3MessageWriter, PipesS3MessageWriterChannel

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.requests import encryption
from telemetry_assets.settings import Settings


class MessageWriter(PipesS3MessageWriter):
    """Writes messages as :class:`PipesS3MessageWriter` does, for a deployment."""

    def __init__(self, settings: Settings, interval: float) -> None:
        super().__init__(s3_client(), interval=interval)
        self._kms_key_id = settings.kms_key_id

    def make_channel(self, params: Any) -> PipesS3MessageWriterChannel:
        """See :meth:`PipesS3MessageWriter.make_channel`."""
        return _Channel(self._kms_key_id, params["bucket"], params["key_prefix"], self.interval)


class _Channel(PipesS3MessageWriterChannel):
    """Pipes' own upload thread ends with its first failure, and with it all that would be told after that."""

    def __init__(self, kms_key_id: str, bucket: str, key_prefix: str, interval: float) -> None:
        super().__init__(s3_client(), bucket, key_prefix, interval=interval)
        self._encryption: dict[str, Any] = encryption(kms_key_id)
        self._unsent: list[str] = []

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        """Write a piece, and with it what could not be written before."""
        self._unsent.append(payload.read())
        key = f"{self._key_prefix}/{index}.json"
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body="\n".join(self._unsent).encode(), **self._encryption
            )
        except (ClientError, BotoCoreError) as error:
            # To the driver's own log: what is printed is a message itself.
            print(f"messages could not be told, and will be with the next ones: {error}")
            return
        self._unsent.clear()
