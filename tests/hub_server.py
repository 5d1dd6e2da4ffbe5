"""A hub on this machine that takes commits: repositories in memory, LFS files by their checksum, and what it refuses.

A token says who asks: "writer" may write, "reader" may not, others are unknown. Files of tensors go by LFS, as on the
hub; everything else comes inside the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

OWNERS = {"Bearer writer": "someone", "Bearer reader": "someone"}
COMMIT = "c" * 40


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}  # LFS
        self.commits: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *what: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.resolved()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if "/resolve/" in path:
            return self.resolved()
        if not self.known():
            return None
        if path == "/api/whoami-v2":
            return self.tell({"name": "someone", "type": "user"})
        name, _, tree = path.removeprefix("/api/models/").partition("/revision/")[0].partition("/tree/")
        found = self.server.repositories.get(name)
        if found is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if tree:
            entries = [(file, len(content), sha1(content)) for file, content in found.files.items()]
            return self.tell([{"type": "file", "path": file, "size": n, "oid": oid} for file, n, oid in entries])
        files = [{"rfilename": file} for file in found.files]
        return self.tell({"id": name, "sha": COMMIT, "private": found.private, "siblings": files})

    def do_POST(self) -> None:
        path, content = urlsplit(self.path).path, self.content()
        if not self.known():
            return None
        if path == "/api/validate-yaml":
            text = json.loads(content)["content"]
            wrong = [] if text.startswith("---\n") else [{"message": "no front matter"}]
            return self.tell({"errors": wrong, "warnings": []}, 400 if wrong else 200)
        if self.headers["Authorization"] != "Bearer writer":
            return self.refuse(403, "", "You don't have the rights to create a model under the namespace someone")
        if path == "/api/repos/create":
            return self.create(json.loads(content))
        name, _, action = path.removeprefix("/api/models/").removeprefix("/").rpartition("/main")[0].rpartition("/")
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(content))
        if action == "preupload":
            return self.modes(json.loads(content))
        return self.commit(name, content)

    def do_PUT(self) -> None:
        content, asked = self.content(), self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != asked:
            return self.refuse(400, "", "another checksum")
        self.server.stored[asked] = content
        return self.tell({})

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization'] or 'someone'}/{asked['name']}"
        if not name.startswith("someone/"):
            return self.refuse(403, "", f"You don't have the rights to create a model under {name}")
        if name in self.server.repositories:
            return self.refuse(409, "", "You already created this model repo")
        hidden = asked.get("private", asked.get("visibility") == "private")
        self.server.repositories[name] = Repository(hidden)
        return self.tell({"url": f"{self.server.url}/{name}", "name": name})

    def modes(self, asked: dict[str, Any]) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        files = [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in asked["files"]]
        return self.tell({"files": files, "commitOid": COMMIT})

    def batch(self, asked: dict[str, Any]) -> None:
        def place(oid: str) -> dict[str, Any]:
            return {"upload": {"href": f"{self.server.url}/storage/{oid}"}}

        objects = [{"oid": o["oid"], "size": o["size"], "actions": place(o["oid"])} for o in asked["objects"]]
        return self.tell({"transfer": "basic", "objects": objects})

    def commit(self, name: str, content: bytes) -> None:
        files = self.server.repositories[name].files
        for line in map(json.loads, content.splitlines()):
            about = line["value"]
            if line["key"] == "file":
                files[about["path"]] = base64.b64decode(about["content"])
            elif line["key"] == "lfsFile":
                files[about["path"]] = self.server.stored[about["oid"]]
            elif line["key"] == "deletedFile":
                del files[about["path"]]
        self.server.commits.append(name)
        return self.tell({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.url}/{name}/commit/main"})

    def resolved(self) -> None:
        """A file, as the hub gives it to its client."""
        name, _, rest = unquote(urlsplit(self.path).path).strip("/").partition("/resolve/")
        content = self.server.repositories[name].files[rest.partition("/")[2]]
        self.send_response(200)
        for key, value in (
            ("X-Repo-Commit", COMMIT),
            ("ETag", f'"{sha1(content)}"'),
            ("Content-Length", str(len(content))),
        ):
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def content(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def known(self) -> bool:
        if self.headers["Authorization"] in OWNERS:
            return True
        self.refuse(401, "", "Invalid credentials in Authorization header")
        return False

    def tell(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str, why: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", why)
        self.send_header("Content-Length", "0")
        self.end_headers()


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
