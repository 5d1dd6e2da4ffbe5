"""A server on this machine's own address, until it is ended."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing, suppress

import uvicorn
from starlette.types import ASGIApp

from headstart.errors import OptionError
from headstart.files.reading import why
from headstart.serve.guard import Guard

HERE = "127.0.0.1"
LONGEST_END = 2  # s that answers under way have when it is ended


def serve_here(make: Callable[[Callable[[], None]], ASGIApp], port: int, started: Callable[[str, str], None]) -> None:
    """Serve what `make(end)` gives, behind a `Guard`; returns when `end` was called, or on Ctrl-C.

    started(address, once): is called when it can be reached; the second address works once, for a browser that is
    started with it. Raises OptionError for a port that cannot be had.
    """
    with closing(_listening(port)) as listener:

        def end() -> None:
            server.should_exit = True

        guard = Guard(make(end))
        config = uvicorn.Config(
            guard,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=LONGEST_END,
        )
        server = uvicorn.Server(config)
        root = f"http://{HERE}:{listener.getsockname()[1]}"
        started(f"{root}/{guard.token}/", f"{root}/start/{guard.ticket}")
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HERE, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise OptionError(
            f"--port {port} of {HERE} cannot be had ({why(error)}): leave it out for a free one"
        ) from None
    return listener
