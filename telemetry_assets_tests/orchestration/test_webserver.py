"""Dagster's webserver refuses requests of other sites' pages and accepts those of its own pages."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any, cast

import pytest
from starlette.requests import Request

from telemetry_assets.webserver import GuardedWebserver, SameOriginOnly, known_hosts
from telemetry_assets_tests.harness.running_dagster import RunningDagster, running_dagster

pytestmark = pytest.mark.long

QUERY = "{ version }"
LAUNCH = 'mutation { launchRun(executionParams: {selector: {}, mode: "default"}) { __typename } }'


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDagster]:
    with running_dagster(tmp_path_factory.mktemp("dagster")) as running:
        yield running


def response(
    dagster: RunningDagster, path: str, body: bytes | None = None, /, **headers: str
) -> tuple[int, str, Message]:
    """The status, text and headers of a response."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{dagster.port}{path}", body, named)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def answered(dagster: RunningDagster, path: str, body: bytes | None = None, /, **headers: str) -> tuple[int, str]:
    """The status and text of a response."""
    return response(dagster, path, body, **headers)[:2]


def posted(dagster: RunningDagster, **headers: str) -> tuple[int, str]:
    body = json.dumps({"query": QUERY}).encode()
    return answered(dagster, "/graphql", body, Content_Type="application/json", **headers)


def test_own_pages_and_programs_are_accepted(dagster: RunningDagster) -> None:
    own = f"http://127.0.0.1:{dagster.port}"
    for headers in ({}, {"Origin": own}, {"Origin": own, "Sec_Fetch_Site": "same-origin"}):
        status, text = posted(dagster, **headers)
        assert (status, json.loads(text)["data"]["version"][:2]) == (200, "1.")


@pytest.mark.parametrize("query", [QUERY, LAUNCH])
def test_graphql_by_get_is_refused(dagster: RunningDagster, query: str) -> None:
    path = f"/graphql?query={urllib.parse.quote(query)}"
    # As an image, a redirect or an address typed by hand.
    for headers in ({}, {"Accept": "image/*"}, {"Accept": "text/html"}):
        status, text = answered(dagster, path, **headers)
        assert (status, text) == (403, "GraphQL is accepted only in POST requests with a JSON body.\n")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "application/graphql", ""])
def test_a_form_is_refused(dagster: RunningDagster, content_type: str) -> None:
    path = f"/graphql?query={urllib.parse.quote(QUERY)}"
    status, text = answered(dagster, path, b"x=y", Content_Type=content_type)
    assert (status, "content type application/json" in text) == (403, True)


@pytest.mark.parametrize("path", ["/graphql%0a", "/graphql%0D", "/graphql%E2%80%A8", "//graphql", "/%67raphql"])
def test_graphql_is_refused_for_any_spelling_of_its_path(dagster: RunningDagster, path: str) -> None:
    query = f"query={urllib.parse.quote(QUERY)}"
    for body, content_type in ((None, ""), (b"", "text/plain"), (QUERY.encode(), "application/graphql")):
        status, text = answered(dagster, f"{path}?{query}", body, Content_Type=content_type)
        assert '"version"' not in text
        assert status in (400, 403, 405) or "<html" in text


def test_graphql_endpoint_itself_refuses_requests() -> None:
    webserver = GuardedWebserver(cast(Any, None))
    for method in ("GET", "HEAD", "POST"):
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/any",
            "query_string": b"query=x",
            "headers": [],
        }
        assert asyncio.run(webserver.graphql_http_endpoint(Request(scope))).status_code == 403


@pytest.mark.parametrize(
    ("mode", "destination", "status"),
    [("no-cors", "image", 403), ("navigate", "iframe", 403), ("cors", "empty", 403), ("navigate", "document", 200)],
)
def test_another_site_may_only_open_a_page(dagster: RunningDagster, mode: str, destination: str, status: int) -> None:
    for site in ("cross-site", "same-site"):
        sent = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": destination}
        assert answered(dagster, "/", **sent)[0] == status
        assert answered(dagster, "/graphql", b"{}", Content_Type="application/json", **sent)[0] == 403


