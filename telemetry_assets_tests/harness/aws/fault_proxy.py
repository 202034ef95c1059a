"""A proxy between the product and AWS that injects faults into requests and responses."""

from __future__ import annotations

import http.client
import random
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import sleep
from types import TracebackType
from urllib.parse import urlsplit

from telemetry_assets_tests.harness.aws.api_requests import Request, read_request
from telemetry_assets_tests.harness.aws.faults import Fault, FaultHit, FaultKind, FaultPlan, RandomFaults, refusal

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "content-length"})
_NO_BODY = frozenset({204, 304})
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Answer:
    """A response.

    :param length: the ``Content-Length`` of a response to HEAD, which has no body.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    length: str | None = None


class FaultProxy:
    """A proxy between a program and AWS that records every request; a context manager.

    :param upstream: the endpoint that it forwards to.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []
        self.plan = FaultPlan()
        self._callbacks: list[Callable[[Request], None]] = []
        self._one_at_a_time = Lock()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> FaultProxy:
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.plan.clear()
        self._server.shutdown()
        self._server.server_close()
        with self._one_at_a_time:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def inject(self, fault: Fault) -> Fault:
        """Add a fault to the plan and return it."""
        self.plan.add(fault)
        return fault

    def inject_randomly(
        self, chance: random.Random, rate: float, kinds: Sequence[FaultKind], in_a_row: int = 2
    ) -> None:
        """Inject faults into a share of all requests until :meth:`stop_injecting`.

        :param in_a_row: the maximum number of consecutive faults of one operation on one key.
        """
        self.plan.set_random(RandomFaults(chance, rate, kinds, in_a_row))

    def stop_injecting(self) -> None:
        """Remove all faults and release paused requests."""
        self.plan.clear()

    @property
    def faults_hit(self) -> list[FaultHit]:
        """The faults that occurred, in order."""
        return list(self.plan.hits)

    def on_request(self, callback: Callable[[Request], None]) -> None:
        """Call ``callback`` before each request is forwarded or fails.

        If the callback kills the program, the request still takes effect, unless a ``reset_before`` is planned.
        """
        self._callbacks.append(callback)

    def begin(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Request, Fault | None]:
        """Record a request and return its fault, if any."""
        with self._one_at_a_time:
            request = read_request(method, path, headers, body, len(self.requests) + 1)
            self.requests.append(request)
        for callback in self._callbacks:
            callback(request)
        return request, self.plan.fault_of(request)

    def keep(self, connection: socket.socket) -> None:
        """Register a connection, to close it at the end."""
        with self._one_at_a_time:
            self._connections.add(connection)

    def forget(self, connection: socket.socket) -> None:
        """Unregister a connection."""
        with self._one_at_a_time:
            self._connections.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not log errors: clients that disconnect are expected."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.proxy.keep(self.connection)

    def finish(self) -> None:
        self.server.proxy.forget(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Do not log requests."""

    def handle_one_request(self) -> None:
        """Read one request and respond according to the fault plan."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self._body()
        if body is None:
            self.close_connection = True
            return
        # The base class changes a path that begins with several slashes.
        path = self.requestline.split(" ")[1]
        headers = {name.lower(): value for name, value in self.headers.items()}
        request, fault = self.server.proxy.begin(self.command, path, headers, body)
        self._respond(request, fault, path, body)

    def _respond(self, request: Request, fault: Fault | None, path: str, body: bytes) -> None:
        kind = fault.kind if fault is not None else None
        if fault is not None and kind is FaultKind.PAUSED:
            fault.hold()
        if kind is FaultKind.RESET_BEFORE:
            return self._reset()
        refused = refusal(kind, request) if kind is not None else None
        if refused is not None and kind is not FaultKind.ERROR_AFTER:
            return self._send(self._refused(*refused))
        answer = self._forward(path, body)
        if fault is not None and kind is FaultKind.SLOW_ANSWER:
            sleep(fault.seconds)
        if kind is FaultKind.RESET_AFTER:
            return self._reset()
        if refused is not None:
            return self._send(self._refused(*refused))
        return self._send(answer, truncated=kind is FaultKind.TRUNCATED_BODY)

    def _body(self) -> bytes | None:
        """The request's body; None if the client disconnected, so that nothing is forwarded."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes | None:
        body = b""
        while True:
            line = self.rfile.readline(1024)
            if not line.endswith(b"\n"):
                return None
            size = int(line.split(b";")[0], 16)
            if not size:
                while self.rfile.readline(65537).strip():
                    pass
                return body
            chunk = self.rfile.read(size + 2)
            if len(chunk) < size + 2:
                return None
            body += chunk[:size]

    def _forward(self, path: str, body: bytes) -> Answer:
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=120)
        try:
            upstream.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            response = upstream.getresponse()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            length = response.getheader("Content-Length")
            return Answer(response.status, response.reason, headers, response.read(), length)
        finally:
            upstream.close()

    def _refused(self, status: int, content_type: str, body: bytes) -> Answer:
        # S3 returns no error body for HEAD.
        is_head = self.command == "HEAD"
        headers = [("Content-Type", content_type), ("x-amz-request-id", "0123456789ABCDEF")]
        return Answer(status, http.client.responses[status], headers, b"" if is_head else body)

    def _send(self, answer: Answer, *, truncated: bool = False) -> None:
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in answer.headers)]
        if self.command == "HEAD":
            lines.append(f"Content-Length: {answer.length or 0}")
        elif answer.status not in _NO_BODY:
            lines.append(f"Content-Length: {len(answer.body)}")
        body = answer.body[: len(answer.body) // 2] if truncated else answer.body
        self.close_connection = self.close_connection or truncated
        with suppress(OSError):
            self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def _reset(self) -> None:
        """Reset the connection without a response, as a machine does that fails."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # A socket closes only when its last file object is closed.
        self.rfile.close()
        self.connection.close()
