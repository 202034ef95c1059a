"""moto's server with the corrections.

``python -m telemetry_assets_tests.harness.aws.moto_server`` prints the port of 127.0.0.1 that it listens on, and ends
when its standard input closes, so that it does not outlive a killed test run.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from flask import Flask
from moto.backends import SERVICE_NAMES
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import BaseResponse
from moto.core.utils import convert_to_flask_response
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

from telemetry_assets_tests.harness.aws import corrected_emr_serverless, corrected_glue
from telemetry_assets_tests.harness.aws.api_requests import Request, access_key_of, read_request
from telemetry_assets_tests.harness.aws.corrected_athena import CorrectedAthenaResponse
from telemetry_assets_tests.harness.aws.corrected_emr_serverless import CorrectedEmrServerlessResponse
from telemetry_assets_tests.harness.aws.corrected_glue import VERSION_LOCK, CorrectedGlueResponse
from telemetry_assets_tests.harness.aws.corrected_s3 import CorrectedS3Response
from telemetry_assets_tests.harness.aws.remote_orders import ORDERS
from telemetry_assets_tests.harness.aws.remote_programs import ENDPOINT
from telemetry_assets_tests.harness.aws.services import HARNESS_PATH, REQUESTS_KEPT

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SIGNED_FOR_S3 = re.compile(r"/([^/]+)/s3/aws4_request")
CORRECTED: dict[str, type[BaseResponse]] = {
    "athena": CorrectedAthenaResponse,
    "s3": CorrectedS3Response,
    "glue": CorrectedGlueResponse,
    "emrserverless": CorrectedEmrServerlessResponse,
}


class Corrected:
    """moto's application, which handles one request at a time.

    AWS evaluates a condition (``If-Match``, Glue's ``VersionId``) and writes atomically; moto handles requests in
    threads without a lock. The whole request is read first: AWS refuses an incomplete request, while moto processes
    the part that arrived.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self._one_at_a_time = Lock()
        self._requests: deque[tuple[str, Request]] = deque(maxlen=REQUESTS_KEPT)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _read_whole(environ):
            start_response("400 Bad Request", [("Content-Type", "application/xml")])
            return [b"<Error><Code>IncompleteBody</Code><Message>The body broke off.</Message></Error>"]
        path = environ["PATH_INFO"]
        if path == f"{HARNESS_PATH}requests":
            # Swapped in one statement, because other threads append meanwhile.
            requests, self._requests = self._requests, deque(maxlen=REQUESTS_KEPT)
            body = json.dumps([[key, asdict(request)] for key, request in requests]).encode()
            start_response("200 OK", [("Content-Type", "application/json")])
            return [body]
        if path.startswith(HARNESS_PATH):
            _obey(path.removeprefix(HARNESS_PATH))
            start_response("204 No Content", [])
            return []
        self._record(environ)
        bucket_region = _other_region(environ)
        if bucket_region:
            start_response("301 Moved Permanently", [("x-amz-bucket-region", bucket_region)])
            return [b"<Error><Code>PermanentRedirect</Code><Message>Ask the bucket's own region.</Message></Error>"]
        _route_any_key(environ)
        if environ["REQUEST_METHOD"] == "PUT" and "/messages/" in path and ORDERS.take("drop-messages") is not None:
            start_response("200 OK", [("ETag", '"lost"')])
            return []
        with self._one_at_a_time:
            return self._application(environ, start_response)

    def _record(self, environ: WSGIEnvironment) -> None:
        """Record the request and its access key."""
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        authorization = headers.get("authorization", "")
        body = b"" if _SIGNED_FOR_S3.search(authorization) else environ["wsgi.input"].getvalue()
        request = read_request(environ["REQUEST_METHOD"], environ["RAW_URI"], headers, body, len(self._requests) + 1)
        self._requests.append((access_key_of(authorization), request))


def _obey(order: str) -> None:
    """Execute a command that a test sends to the harness."""
    if order.startswith("fill/"):
        _, bucket, prefix, count = order.split("/")
        for number in range(int(count)):
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"{prefix}/{number:05d}.json", b"{}")
    elif order.startswith("remote/"):
        _, count, *words = order.split("/")
        ORDERS.left["/".join(words)] = int(count)
    elif order == "end-programs":
        end_programs()
    elif order == "release-programs":
        ORDERS.released.set()
    else:
        VERSION_LOCK.is_on = order.endswith("/on")


def end_programs() -> None:
    """End all running programs and remove all planned failures."""
    ORDERS.forget()
    for program in (*corrected_glue.PROGRAMS.values(), *corrected_emr_serverless.PROGRAMS.values()):
        program.cancel()


def _read_whole(environ: WSGIEnvironment) -> bool:
    """Read the body into memory; False if the client disconnected."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    try:
        chunked = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read() if chunked else environ["wsgi.input"].read(length)
    except OSError:
        return False
    if not chunked and len(body) < length:
        return False
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return True


def _other_region(environ: WSGIEnvironment) -> str | None:
    """The bucket's region if the request is signed for another one, which moto ignores."""
    signed = _SIGNED_FOR_S3.search(environ.get("HTTP_AUTHORIZATION", ""))
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(environ["RAW_URI"].split("?")[0].split("/")[1])
    if signed is None or bucket is None or bucket.region_name == signed[1]:
        return None
    return str(bucket.region_name)


def _route_any_key(environ: WSGIEnvironment) -> None:
    """Pass every S3 key on to moto, which reads it from the raw URI.

    S3 does not normalize keys. werkzeug decodes the path, merges its slashes and redirects.
    """
    if "/s3/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
        return
    _, bucket, *key = environ["RAW_URI"].split("?", 1)[0].split("/", 2)
    environ["PATH_INFO"] = f"/{bucket}/key" if key and key[0] else f"/{bucket}"


def _corrected_service(service: SERVICE_NAMES) -> Flask:
    """moto's application of one service, with the corrected response class if there is one."""
    application = create_backend_app(service)
    if corrected := CORRECTED.get(service):
        for view in application.view_functions.values():
            assert isinstance(view, convert_to_flask_response)
            view.callback = getattr(corrected, view.callback.__name__)
    return application


class _Applications(DomainDispatcherApplication):
    """moto's applications by service; moto itself lists its folder on each request to find one."""

    def __init__(self) -> None:
        super().__init__(_corrected_service)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


class _SilentHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Do not log requests."""


def serve(announce: Callable[[int], None]) -> None:
    """Serve until standard input closes."""
    application = Corrected(_Applications())
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_SilentHandler)
    ENDPOINT[0] = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    announce(server.server_port)
    sys.stdin.buffer.read()
    end_programs()


if __name__ == "__main__":
    serve(lambda port: print(port, flush=True))
