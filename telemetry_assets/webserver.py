"""Dagster's webserver behind a door: ``python -m telemetry_assets.webserver``, or ``… dev`` for all of `dagster dev`.

Dagster 1.13 answers GraphQL by GET and by forms of other sites, mutations included, so any page that an operator's
browser shows could launch runs. The options are those of `dagster-webserver`, or of `dagster dev`.
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
    """Lets through what a page of the webserver itself asks, and programs that are no browser.

    It refuses what another site's page sends, by ``Origin`` and by ``Sec-Fetch-Site``, which a page cannot forge. A
    person may still follow a link from there. No answer may be shown in a frame, as the site around it could make the
    person click on what they do not see.

    :param hosts: the names by which browsers reach it, beside `localhost` and addresses. Others are refused, as
        anybody's name server can let their name mean this machine.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a websocket on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Frame-Options"] = "DENY"
                # Beside Dagster's own policy: a browser holds to each of them.
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
            return 400, "No address of this webserver has a control character."
        if not self._is_known(headers.get("host", _LOOPBACK)):
            return 403, (
                "This webserver is not known by this name; open it by its address, or set TELEMETRY_WEBSERVER_HOSTS."
            )
        if _is_of_another_site(headers) and not _opens_a_page(scope, headers):
            return 403, "A page of another site may not ask this webserver for anything."
        return None

    def _is_known(self, host: str) -> bool:
        name = (_split(f"//{host}")[1] or "").lower()
        return name == "localhost" or name in self.hosts or _is_address(name)


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver with GraphQL for JSON only, which no form, image or link of another site can send.

    It is checked where GraphQL is answered, so that no spelling of the address goes round it.
    """

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer GraphQL that is sent by POST as JSON, and show the playground; refuse everything else."""
        if request.method != "POST":
            if "query" in request.query_params:
                return _refused(403, "GraphQL is answered to POST requests with a JSON body only.")
        elif request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refused(403, "GraphQL is answered to requests of the content type application/json only.")
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def _refused(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=status)


def _split(address: str) -> tuple[str, str | None]:
    """The host with its port, and the host's name; of what is no address, neither."""
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
    """Whether a person follows a link, from wherever, to a page in a window of its own."""
    sent = (scope.get("method"), headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return sent == ("GET", "navigate", "document")


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
    create = cli.create_app_from_workspace_process_context  # type: ignore[attr-defined]  # its own import
    hosts = known_hosts()

    def create_behind_door(*given: Any, **named: Any) -> ASGIApp:
        return SameOriginOnly(create(*given, **named), hosts)

    setattr(app, DagsterWebserver.__name__, GuardedWebserver)
    setattr(cli, create.__name__, create_behind_door)
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
