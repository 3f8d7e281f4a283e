"""A small HTTP server that speaks as much of the hub's API as the real huggingface_hub client needs.

Repositories live in memory. It can be told to fail as networks do: drop a connection in the middle of a file, serve
damaged bytes, be slow. Files of `LARGE` bytes or more are kept as on the hub (LFS): their address is a redirect, their
etag the sha256 of the content; smaller ones carry git's blob id. Every request is written down.

    with HubServer() as hub:
        hub.add("AZYoung/MELD_processed", {"meld_train.pkl": content}, kind="dataset")
        subprocess.run([…], env=os.environ | hub.environment(tmp_path))

The fixture `hub` (conftest.py) also points this process's client at it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 1024


@dataclass
class Repo:
    """One repository: its files at the only branch, `main`."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    @property
    def commit(self) -> str:
        """A commit hash that follows from the content."""
        entries = sorted((path, hashlib.sha256(content).hexdigest()) for path, content in self.files.items())
        return hashlib.sha1(json.dumps(entries).encode()).hexdigest()


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    range: str | None


def git_blob(content: bytes) -> str:
    """git's id of a file: what the hub gives as the etag of a small one."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """The server, in a thread of its own.

    Attributes set by tests: `drop` (path → byte after which the connection is closed; each once), `damaged` (paths
    whose first byte is served wrong), `seconds_per_block` (path → pause after every 16 KiB).
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.drop: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.seconds_per_block: dict[str, float] = {}
        self.tokens: set[str] = set()
        """Those that came with an upload."""
        self.uploads: dict[str, bytes] = {}
        """LFS objects by sha256, as they were put."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.store = self.url.replace("127.0.0.1", "localhost")  # another host, as the hub's store of large files is
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", gated: bool = False) -> Repo:
        """Put a repository there; `kind` is `model` or `dataset`."""
        self.repos[kind, name] = Repo(dict(files), gated)
        return self.repos[kind, name]

    def environment(self, home: Path) -> dict[str, str]:
        """What a child process needs so that its client talks to this server and keeps its files in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "hf_local",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def downloads(self, path: str) -> list[str | None]:
        """The Range of every GET of a file's content, None for the whole file."""
        return [request.range for request in self.requests if request.method == "CONTENT" and request.path == path]


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._file_or_api("HEAD")

    def do_GET(self) -> None:
        self._file_or_api("GET")

    def _file_or_api(self, method: str) -> None:
        address = unquote(urlsplit(self.path).path)
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/(resolve|blob-store)/([^/]+)/(.+)", address)
        if file is None:
            self.hub.requests.append(Request(method, address, None))
            return self._api(address)
        prefix, name, place, revision, path = file.groups()
        self.hub.requests.append(Request(method, path, self.headers.get("Range")))
        repo = self._repo("dataset" if prefix else "model", name, revision)
        if repo is None:
            return None
        if path not in repo.files:
            return self._error(404, "EntryNotFound", "Entry not found", repo)
        content = repo.files[path]
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if len(content) < LARGE:
            headers["ETag"] = f'"{git_blob(content)}"'
        elif place == "resolve":
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"{self.hub.store}/{prefix or ''}{name}/blob-store/{revision}/{path}"
            return self._send(302, b"", headers)
        return self._content(path, content, headers)

    def _content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Send a file or the range that was asked for, with the faults that were ordered."""
        if path in self.hub.damaged:
            content = bytes([content[0] ^ 255]) + content[1:]
        start, status, total = 0, 200, len(content)
        if range_ := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(range_[1]), 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(total - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.requests.append(Request("CONTENT", path, self.headers.get("Range")))
        stop = self.hub.drop.pop(path, total)
        for place in range(start, stop, 16 << 10):
            self.wfile.write(content[place : min(place + (16 << 10), stop)])
            time.sleep(self.hub.seconds_per_block.get(path, 0.0))
        if stop < total:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _repo(self, kind: str, name: str, revision: str) -> Repo | None:
        """The repository at a revision; answers the request itself, with None, where there is none."""
        repo = self.hub.repos.get((kind, name))
        if repo is None:
            return self._error(404, "RepoNotFound", "Repository not found")
        if repo.gated:
            return self._error(403, "GatedRepo", f"Access to {kind} {name} is restricted.")
        if revision not in ("main", repo.commit):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    def _api(self, address: str) -> None:
        if address == "/api/whoami-v2":
            return self._json({"type": "user", "name": "tester", "fullname": "", "orgs": [], "auth": {}})
        route = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(/.*)?)?", address)
        if route is None:
            return self._error(404, "NotFound", f"not served here: {address}")
        kind, name, what, revision, _ = route.groups()
        repo = self._repo(kind, name, revision or "main")
        if repo is None:
            return None
        entries = [_entry(path, content) for path, content in sorted(repo.files.items())]
        if what == "tree":
            return self._json(entries)
        siblings = [{"rfilename": entry["path"], "blobId": entry["oid"], **entry} for entry in entries]
        info = {
            "id": name,
            "sha": repo.commit,
            "private": repo.private,
            "gated": False,
            "siblings": siblings,
            "tags": [],
        }
        return self._json(info | {"_id": "0", "downloads": 0, "likes": 0, "disabled": False})

    def do_PUT(self) -> None:
        """Take an LFS object."""
        self.hub.uploads[self.path.rpartition("/")[2]] = self._body()
        self._send(200, b"", {"ETag": '"stored"'})

    def do_POST(self) -> None:
        address, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.requests.append(Request("POST", address, None))
        if authorization := self.headers.get("Authorization"):
            self.hub.tokens.add(authorization.removeprefix("Bearer "))
        if address == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if address == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'tester'}/{request['name']}"
            key = request.get("type") or "model", name
            if key in self.hub.repos:
                return self._json({"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}, 409)
            private = bool(request.get("private")) or request.get("visibility") == "private"
            self.hub.repos[key] = Repo(private=private)
            return self._json({"url": f"{self.hub.url}/{'datasets/' if key[0] == 'dataset' else ''}{name}", "id": name})
        if address.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs-store/{item['oid']}"}}
            return self._json({"transfer": "basic", "objects": objects})
        route = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/(preupload|commit)/([^/]+)", address)
        repo = self._repo(route[1], route[2], route[4]) if route else None
        if route is None or repo is None:
            return None if route else self._error(404, "NotFound", f"not served here: {address}")
        if route[3] == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] >= LARGE else "regular"}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": [mode | {"shouldIgnore": False, "oid": None} for mode in modes]})
        return self._commit(repo, route[2], body)

    def _commit(self, repo: Repo, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                repo.files.pop(value["path"], None)
        commit = repo.commit
        self._json({"success": True, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, repo: Repo | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, b"", headers | ({"X-Repo-Commit": repo.commit} if repo else {}))

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, object]:
    """A file of a repository as the tree and the list of files describe it."""
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
    if len(content) >= LARGE:
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 134}
    return entry
