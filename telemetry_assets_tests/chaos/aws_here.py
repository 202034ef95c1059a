"""AWS in a lane's process: moto's application, which each worker's proxy calls directly instead of over a socket.

A request then takes half the time of one to a separate server, and requests take most of the time of S3 schedules.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from moto import backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from telemetry_assets_tests.harness.aws.fault_proxy import _HOP_BY_HOP, Answer, FaultProxy, _Handler
from telemetry_assets_tests.harness.aws.moto_server import Corrected, _corrected_service
from telemetry_assets_tests.harness.aws.services import AwsServices

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


class AwsHere(AwsServices):
    """S3, Glue and moto's other services, in this process; a context manager."""

    def __enter__(self) -> AwsHere:
        _remember_modules()
        self.application = Corrected(DomainDispatcherApplication(_corrected_service))
        self._straight = self.proxy().__enter__()
        self.endpoint = self._straight.endpoint
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._straight.__exit__(kind, error, at)

    def proxy(self) -> FaultProxy:
        """A proxy to these services that can inject faults."""
        return _ProxyHere(self.application)

    def reset(self) -> None:
        """Delete everything."""
        super().reset()
        # Requests that bypass the workers' proxies need no record.
        self._straight.requests.clear()


class _ProxyHere(FaultProxy):
    """A proxy that calls a WSGI application."""

    def __init__(self, application: WSGIApplication) -> None:
        super().__init__("http://in-this-process")
        self.application = application

    def __enter__(self) -> FaultProxy:
        super().__enter__()
        self._server.RequestHandlerClass = _Calling
        return self


class _Calling(_Handler):
    def _forward(self, path: str, body: bytes) -> Answer:
        proxy = self.server.proxy
        assert isinstance(proxy, _ProxyHere)
        begun: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            begun.append((status, headers))
            return lambda _: None

        content = b"".join(proxy.application(self._environ(path, body), start_response))
        status, headers = begun[-1]
        length = next((value for name, value in headers if name.lower() == "content-length"), None)
        sent = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
        code = int(status.split(" ", 1)[0])
        return Answer(code, HTTPStatus(code).phrase, sent, content, length)

    def _environ(self, path: str, body: bytes) -> WSGIEnvironment:
        """The WSGI environment that werkzeug's server would pass."""
        place, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(place).encode().decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": path,
            "REQUEST_URI": path,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_address[1]),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-type" and "_" not in name:
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return environ


def _remember_modules() -> None:
    """Cache moto's list of services, which takes half the time of each request."""

    @functools.cache
    def listed(list_them: Callable[[], Iterable[str]] = backends.list_of_moto_modules) -> tuple[str, ...]:
        return tuple(list_them())

    setattr(backends, backends.list_of_moto_modules.__name__, listed)
