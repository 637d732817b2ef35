"""Waitress with limits on time, size and number of connections, so that slow clients do not hold up others.

Waitress reads requests and sends responses in one loop. Its threads see complete requests alone. These limits are ours:
a request must arrive in time, a response must be taken in time, and a body of an unknown sender must be small.
"""

import copy
import functools
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

MAX_BODY_BYTES = 64 * 2**20
"""The longest body: an artifact of optuna-dashboard."""

MAX_UNKNOWN_BODY_BYTES = 64 * 2**10
"""The longest body of a sender who has not logged in."""

_N_THREADS = 8  # more than the four connections of a storage, since a thread may wait while another one reads
_MAX_HEADER_BYTES = 32 * 2**10
_SLOWEST_BYTES_PER_S = 16 * 2**10


@dataclass(frozen=True)
class Limits:
    """How long clients may take, in seconds, and how many may be connected.

    Attributes:
        header_s: until the header of a request is complete.
        body_s: until its body is complete, beside the time that it takes at 16 KiB a second.
        response_s: until a response is taken.
        idle_s: between two requests; longer than the period of a page's polls, so that connections are reused.
        n_connections: a further client replaces the one that has kept its connection without a request for longest.
    """

    header_s: float = 10.0
    body_s: float = 20.0
    response_s: float = 300.0
    idle_s: float = 30.0
    n_connections: int = 256


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Reads one request. The cookies of its header decide how long its body may be."""

    def __init__(self, adj: Adjustments, *, may_send_files: Callable[[str], bool]) -> None:
        super().__init__(adj)
        self.adj: Adjustments = adj
        self._may_send_files = may_send_files

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if not self._may_send_files(self.headers.get("COOKIE", "")):
            self.adj = copy.copy(self.adj)
            self.adj.max_request_body_size = MAX_UNKNOWN_BODY_BYTES + 1


class _Channel(HTTPChannel):  # type: ignore[misc]
    """One connection, and the time since its last step."""

    def __init__(self, server: "Server", *arguments: Any, **options: Any) -> None:
        self.parser_class = functools.partial(_Parser, may_send_files=server.may_send_files)
        self.since = time.monotonic()
        self._sending_since: float | None = None
        super().__init__(server, *arguments, **options)

    def received(self, data: bytes) -> bool:
        """Read what has arrived; a request that begins or ends is a step."""
        before = self.request
        went_on: bool = super().received(data)
        if self.request is not before:
            self.since = time.monotonic()
        return went_on

    def is_overdue(self, limits: Limits, now: float) -> bool:
        """Return whether the client has taken too long."""
        if self.requests:
            return False
        if self.total_outbufs_len:
            self._sending_since = self._sending_since or now
            return now - self._sending_since > limits.response_s
        if self._sending_since is not None:
            self._sending_since, self.since = None, now
        request = self.request
        if request is None:
            allowed_s = limits.idle_s
        elif not request.headers_finished:
            allowed_s = limits.header_s
        else:
            allowed_s = limits.body_s + request.body_bytes_received / _SLOWEST_BYTES_PER_S
        return now - self.since > allowed_s


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Serves a WSGI application until SystemExit or KeyboardInterrupt is raised in the thread that runs it.

    Args:
        application: the application.
        listener: a listening socket; the server closes it.
        may_send_files: returns for a Cookie header whether the sender may send a body of up to `MAX_BODY_BYTES`.
        limits: of time and number.
    """

    channel_class = _Channel

    def __init__(
        self,
        application: "WSGIApplication",
        listener: socket.socket,
        *,
        may_send_files: Callable[[str], bool],
        limits: Limits | None = None,
    ) -> None:
        self.may_send_files, self._limits = may_send_files, limits or Limits()
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is no news
        super().__init__(
            application,
            _sock=listener,
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            sockets=[listener],
            threads=_N_THREADS,
            max_request_header_size=_MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES + 1,
            outbuf_high_watermark=2 * MAX_BODY_BYTES,  # no thread waits for a client that reads slowly
            connection_limit=2 * self._limits.n_connections,
            cleanup_interval=1,
            channel_timeout=int(self._limits.response_s),
            clear_untrusted_proxy_headers=False,  # `front` reads and removes them
            asyncore_use_poll=True,
            log_socket_errors=False,
            ident="mhist-tune",
        )

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.effective_port)

    def maintenance(self, now: float) -> None:
        """Close the connections of clients that take too long. Waitress calls this once a second."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.is_overdue(self._limits, time.monotonic()):
                channel.handle_close()  # waitress would wait until the client reads

    def handle_accept(self) -> None:
        """Accept a connection, and close the one that has waited longest if there are too many."""
        if len(self.active_channels) >= self._limits.n_connections:
            waiting = [one for one in self.active_channels.values() if not one.requests and not one.total_outbufs_len]
            if waiting:
                min(waiting, key=lambda one: one.since).handle_close()
        super().handle_accept()
