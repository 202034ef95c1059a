"""Dagster's webserver behind a door: ``python -m telemetry_assets.webserver``, or ``… dev`` for all of `dagster dev`.

Dagster 1.13 answers GraphQL by GET and by forms of other sites, mutations included, so any page that an operator's
browser shows could launch runs. The options are those of `dagster-webserver`, or of `dagster dev`.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dagster._cli import dev
from dagster_webserver import cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import load_settings

_LOOPBACK = "127.0.0.1"
_READING = ("GET", "HEAD", "OPTIONS")


class SameOriginOnly:
    """Lets through what a page of the webserver itself asks, and programs that are no browser.

    Refused are GraphQL by GET, GraphQL that is not sent as JSON (a form of another site can send nothing else), and
    what another site's page sends: by ``Origin`` and by ``Sec-Fetch-Site``, which a page cannot forge.

    :param hosts: the names by which browsers reach it, beside `localhost` and addresses. Others are refused, as
        anybody's name server can let their name mean this machine.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a websocket on, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=refusal)(scope, receive, send)
        else:
            await PlainTextResponse(f"{refusal}\n", status_code=403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        if not self._is_known(headers.get("host", _LOOPBACK)):
            return "This webserver is not known by this name; open it by its address, or set TELEMETRY_WEBSERVER_HOSTS."
        is_websocket = scope["type"] == "websocket"
        if (is_websocket or scope["method"] not in _READING) and _is_of_another_site(headers):
            return "A page of another site may not ask this webserver for anything."
        if not is_websocket and scope["path"].rstrip("/").endswith("/graphql"):
            return _refusal_of_graphql(scope, headers)
        return None

    def _is_known(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        return name == "localhost" or name in self.hosts or _is_address(name)


def _refusal_of_graphql(scope: Scope, headers: Headers) -> str | None:
    if scope["method"] in _READING:
        is_query = "query" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return "GraphQL is answered to POST requests with a JSON body only." if is_query else None
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "GraphQL is answered to requests of the content type application/json only."
    return None


def _is_of_another_site(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return True
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def known_hosts() -> frozenset[str]:
    """The names of ``TELEMETRY_WEBSERVER_HOSTS``; none where the settings cannot be used, which the UI shows itself."""
    try:
        names = load_settings().webserver_hosts.split(",")
    except SettingsError:
        return frozenset()
    return frozenset(name.strip().lower() for name in names if name.strip())


def _serve(arguments: Sequence[str]) -> None:
    build = DagsterWebserver.build_middleware
    hosts = known_hosts()

    def with_door(webserver: Any) -> list[Middleware]:
        return [Middleware(SameOriginOnly, hosts=hosts), *build(webserver)]

    setattr(DagsterWebserver, build.__name__, with_door)
    sys.argv[1:] = arguments
    cli.main()  # type: ignore[no-untyped-call]


def _develop(arguments: Sequence[str]) -> None:
    """Run `dagster dev`, which starts its webserver as a module of its own, with this one in that place."""
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]  # its own import

    def start_with_door(command: Sequence[str], **options: Any) -> Any:
        ours = [__spec__.name if part == cli.__package__ else part for part in command]
        return start(ours, **options)

    setattr(dev, start.__name__, start_with_door)
    dev.dev_command(["--host", _LOOPBACK, *arguments], prog_name="dagster dev")


if __name__ == "__main__":
    if sys.argv[1:2] == ["dev"]:
        _develop(sys.argv[2:])
    else:
        _serve(sys.argv[1:])
