"""A stand-in of Slack's API over real HTTP: it checks what it is sent, keeps it, and fails on demand."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "xoxb-stand-in-secret"
CHANNEL = "C0ALERTS"


@dataclass
class Fault:
    """An answer given instead of the right one. ``lost`` does the work first, then fails."""

    status: int
    body: bytes = b'{"ok": false, "error": "internal_error"}'
    headers: dict[str, str] = field(default_factory=dict)
    lost: bool = False


@dataclass
class Posted:
    """A message as the channel shows it."""

    text: str
    blocks: list[dict[str, Any]]
    thread_ts: str | None
    edits: int = 0


@dataclass
class Picture:
    """A file on its way into a thread, or there."""

    name: str
    length: int
    content: bytes = b""
    title: str = ""
    thread_ts: str | None = None


class SlackApi:
    """Runs on a free port within the block. ``faults`` are given first, one to a request."""

    def __init__(self) -> None:
        self.messages: dict[str, Posted] = {}
        self.calls: list[str] = []
        self.faults: list[Fault] = []
        self.files: dict[str, Picture] = {}
        self.may_upload = True
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/"

    def __enter__(self) -> SlackApi:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def heads(self) -> list[Posted]:
        return [message for message in self.messages.values() if message.thread_ts is None]

    @property
    def replies(self) -> list[Posted]:
        return [message for message in self.messages.values() if message.thread_ts is not None]

    @property
    def pictures(self) -> list[Picture]:
        return [file for file in self.files.values() if file.thread_ts is not None]

    def answer(self, method: str, authorization: str | None, body: dict[str, Any]) -> dict[str, Any]:
        if authorization != f"Bearer {TOKEN}":
            return {"ok": False, "error": "invalid_auth"}
        if method.startswith("files."):
            return self._file(method, body)
        if fault := _invalid(body):
            return {"ok": False, "error": fault}
        if method == "chat.postMessage":
            return self._post(body)
        if method == "chat.update":
            return self._update(body)
        return {"ok": False, "error": "unknown_method"}

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["channel"] not in {CHANNEL, "#agent-alerts"}:
            return {"ok": False, "error": "channel_not_found"}
        identity = body.get("client_msg_id", "")
        ts = self._known.get(identity) or f"1700000000.{len(self.messages) + 1:06d}"
        if ts not in self.messages:
            self.messages[ts] = Posted(body["text"], body["blocks"], body.get("thread_ts"))
            self._known[identity] = ts
        return {"ok": True, "channel": CHANNEL, "ts": ts}

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["channel"] != CHANNEL:
            return {"ok": False, "error": "channel_not_found"}
        message = self.messages.get(body["ts"])
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        message.text, message.blocks = body["text"], body["blocks"]
        message.edits += 1
        return {"ok": True, "channel": CHANNEL, "ts": body["ts"]}

    def _file(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self.may_upload:
            return {"ok": False, "error": "missing_scope", "needed": "files:write"}
        if method == "files.getUploadURLExternal":
            name = f"F{len(self.files) + 1}"
            self.files[name] = Picture(body["filename"], int(body["length"]))
            address = f"{self.url.removesuffix('/api/')}/upload/{name}"
            return {"ok": True, "file_id": name, "upload_url": address}
        (told,) = json.loads(body["files"])
        file = self.files[told["id"]]
        if len(file.content) != file.length or body["channel_id"] != CHANNEL:
            return {"ok": False, "error": "invalid_arguments"}
        file.title, file.thread_ts = told["title"], body["thread_ts"]
        return {"ok": True, "files": [{"id": told["id"], "title": told["title"]}]}

    def delete(self, ts: str) -> None:
        """What a person does who deletes a message; its identity is forgotten with it."""
        del self.messages[ts]
        self._known = {identity: kept for identity, kept in self._known.items() if kept != ts}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                address = urlsplit(self.path)
                sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if address.path.startswith("/upload/"):
                    api.files[address.path.rpartition("/")[2]].content = sent
                    self._reply(200, b"OK", {})
                    return
                method = address.path.removeprefix("/api/")
                if self.headers["Content-Type"].startswith("application/json"):
                    body = json.loads(sent)
                else:
                    body = dict(parse_qsl(address.query) + parse_qsl(sent.decode()))
                with api._lock:
                    api.calls.append(method)
                    fault = api.faults.pop(0) if api.faults else None
                    if fault is None or fault.lost:
                        answer = api.answer(method, self.headers["Authorization"], body)
                if fault is None:
                    self._reply(200, json.dumps(answer).encode(), {})
                else:
                    self._reply(fault.status, fault.body, fault.headers)

            def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        return Handler


def _invalid(body: dict[str, Any]) -> str | None:
    """The limits of Block Kit that Slack's reference states."""
    if not body.get("text"):
        return "no_text"
    for block in body["blocks"]:
        parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        limit = 150 if block["type"] == "header" else 2000 if "fields" in block else 3000
        if len(block.get("fields", [])) > 10:
            return "invalid_blocks"
        for part in parts:
            if part is not None and not 1 <= len(part["text"]) <= limit:
                return "invalid_blocks"
    return None
