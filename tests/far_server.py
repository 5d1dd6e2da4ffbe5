"""A store of objects on this machine that speaks as S3 and web servers do: what it holds, and what it does wrong.

Path-style addresses, /BUCKET/KEY: GET and HEAD with ranges, ListObjectsV2 (two keys a page), PUT, DELETE, and files in
parts, which are there when they are whole. A web server's ways are
set by address: statuses that are answered first, redirects, servers without ranges, bodies without an end.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

A_PAGE = 2  # keys of one answer of a listing


@dataclass
class Ways:
    """How one address is answered. statuses: first, one a request; to: a redirect; endless: bytes without end."""

    statuses: list[int] = field(default_factory=list)
    to: str = ""
    ranges: bool = True
    endless: bool = False
    stated: int | None = None  # Content-Length instead of the true one
    takes: int | None = None  # of a bucket: how many files it takes yet


class Elsewhere(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.objects: dict[str, bytes] = {}
        self.ways: dict[str, Ways] = {}
        self.parts: dict[str, dict[int, bytes]] = {}  # of files that are not whole yet, by their upload
        self.asked: list[str] = []  # "GET /bucket/key"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, folder: Path, prefix: str) -> None:
        """All files below a folder as objects."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.objects[f"{prefix}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()


def unwrapped(body: bytes) -> bytes:
    """What a client signs or sums chunk by chunk, SIZE;... CRLF bytes CRLF, as it was."""
    found, at = b"", 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if not size:
            return found
        found += body[end + 2 : end + 2 + size]
        at = end + 4 + size


class Answer(BaseHTTPRequestHandler):
    server: Elsewhere
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for what acknowledges its headers

    def log_message(self, *what: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).strip("/"), parse_qs(parts.query)
        self.server.asked.append(f"{self.command} /{key}")
        ways = self.server.ways.get(key, Ways())
        if ways.statuses and (status := ways.statuses.pop(0)):
            return self.tell(status, b"")
        if ways.to:
            return self.tell(302, b"", {"Location": ways.to})
        if ways.endless:
            return self.without_end()
        if "/" not in key:
            return self.bucket(key, query)
        if key not in self.server.objects:
            return self.tell(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return self.content(self.server.objects[key], ways)

    def given(self) -> tuple[str, dict[str, list[str]], bytes]:
        """(key, query, body) of a request that changes something."""
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        if self.headers["Transfer-Encoding"] == "chunked":
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Content-Encoding"] == "aws-chunked":
            body = unwrapped(body)
        self.server.asked.append(f"{self.command} /{key}")
        return key, query, body

    def refused(self, key: str) -> bool:
        """Whether its bucket takes no more files."""
        ways = self.server.ways.get(key.partition("/")[0], Ways())
        if ways.takes == 0:
            self.tell(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
        return ways.takes == 0

    def took(self, key: str, data: bytes) -> None:
        self.server.objects[key] = data
        ways = self.server.ways.get(key.partition("/")[0])
        if ways and ways.takes:
            ways.takes -= 1

    def do_PUT(self) -> None:
        key, query, body = self.given()
        if self.refused(key):
            return
        if "uploadId" in query:
            self.server.parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
        else:
            self.took(key, body)
        self.tell(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def do_POST(self) -> None:
        key, query, _ = self.given()
        if self.refused(key):
            return
        name = escape(key.partition("/")[2])
        if "uploads" in query:
            upload = str(len(self.server.parts))
            self.server.parts[upload] = {}
            kind, said = "Initiate", f"<Key>{name}</Key><UploadId>{upload}</UploadId>"
        else:
            pieces = self.server.parts.pop(query["uploadId"][0])
            self.took(key, b"".join(pieces[number] for number in sorted(pieces)))
            kind, said = "Complete", f"<Key>{name}</Key><ETag>whole</ETag>"
        said = f"<{kind}MultipartUploadResult>{said}</{kind}MultipartUploadResult>"
        self.tell(200, said.encode(), {"Content-Type": "application/xml"})

    def do_DELETE(self) -> None:
        key, query, _ = self.given()
        if "uploadId" in query:
            self.server.parts.pop(query["uploadId"][0], None)
        else:
            self.server.objects.pop(key, None)
        self.tell(204, b"")

    def content(self, data: bytes, ways: Ways) -> None:
        tag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "") if ways.ranges else None
        if asked is None:
            return self.tell(200, data, tag, ways.stated)
        start, end = int(asked[1]), min(len(data), int(asked[2] or len(data)) + 1)
        return self.tell(206, data[start:end], tag | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def bucket(self, bucket: str, query: dict[str, list[str]]) -> None:
        """ListObjectsV2, or whether there is such a bucket."""
        if not any(name.startswith(f"{bucket}/") for name in self.server.objects):
            self.tell(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        prefix, after = (query.get(name, [""])[0] for name in ("prefix", "continuation-token"))
        delimiter, most = query.get("delimiter", [""])[0], int(query.get("max-keys", [A_PAGE])[0])
        keys, folders = [], []
        for key in sorted(name.removeprefix(f"{bucket}/") for name in self.server.objects):
            if self.server.objects.get(f"{bucket}/{key}") is None or not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest.partition(delimiter)[0] + delimiter
                folders += [] if folder in folders else [folder]
            elif key > after:
                keys.append(key)
        shown, more = keys[: min(A_PAGE, most)], len(keys) > min(A_PAGE, most)
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        found = "".join(
            f"<Contents><Key>{escape(quote(key) if 'encoding-type' in query else key)}</Key>"
            f"<LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(self.server.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in shown
        )
        found += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        name = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        counted = f"<KeyCount>{len(shown) + len(folders)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>{name}{counted}{token}{found}</ListBucketResult>'
        self.tell(200, body.encode(), {"Content-Type": "application/xml"})

    def without_end(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(bytes(2**16))

    def tell(self, status: int, body: bytes, headers: dict[str, str] | None = None, stated: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if stated is None else stated))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
