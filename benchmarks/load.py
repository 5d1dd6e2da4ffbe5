"""Asks a server for predictions and times every answer: a process of its own, with little work of its own.

    python benchmarks/load.py < plan.json > found.json

A plan has `url`, `files`, and one of: `clients` (each asks again as soon as it has its answer) with `seconds` or, for
every file once, `once`; or `starts` (s after the begin, of each request, whatever has become of the ones before).
Bodies are raw bytes on connections that stay open; with `field` forms with one file under that name. What was found: of
each request its start, seconds (from the moment at which it was due, so that what waits for a late client counts),
status and file; the answers where `answers` is set; the processor seconds of this program.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

LOST, REFUSED = -1, -2  # instead of a status: sent and not answered; nobody listens
KEPT = 3.0  # s that a connection may lie idle: servers close it after 5, and what is sent at that moment is lost


class Asker:
    """Connections that stay open, as many as are needed at once."""

    def __init__(self, plan: dict[str, Any]) -> None:
        parts = urlsplit(plan["url"])
        self.host, self.port, self.keep = parts.hostname, parts.port, bool(plan.get("answers"))
        self.path, self.field = plan.get("path", "/predict"), plan.get("field", "")
        self.messages = [self._message(Path(file)) for file in plan["files"]]
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []  # and since when
        self.found: list[tuple[float, float, int, int]] = []
        self.answers: dict[int, Any] = {}
        self.differing = 0  # answers that are not the first one of their image
        self.begin = 0.0

    def _message(self, file: Path) -> bytes:
        content, kind = file.read_bytes(), "application/octet-stream"
        if self.field:
            part = f'Content-Disposition: form-data; name="{self.field}"; filename="{quote(file.name)}"'
            content = f"--edge\r\n{part}\r\n\r\n".encode() + content + b"\r\n--edge--\r\n"
            kind = "multipart/form-data; boundary=edge"
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: {kind}\r\n"
            f"X-Filename: {quote(file.name)}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def ask(self, file: int, due: float) -> None:
        body = b""
        try:
            status, body = await self._answer(self.messages[file])
        except ConnectionRefusedError:
            status = REFUSED
        except (OSError, EOFError, ValueError):
            status = LOST
        self.found.append((due - self.begin, time.perf_counter() - due, status, file))
        if self.keep and status in (200, 422):
            answer = json.loads(body)
            self.differing += self.answers.setdefault(file, answer) != answer

    async def _answer(self, message: bytes) -> tuple[int, bytes]:
        reader, writer = self._kept() or await asyncio.open_connection(self.host, self.port)
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        body = await reader.readexactly(length)
        if "connection: close" in lines:
            writer.close()
        else:
            self.idle.append((reader, writer, time.perf_counter()))
        return int(lines[0].split()[1]), body

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection that was used last, unless that is long ago: then all are closed."""
        while self.idle:
            reader, writer, since = self.idle.pop()
            if time.perf_counter() - since < KEPT and not reader.at_eof():
                return reader, writer
            writer.close()
        return None


async def work(plan: dict[str, Any]) -> dict[str, Any]:
    asker = Asker(plan)
    asker.begin = time.perf_counter()
    cpu = own_cpu()
    if "starts" in plan:
        await every(asker, plan["starts"])
    else:
        await closed(asker, plan)
    seconds = time.perf_counter() - asker.begin
    found = {"seconds": seconds, "cpu": own_cpu() - cpu, "requests": asker.found, "differing": asker.differing}
    return found | {"answers": {str(file): answer for file, answer in asker.answers.items()}}


async def closed(asker: Asker, plan: dict[str, Any]) -> None:
    """Each client asks again as soon as it has its answer."""
    files: Iterator[int] = iter(range(len(asker.messages)))
    until = float("inf")
    if not plan.get("once"):
        files, until = itertools.cycle(range(len(asker.messages))), asker.begin + plan["seconds"]

    async def client() -> None:
        for file in files:
            if time.perf_counter() >= until:
                return
            await asker.ask(file, time.perf_counter())
            if asker.found[-1][2] == REFUSED:
                return

    await asyncio.gather(*(client() for _ in range(plan["clients"])))


async def every(asker: Asker, starts: list[float]) -> None:
    """A request at each of these moments."""
    tasks, files = [], itertools.cycle(range(len(asker.messages)))
    for start in starts:
        due = asker.begin + start
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(asker.ask(next(files), due)))
    await asyncio.gather(*tasks)


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    json.dump(asyncio.run(work(json.load(sys.stdin))), sys.stdout)
