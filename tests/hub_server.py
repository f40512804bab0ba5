"""A hub on 127.0.0.1 for tests without a network: repositories are folders, faults are asked for.

    with Hub(root) as hub: hub.url, hub.log, hub.fault("safetensors", "cut", after=1000)
    python tests/hub_server.py ROOT PORT        the same by hand: HF_ENDPOINT, and a fresh HF_HOME

ROOT/{models,datasets}/OWNER/NAME/REVISION/files: every REVISION folder is a branch or a tag; its
commit is a hash of its files, and a valid revision too. A file `access` beside the revisions makes
a repository `gated` or `private`. Files are read anew at each request, so a test may change them.
Tokens: `hf_member` may read everything, `hf_stranger` is valid and may not, others are invalid.

It speaks what huggingface_hub 1.33, transformers 5.17 and datasets 4.8 ask when they load models
and data sets: info (with sizes), revision, tree, paths-info, auth-check, resolve (HEAD, GET, ETag,
Range, X-Repo-Commit) and errors with the hub's X-Error-Code. Limits: no uploads, refs, whoami,
Xet storage, renamed repositories, pages of long listings, search, the viewer.
"""

import hashlib
import json
import re
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 100_000
"""Bytes; larger files are named by their SHA-256, as those outside git are on the hub."""
STORE = "/store"
"""Before the path of a file that was redirected."""
MEMBER, STRANGER = "hf_member", "hf_stranger"


@dataclass
class Fault:
    """What goes wrong with the next requests whose path matches."""

    match: str
    do: str
    """A status; `stall` or `cut` after some bytes; `slow`, so many a second; `wrong` bytes."""
    after: int = 0
    times: int = 1
    """-1: always."""
    retry_after: int | None = None

    def hits(self, command: str, path: str) -> bool:
        """Whether it strikes now; counts."""
        fits = self.do.isdigit() or command == "GET"
        if self.times == 0 or not fits or not re.search(self.match, path):
            return False
        self.times -= 1
        return True


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Hub:
    """The server, its log and its faults."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.redirects = False
        """Whether files are sent from another address, as large ones are by the hub."""
        self.closing = threading.Event()
        handler = type("Bound", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        """Answer until closed."""
        self._server.serve_forever(poll_interval=0.05)

    def fault(self, match: str, do: str, **more: Any) -> None:
        """Let something go wrong; the newest fault strikes first."""
        self.faults.insert(0, Fault(match, do, **more))

    def put(
        self, kind: str, name: str, files: dict[str, bytes | str], revision: str = "main"
    ) -> str:
        """Write files of a repository; returns the commit."""
        folder = self.root / f"{kind}s" / name / revision
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        return commit_of(folder)

    def access(self, kind: str, name: str, mark: str) -> None:
        """Make a repository gated or private."""
        (self.root / f"{kind}s" / name / "access").write_text(mark)

    def asked(self, part: str = "") -> list[str]:
        """Requests so far whose line holds a text."""
        return [line for line in self.log if part in line]


def files_of(folder: Path) -> list[str]:
    """Paths of a folder's files."""
    return [str(f.relative_to(folder)) for f in sorted(folder.rglob("*")) if f.is_file()]


