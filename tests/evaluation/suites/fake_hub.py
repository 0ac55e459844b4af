"""A small Hugging Face hub in a thread: data set info, tree, and files with ranges, redirects and checksums."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import quote, unquote, urlsplit


@dataclass
class FakeRepo:
    """A data set repository: files by path, its card, and the token that opens it."""

    files: dict[str, bytes]
    configs: list[dict] = field(default_factory=list)
    token: str | None = None
    gated: bool = False
    revision: str = "a" * 40

    def tree(self) -> list[dict]:
        """As the hub lists it: files of `.parquet` and `.arrow` are large ones (LFS), the others plain git blobs."""
        folders = {"/".join(path.split("/")[:i]) for path in self.files for i in range(1, path.count("/") + 1)}
        rows = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        for path, content in self.files.items():
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            row = {"type": "file", "path": path, "size": len(content), "oid": blob}
            if path.endswith((".parquet", ".arrow")):
                digest = hashlib.sha256(content).hexdigest()
                row |= {"oid": "1" * 40, "lfs": {"oid": digest, "size": len(content), "pointerSize": 134}}
            rows.append(row)
        return rows


class FakeHub(ThreadingHTTPServer):
    """The server. Large files are redirected to another host name, as the hub does to its CDN."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, FakeRepo] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers (lower-case names) in order."""
        self.num_bytes_served: dict[str, int] = {}
        """Bytes of content sent, by the path of the file."""
        self.altered: dict[str, bytes] = {}
        """Files that arrive with other content than is listed."""
        self.cut_after: dict[str, int] = {}
        """Files whose first download stops after so many bytes: the connection is dropped."""
        self.stall_after: dict[str, int] = {}
        """Files whose first download stops after so many bytes, and the server sends nothing more."""
        self.status = 0
        """An answer to everything, for a hub that is ill."""
        self.file_status = 0
        """An answer to every question about a file."""
        self.is_bare = False
        """Files without the hub's headers, as a plain mirror has them."""
        self.has_xet = False
        """Large files are offered through a Xet store, which holds none."""
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self) -> list[str]:
        """The files whose content was asked for."""
        return [
            path for method, path, _ in self.requests if method == "GET" and path.startswith(("/cdn/", "/datasets/"))
        ]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers))
        if self.server.status:
            return self.answer(self.server.status, {"error": "ill"})
        if path.startswith("/cdn/"):
            return self.send_file(path.split("/", 3)[3])
        if path == "/xet":
            names = ("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration")
            return self.answer(200, None, dict(zip(names, (self.server.url, "token", "9999999999"), strict=True)))
        kind, owner, name, *rest = [*path.removeprefix("/api").strip("/").split("/"), "", ""]
        repo = self.server.repos.get(f"{owner}/{name}")
        if kind != "datasets" or repo is None:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if repo.gated:
            return self.answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        if repo.token and headers.get("authorization") != f"Bearer {repo.token}":
            return self.answer(401, {"error": "Invalid credentials"})
        if rest[:1] == ["tree"]:
            return self.answer(200, repo.tree())
        if rest[:1] == ["resolve"] and self.server.file_status:
            return self.answer(self.server.file_status, {"error": "ill"})
        if rest[:1] == ["resolve"]:
            file = "/".join([owner, name, *rest[2:-2]])
            row = next(row for row in repo.tree() if row["path"] == "/".join(rest[2:-2]))
            named = {} if self.server.is_bare else {"X-Repo-Commit": rest[1], "ETag": f'"{row["oid"]}"'}
            if "lfs" in row:
                named |= {"X-Linked-ETag": f'"{row["lfs"]["oid"]}"', "X-Linked-Size": str(row["size"])}
                named |= {"Location": f"http://localhost:{self.server.server_port}/cdn/{rest[1]}/{quote(file)}"}
                if self.server.has_xet:
                    named |= {"X-Xet-Hash": "ab" * 32, "X-Xet-Refresh-Route": f"{self.server.url}/xet"}
                return self.answer(302, None, named)
            return self.send_file(file, named)
        return self.answer(200, {"id": f"{owner}/{name}", "sha": repo.revision, "cardData": {"configs": repo.configs}})

    do_HEAD = do_GET

    def answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_file(self, file: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        owner, name, path = file.split("/", 2)
        content = self.server.altered.get(path) or self.server.repos[f"{owner}/{name}"].files[path]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut, stall = self.server.cut_after.pop(path, None), self.server.stall_after.pop(path, None)
        stop = cut or stall or len(content)
        self.wfile.write(content[start:stop])
        self.server.num_bytes_served[path] = self.server.num_bytes_served.get(path, 0) + stop - start
        if stall:
            self.server.released.wait(30)
        if cut or stall:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass
