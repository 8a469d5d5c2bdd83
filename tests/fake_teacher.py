"""An OpenAI-compatible server on 127.0.0.1 that answers well, or badly in a chosen way."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["BadAnswer", "FakeTeacher", "Request", "completion", "good_chain", "running_teacher"]

KEY = "sk-test-5f2c9a7e"
_FRUIT = ("apple", "pear", "plum", "quince", "cherry", "grape", "lemon", "mango")


@dataclass(frozen=True)
class Request:
    """What the server received."""

    number: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        return [p["text"] for p in self.body["messages"][0]["content"] if p["type"] == "text"]

    @property
    def images(self) -> list[str]:
        content = self.body["messages"][0]["content"]
        return [p["image_url"]["url"] for p in content if p["type"] == "image_url"]

    @property
    def prompt(self) -> str:
        return self.texts[-1]

    @property
    def is_choice(self) -> bool:
        return "<best>" in self.prompt

    @property
    def about(self) -> str:
        """The row, by the marker [row …] in its question, and the kind of request."""
        row = re.search(r"\[row ([^\]]+)\]", self.prompt)
        return f"{row[1] if row else '?'} {'choice' if self.is_choice else 'chain'}"


@dataclass
class BadAnswer:
    """A reply that is not a good one.

    `stall`: seconds of silence before anything is sent; `drip`: seconds between single bytes;
    `cut`: close the connection after so many bytes of the body that was announced.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    stall: float = 0.0
    drip: float = 0.0
    cut: int | None = None


def completion(text: Any, **changes: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "teacher-1-0613",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    } | changes


def good_chain(request: Request) -> str:
    """A chain that passes all rules, different for every request."""
    box = re.search(r"<answer>(\[[^\]]*\])</answer>", request.prompt)
    image = re.search(r"the object lies in (Image \d+)", request.prompt)
    assert box is not None, request.prompt
    fruit = _FRUIT[request.number % len(_FRUIT)] * (1 + request.number // len(_FRUIT))
    end = f" So the object is in {image[1]}." if image else ""
    return (
        f"<think>The question asks for one thing, as plain as an {fruit}. Looking over the scene I "
        "see several candidates, and only the one near the lower edge fits every word of the "
        f"description, while the others differ in colour.{end}</think>"
        f"<answer>{box[1]}</answer>"
    )


def answer_well(request: Request) -> dict[str, Any]:
    return completion("<best>1</best>" if request.is_choice else good_chain(request))


class FakeTeacher:
    """A running server; `behave(request)` gives a reply: a body as dict, or a `BadAnswer`."""

    def __init__(self, behave: Callable[[Request], dict[str, Any] | BadAnswer]) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.url = ""
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def take(self, headers: dict[str, str], body: dict[str, Any]) -> Request:
        with self._lock:
            request = Request(len(self.requests), headers, body)
            self.requests.append(request)
            return request

    @property
    def received(self) -> list[str]:
        return [request.about for request in self.requests]


@contextmanager
def running_teacher(
    behave: Callable[[Request], dict[str, Any] | BadAnswer] = answer_well,
) -> Iterator[FakeTeacher]:
    """Serve in threads; closes at the end without waiting for stalled replies."""
    teacher = FakeTeacher(behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions", self.path
            headers = {name.lower(): value for name, value in self.headers.items()}
            length = int(headers["content-length"])
            request = teacher.take(headers, json.loads(self.rfile.read(length)))
            answer = teacher.behave(request)
            if isinstance(answer, dict):
                answer = BadAnswer(body=json.dumps(answer).encode())
            if teacher.closing.wait(answer.stall) and answer.stall:
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.content_type:
                self.send_header("content-type", answer.content_type)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            if answer.drip:
                for byte in answer.body:
                    if teacher.closing.wait(answer.drip):
                        return
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
            self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
            self.wfile.flush()
            if answer.cut is not None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # the client gave up
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    teacher.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield teacher
    finally:
        teacher.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