@pytest.mark.parametrize("path", ["/", "/server_info", "/graphql", "/graphql?query=x", "/graphql%0a", "/notebook"])
def test_no_response_can_be_framed(dagster: RunningDagster, path: str) -> None:
    _, _, headers = response(dagster, path, Accept="text/html")
    assert headers.get_all("X-Frame-Options") == ["DENY"]
    policies = headers.get_all("Content-Security-Policy", [])
    assert policies[-1] == "frame-ancestors 'none'"
    assert ("script-src" in policies[0]) == (path == "/")


def test_invalid_host_is_refused(dagster: RunningDagster) -> None:
    assert handshake(dagster, "Host: [") == 403


def handshake(dagster: RunningDagster, *headers: str) -> int:
    """The status of a websocket handshake."""
    with socket.create_connection(("127.0.0.1", dagster.port), timeout=30) as connection:
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        asked = ["GET /graphql HTTP/1.1", *headers, "Connection: Upgrade", "Upgrade: websocket", key, "", ""]
        connection.sendall("\r\n".join(asked).encode())
        return int(connection.recv(4096).split()[1])


def test_websocket_is_accepted_from_own_pages_only(dagster: RunningDagster) -> None:
    host = f"127.0.0.1:{dagster.port}"
    assert handshake(dagster, f"Host: {host}", f"Origin: http://{host}") == 101
    for origin in ("http://example.com", "null", "http://127.0.0.1:1"):
        assert handshake(dagster, f"Host: {host}", f"Origin: {origin}") == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_site_is_refused(dagster: RunningDagster, headers: dict[str, str]) -> None:
    status, text = posted(dagster, **headers)
    assert (status, text) == (403, "Requests from other sites are not accepted.\n")


def test_unknown_host_name_that_resolves_to_this_machine_is_refused(dagster: RunningDagster) -> None:
    status, text = posted(dagster, Host="rebound.example.com", Origin="http://rebound.example.com")
    assert (status, "This host name is not accepted" in text) == (403, True)
    assert posted(dagster, Host=f"localhost:{dagster.port}")[0] == 200


def test_graphql_playground_is_served(dagster: RunningDagster) -> None:
    status, text = answered(dagster, "/graphql", Accept="text/html")
    assert (status, "graphiql" in text.lower()) == (200, True)


def test_it_listens_on_the_loopback_interface_only(dagster: RunningDagster) -> None:
    assert f"Serving dagster-webserver on http://127.0.0.1:{dagster.port}" in dagster.log


def test_its_host_names_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_WEBSERVER_HOSTS", " UI.example.com, other ,")
    assert known_hosts() == {"ui.example.com", "other"}


def test_it_starts_with_invalid_settings_so_that_the_ui_shows_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_CATALOG", "hive")
    assert known_hosts() == frozenset()


async def _opened(headers: list[tuple[bytes, bytes]]) -> list[str]:
    """The messages that a websocket receives, and whether its request reached the webserver."""
    events: list[str] = []

    async def webserver(scope: Any, receive: Any, send: Any) -> None:
        events.append("opened")

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        events.append(message["type"])

    scope = {"type": "websocket", "path": "/graphql", "headers": headers, "query_string": b""}
    await SameOriginOnly(webserver, frozenset({"ui.example.com"}))(scope, receive, send)
    return events


@pytest.mark.parametrize(
    ("origin", "events"),
    [(b"http://ui.example.com", ["opened"]), (b"http://example.com", ["websocket.close"])],
)
def test_a_websocket_of_another_site_is_refused(origin: bytes, events: list[str]) -> None:
    headers = [(b"host", b"ui.example.com"), (b"origin", origin)]
    assert asyncio.run(_opened(headers)) == events
