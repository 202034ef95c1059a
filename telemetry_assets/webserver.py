"""Dagster's webserver, protected against cross-site requests: ``python -m telemetry_assets.webserver [dev]``.

Dagster 1.13 accepts GraphQL, including mutations, in GET requests and in forms of other sites. So any page in an
operator's browser could launch runs. The options are those of `dagster-webserver`, or of `dagster dev` after ``dev``.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from dagster._cli import dev
from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import load_settings

_LOOPBACK = "127.0.0.1"
_OWN = ("same-origin", "none")


class SameOriginOnly:
    """Middleware that accepts requests from the webserver's own pages and from programs other than browsers.

    It refuses requests from pages of other sites. It recognizes them by the headers ``Origin`` and ``Sec-Fetch-Site``,
    which a page cannot forge. Users may still follow links from other sites. Responses cannot be shown in a frame,
    because the surrounding site could make users click on something that they do not see.

    :param hosts: the host names by which browsers reach the webserver, besides `localhost` and IP addresses. Other
        names are refused, because any name server can resolve its names to this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or websocket to the app, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            """Send a response with headers that forbid showing it in a frame."""
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Frame-Options"] = "DENY"
                # This policy adds to Dagster's own, because browsers enforce every policy that they receive.
                headers.append("Content-Security-Policy", "frame-ancestors 'none'")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send_unframed)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=refusal[1])(scope, receive, send)
        else:
            await _refused(*refusal)(scope, receive, send_unframed)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if not scope["path"].isprintable():
            return 400, "The path contains a control character."
        if not self._is_known(headers.get("host", _LOOPBACK)):
            return 403, (
                "This host name is not accepted. Use the IP address, or add the name to TELEMETRY_WEBSERVER_HOSTS."
            )
        if _is_of_another_site(headers) and not _opens_a_page(scope, headers):
            return 403, "Requests from other sites are not accepted."
        return None

    def _is_known(self, host: str) -> bool:
        name = (_split(f"//{host}")[1] or "").lower()
        return name == "localhost" or name in self.hosts or _is_address(name)


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver, but GraphQL must be sent as JSON, which forms, images and links of other sites cannot do.

    The check is in the GraphQL endpoint, so it applies to every spelling of the URL.
    """

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer POST requests with JSON, and show the GraphQL playground; refuse all other requests."""
        if request.method != "POST":
            if "query" in request.query_params:
                return _refused(403, "GraphQL is accepted only in POST requests with a JSON body.")
        elif request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refused(403, "GraphQL is accepted only with the content type application/json.")
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def _refused(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=status)


def _split(address: str) -> tuple[str, str | None]:
    """A URL's host with its port, and its host name; an empty text and None if it is not a URL."""
    try:
        parts = urlsplit(address)
        return parts.netloc.lower(), parts.hostname
    except ValueError:
        return "", None


def _is_of_another_site(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and _split(origin)[0] != headers.get("host", "").lower():
        return True
    return headers.get("sec-fetch-site", _OWN[0]) not in _OWN


def _opens_a_page(scope: Scope, headers: Headers) -> bool:
    """Whether a request comes from a user who follows a link to a page that fills a window."""
    sent = (scope.get("method"), headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return sent == ("GET", "navigate", "document")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def known_hosts() -> frozenset[str]:
    """The names in ``TELEMETRY_WEBSERVER_HOSTS``; none if the settings are invalid, which the UI reports."""
    try:
        names = load_settings().webserver_hosts.split(",")
    except SettingsError:
        return frozenset()
    return frozenset(name.strip().lower() for name in names if name.strip())


def _serve(arguments: Sequence[str]) -> None:
    create = cli.create_app_from_workspace_process_context  # type: ignore[attr-defined]  # its own import
    hosts = known_hosts()

    def create_protected(*given: Any, **named: Any) -> ASGIApp:
        return SameOriginOnly(create(*given, **named), hosts)

    setattr(app, DagsterWebserver.__name__, GuardedWebserver)
    setattr(cli, create.__name__, create_protected)
    sys.argv[1:] = arguments
    cli.main()  # type: ignore[no-untyped-call]


def _develop(arguments: Sequence[str]) -> None:
    """Run `dagster dev` with this module in place of the webserver that it starts."""
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]  # its own import

    def start_protected(command: Sequence[str], **options: Any) -> Any:
        ours = [__spec__.name if part == cli.__package__ else part for part in command]
        return start(ours, **options)

    setattr(dev, start.__name__, start_protected)
    dev.dev_command(["--host", _LOOPBACK, *arguments], prog_name="dagster dev")


if __name__ == "__main__":
    if sys.argv[1:2] == ["dev"]:
        _develop(sys.argv[2:])
    else:
        _serve(sys.argv[1:])
