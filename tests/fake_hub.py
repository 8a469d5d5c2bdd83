"""A tiny Hugging Face Hub on this machine, for tests of downloads through the real library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlparse


@dataclass
class FakeHub:
    """What it serves: repository → {revision: commit}, and (repository, commit) → files.

    `requests` lists what was requested; `broken` maps a path's part to the status it answers with.
    """

    url: str = ""
    revisions: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, repo: str, commit: str, files: dict[str, bytes], *names: str) -> None:
        self.files[repo, commit] = files
        self.revisions.setdefault(repo, {}).update({commit: commit, **dict.fromkeys(names, commit)})

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for part, status in self.broken.items():
            if part in path:
                return status, {}, b"{}"
        parts = unquote(path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            repo, kind, revision = "/".join(parts[2:4]), parts[4], parts[5]
        else:
            repo, kind, revision = "/".join(parts[1:3]), parts[3], parts[4]
        if repo not in self.revisions:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if repo in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        commit = self.revisions[repo].get(revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = self.files[repo, commit]
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return 200, {}, json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        if kind == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": etag(data)}
                for name, data in files.items()
            ]
            return 200, {}, json.dumps(tree).encode()
        assert kind == "resolve", path
        data = files["/".join(parts[5:])]
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{etag(data)}"'}, data


def etag(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def _send(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, data = hub.answer(urlparse(self.path).path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._send(body=True)

        def do_HEAD(self) -> None:
            self._send(body=False)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