def commit_of(folder: Path) -> str:
    """A hash of a folder's files and its name."""
    digest = hashlib.sha1(folder.name.encode())
    for name in files_of(folder):
        digest.update(name.encode() + hashlib.sha1((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def entry(folder: Path, path: str) -> dict[str, Any]:
    """A file or folder as the hub's tree lists it."""
    if (folder / path).is_dir():
        return {"type": "directory", "path": path, "oid": "0" * 40}
    data = (folder / path).read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if len(data) > LARGE:
        sha = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 134}
    return found


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def do_GET(self) -> None:
        """Answer any request."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        url = urlsplit(self.path)
        path, query = unquote(url.path), dict(parse_qs(url.query))
        self.fault = next((f for f in self.hub.faults if f.hits(self.command, path)), None)
        note = f"!{self.fault.do}" if self.fault else None
        words = (self.command, path, self.headers.get("Range"), note)
        self.hub.log.append(" ".join(filter(None, words)))
        try:
            if self.fault and self.fault.do.isdigit():
                raise Refused(int(self.fault.do), "", "a fault that the test asked for")
            self.answer(path, query)
        except Refused as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            if self.fault and self.fault.retry_after is not None:
                headers["Retry-After"] = str(self.fault.retry_after)
            body = json.dumps({"error": error.message}).encode()
            self.send(error.status, body, {k: v for k, v in headers.items() if v})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_POST = do_GET

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        """Route a request."""
        if path.startswith(STORE):
            path = path.removeprefix(STORE)
        elif self.hub.redirects and "/resolve/" in path:
            return self.send(302, b"", {"Location": f"{self.hub.url}{STORE}{path}"})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if token not in ("", MEMBER, STRANGER):
            raise Refused(401, "", "Invalid credentials in Authorization header")
        if raw := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(.*)", path):
            place = self.repository("datasets" if raw[1] else "models", raw[2], token, inside=True)
            return self.file(*self.revision(place, raw[3]))
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([^/]*)/?(.*))?", path)
        verb = (api[3] or "revision") if api else ""
        if api is None or verb not in ("auth-check", "revision", "tree", "paths-info"):
            raise Refused(404 if token else 401, "", "Not found")
        place = self.repository(api[1], api[2], token, inside=verb == "auth-check")
        if verb == "auth-check":
            return self.json({})
        folder, inner = self.revision(place, api[4] or "main")
        if verb == "revision":
            return self.json(self.info(api[2], place, folder, sizes="blobs" in query))
        self.json(self.tree(folder, inner, verb, query))

    def info(self, name: str, place: Path, folder: Path, *, sizes: bool) -> dict[str, Any]:
        """What the hub says of a repository."""
        siblings: list[dict[str, Any]] = []
        for path in files_of(folder):
            about = entry(folder, path)
            sibling: dict[str, Any] = {"rfilename": path}
            if sizes:
                sibling |= {"size": about["size"], "blobId": about["oid"]}
                if "lfs" in about:
                    sibling["lfs"] = {**about["lfs"], "sha256": about["lfs"]["oid"]}
            siblings.append(sibling)
        said = access_of(place)
        marks = {"private": said == "private", "gated": said == "gated" and "manual"}
        return {"id": name, "sha": commit_of(folder), **marks, "siblings": siblings}

    def tree(
        self, folder: Path, inner: str, verb: str, query: dict[str, list[str]]
    ) -> list[dict[str, Any]]:
        """Files and folders below a path, or at given paths."""
        if verb == "paths-info":
            asked = set(parse_qs(self.body).get("paths", []))
        else:
            start = f"{inner}/" if inner else ""
            below = [f.removeprefix(start) for f in files_of(folder) if f.startswith(start)]
            if not below:
                raise Refused(404, "EntryNotFound", f"{inner} does not exist")
            deep = query.get("recursive", [""])[0].lower() in ("true", "1")
            parts = [(f.split("/"), n) for f in below for n in range(1, 99 if deep else 2)]
            asked = {start + "/".join(names[:n]) for names, n in parts}
        return [entry(folder, path) for path in sorted(asked) if (folder / path).exists()]

    def repository(self, kind: str, name: str, token: str, *, inside: bool) -> Path:
        """A repository's folder, if the token may see it (and look inside)."""
        place = self.hub.root / kind / name
        said = access_of(place)
        hidden = said == "private" and token != MEMBER
        if ".." in name or not place.is_dir() or hidden:
            raise Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if said == "gated" and inside and token != MEMBER:
            raise Refused(403 if token else 401, "GatedRepo", f"Access to {name} is restricted.")
        return place

    def revision(self, place: Path, rest: str) -> tuple[Path, str]:
        """The folder of a revision, and the path after it."""
        for folder in (child for child in place.iterdir() if child.is_dir()):
            for name in (folder.name, commit_of(folder)):
                if rest == name or rest.startswith(f"{name}/"):
                    return folder, rest[len(name) + 1 :]
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {rest.split('/')[0]}")

    def file(self, folder: Path, name: str) -> None:
        """A file, or a part of it."""
        headers = {"X-Repo-Commit": commit_of(folder), "Accept-Ranges": "bytes"}
        if name not in files_of(folder):
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound", **headers})
        data, about = (folder / name).read_bytes(), entry(folder, name)
        headers["ETag"] = f'"{about.get("lfs", about)["oid"]}"'
        if "lfs" in about:
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": headers["ETag"]}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self.send(200, data, headers)
        first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.send(206, data[first : last + 1], headers)

    def json(self, value: object) -> None:
        """A JSON answer."""
        self.send(200, json.dumps(value).encode())

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer, with the fault that strikes it."""
        self.send_response(status)
        about = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for key, value in {**about, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.fault
        if fault is None or fault.do.isdigit():
            self.wfile.write(body)
        elif fault.do == "wrong":
            self.wfile.write(bytes(len(body)))
        elif fault.do == "slow":
            self.slowly(body, fault.after)
        else:
            self.wfile.write(body[: fault.after])
            self.wfile.flush()
            if fault.do == "stall":
                self.hub.closing.wait(3600)
            self.close_connection = True

    def slowly(self, body: bytes, rate: int) -> None:
        """Send so many bytes a second."""
        step = max(1, rate // 20)
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if self.hub.closing.wait(0.05):
                break


def access_of(place: Path) -> str:
    """public, gated or private."""
    mark = place / "access"
    return mark.read_text().strip() if mark.is_file() else "public"


if __name__ == "__main__":
    server = Hub(Path(sys.argv[1]), int(sys.argv[2]))
    threading.Thread(target=server.serve, daemon=True).start()
    while True:
        time.sleep(3600)
