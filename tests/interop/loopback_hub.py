"""A hub on loopback: the two endpoints that fetching asks, with ranges, cuts, moved branches."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants


@dataclass
class Hub:
    """What is on it: files by commit, commits by branch; and what was asked of it.

    cut: bytes after which an answer breaks off, by path. wrong: paths whose content is another.
    """

    name: str = "someone/something"
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def info(self, revision: str) -> dict[str, object] | None:
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            return None
        siblings = []
        for path, content in self.commits[commit].items():
            one: dict[str, object] = {"rfilename": path, "size": len(content)}
            one["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if path.endswith((".safetensors", ".bin", ".ckpt")):
                digest = hashlib.sha256(content).hexdigest()
                one["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(one)
        return {"id": self.name, "modelId": self.name, "sha": commit, "siblings": siblings}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, while it answers on loopback; huggingface_hub is pointed at it."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((path, self.headers.get("Range")))
            start = f"/api/models/{hub.name}"
            if path == start or path.startswith(start + "/"):
                revision = path.removeprefix(start).removeprefix("/revision/") or "main"
                told = hub.info(revision)
                code = "RevisionNotFound"
                self.answer(404 if told is None else 200, json.dumps(told or {}).encode(), code)
                return
            parts = path.removeprefix(f"/{hub.name}/resolve/").partition("/")
            content = hub.commits.get(parts[0], {}).get(parts[2])
            if content is None:
                self.answer(404, b"", "EntryNotFound")
            else:
                self.file(parts[2], content)

        def file(self, path: str, content: bytes) -> None:
            if path in hub.wrong:
                content = bytes(len(content))
            first = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            if first:
                whole = len(content)
                self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
            self.end_headers()
            self.wfile.write(content[first : hub.cut.get(path, len(content))])
            if path in hub.cut:
                self.close_connection = True

        def answer(self, status: int, content: bytes, code: str) -> None:
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    before = constants.ENDPOINT
    constants.ENDPOINT = hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        constants.ENDPOINT = before
        server.shutdown()
        server.server_close()
