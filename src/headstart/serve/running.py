"""A server from its socket to its end: what uvicorn leaves open is closed here.

uvicorn waits for ever for a client that sends half a head: `Watched` ends that. On SIGTERM it would close connections
on which a request may be on its way: `Stopping` first answers, for a moment, everything that comes, each with
`Connection: close`, then takes no more connections, hears for another moment those that there are, and ends when all
is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from threadpoolctl import threadpool_limits
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.errors import OptionError, OutputError
from headstart.files.reading import why
from headstart.serve.app import app_of
from headstart.serve.state import State

LAST_MOMENT = 0.5  # s, twice, in which requests still come that were sent before the client could know
UNREAD = 30.0  # s
# s that a connection may lie idle. What is sent at the moment of its closing is lost, so clients should tire of it
# first: proxies do after 60 s. At uvicorn's own 5, busy clients lost requests on connections that they took for fresh.
IDLE = 75
BACKLOG = 2048  # connections that the system holds while the loop is busy
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def bound(host: str, port: int) -> socket.socket:
    """A socket that connections wait at. Raises OutputError where the port is taken, OptionError for a wrong one."""
    if not 0 <= port <= 65535:
        raise OptionError(f"--port {port}: 0 (a free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise OptionError(
            f"--host {host}: no address of this machine ({why(error)}): 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # of a client that does not read its answer; what is accepted has it too
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNREAD))
    try:
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise OutputError(
            f"port {port} of {host} cannot be had ({why(error)}): name another --port, or 0 for a free one"
        ) from None
    return found


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Watched(H11Protocol):
    """Closes a connection whose client takes longer than `patience` for the head of a request."""

    patience: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.patience, self._give_up, self.cycle)

    def _give_up(self, seen: object) -> None:
        if self.cycle is seen and not self.transport.is_closing():  # no head came since
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        waiting = self.timeout_keep_alive_task is not None
        super().data_received(data)
        if waiting and (self.cycle is None or self.cycle.response_complete):
            self._await_head()  # the next head has begun, and is not whole

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)


Stop = Callable[[], None]


class Stopping(uvicorn.Server):
    """Stops as the module says."""

    def __init__(
        self, config: uvicorn.Config, state: State, at: socket.socket, listening: Callable[[Stop], None]
    ) -> None:
        super().__init__(config)
        self._state, self._at, self._listening = state, at, listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(self._stop, loop)

        self._listening(stop)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # no signal comes here
            return
        loop = asyncio.get_running_loop()
        kept = {one: signal.signal(one, self._told(loop)) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in kept.items():
                signal.signal(one, handler)

    def _told(self, loop: asyncio.AbstractEventLoop) -> Callable[[int, FrameType | None], None]:
        def told(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._stop, loop)

        return told

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._state.stopping:  # asked a second time: at once
            self.should_exit = self.force_exit = True
            return
        self._state.stopping = True
        self._ending = loop.create_task(self._end(loop))

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Who asks again still finds somebody; then nobody new comes, and who has come is heard."""
        await asyncio.sleep(LAST_MOMENT)
        with contextlib.suppress(BlockingIOError):
            while True:  # those whom the system has let in already
                connection, _ = self._at.accept()
                connection.setblocking(False)
                await loop.connect_accepted_socket(self._protocol, connection)
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_MOMENT)
        self.should_exit = True

    def _protocol(self) -> asyncio.Protocol:
        made: type[Watched] = self.config.http_protocol_class  # type: ignore[assignment]
        return made(self.config, self.server_state, {})


def run(state: State, at: socket.socket, listening: Callable[[Stop], None]) -> None:
    """Serve until SIGTERM or SIGINT, and answer what was taken in.

    `listening(stop)`: called when requests can come, with what does the same as these signals, from any thread.
    """
    config = uvicorn.Config(
        app_of(state),
        http=type("Patient", (Watched,), {"patience": state.bounds.patience}),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=int(state.bounds.seconds + state.bounds.patience) + 1,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not a line for each client that sends no HTTP
    server = Stopping(config, state, at, listening)

    async def serving() -> None:
        watching = asyncio.create_task(state.models.watch())
        try:
            await server.serve([at])
        finally:
            watching.cancel()

    with threadpool_limits(1), asyncio.Runner() as runner:  # each answer has its thread: see `ship.stretches.answered`
        runner.run(serving())
