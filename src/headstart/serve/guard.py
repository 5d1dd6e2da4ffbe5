"""A server for one person on one machine: who does not know its token gets nothing, nor does a page of another origin.

Other users of the machine reach every port of it, and so does every page that the browser shows: by the address, or by
a name of its own that it lets lead here (DNS rebinding). So the token stands in the path, as cookies would be sent
to all ports; the Host must be this machine, and what changes something must come from this page (Origin). A browser is
started with an address that everybody on the machine can read in the list of processes: that one works once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = {"127.0.0.1", "localhost"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
USED = "this address works once: take the one that the terminal shows"
FOREIGN, OWN = "not from this page", "same-origin"


class Guard:
    """Lets requests below /TOKEN/ through to an application, and sends who comes with the ticket there, once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._tickets = app, {secrets.token_urlsafe(24)}
        self.token = secrets.token_urlsafe(24)
        self.ticket = next(iter(self._tickets))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._refused(scope) or self._app)(scope, receive, guarded)

    def _refused(self, scope: Scope) -> Response | None:
        """What is answered instead; None for who may go on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in HOSTS:
            return PlainTextResponse(FOREIGN, 403)
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if first == "start" and scope["method"] == "GET":
            if rest not in self._tickets:
                return PlainTextResponse(USED, 403)
            self._tickets.remove(rest)
            return RedirectResponse(f"/{self.token}/", 303, {"cache-control": "no-store"})
        if not secrets.compare_digest(first.encode(), self.token.encode()):
            return PlainTextResponse("nothing here: take the address that the terminal shows", 404)
        if scope["method"] in ("GET", "HEAD"):
            return None
        own = (
            headers.get("origin") == f"http://{host}" and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        )
        return None if own else PlainTextResponse(FOREIGN, 403)


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
