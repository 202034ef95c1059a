"""Writes messages of Dagster Pipes to S3, with the deployment's encryption. Failed requests do not lose messages."""

from __future__ import annotations

from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError
from dagster_pipes import PipesS3MessageWriter, PipesS3MessageWriterChannel

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.requests import encryption
from telemetry_assets.settings import Settings


class MessageWriter(PipesS3MessageWriter):
    """A :class:`PipesS3MessageWriter` that encrypts with the deployment's KMS key.

    :param interval: seconds between two uploads.
    """

    def __init__(self, settings: Settings, interval: float) -> None:
        super().__init__(s3_client(), interval=interval)
        self._kms_key_id = settings.kms_key_id

    def make_channel(self, params: Any) -> PipesS3MessageWriterChannel:
        """See :meth:`PipesS3MessageWriter.make_channel`."""
        return _Channel(self._kms_key_id, params["bucket"], params["key_prefix"], self.interval)


class _Channel(PipesS3MessageWriterChannel):
    """Keeps messages that could not be written, and writes them with the next request.

    In :class:`PipesS3MessageWriterChannel`, the first failure would end the upload thread.
    """

    def __init__(self, kms_key_id: str, bucket: str, key_prefix: str, interval: float) -> None:
        super().__init__(s3_client(), bucket, key_prefix, interval=interval)
        self._encryption: dict[str, Any] = encryption(kms_key_id)
        self._unsent: list[str] = []

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        """Write messages, preceded by the messages that could not be written before."""
        self._unsent.append(payload.read())
        key = f"{self._key_prefix}/{index}.json"
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body="\n".join(self._unsent).encode(), **self._encryption
            )
        except (ClientError, BotoCoreError) as error:
            # Printed, because the output of the program is in the driver's log too.
            print(f"messages could not be written, and are written with the next ones: {error}")
            return
        self._unsent.clear()
