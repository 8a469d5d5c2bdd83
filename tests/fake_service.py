"""A server on this machine that speaks OpenAI's interface, as lmms-eval's backends use it."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Size = tuple[int, int]


class Server(ThreadingHTTPServer):
    """Gives `answer` of the second image's size; keeps prompts and image sizes."""

    answer: Callable[[Size], str | None]
    usage: Callable[[str], dict[str, Any] | None]
    """Of a response, by its prompt."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.usage = lambda _: {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.prompts: list[str] = []
        self.sizes: list[list[Size]] = []
        self.refuses_key = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refuses_key:
            key = self.headers["Authorization"].removeprefix("Bearer ")
            self.reply(401, {"error": {"message": f"Incorrect API key provided: {key}"}})
            return
        (message,) = body["messages"]
        texts = [part["text"] for part in message["content"] if part["type"] == "text"]
        urls = [part["image_url"]["url"] for part in message["content"] if "image_url" in part]
        files = [io.BytesIO(base64.b64decode(url.partition(",")[2])) for url in urls]
        sizes = [Image.open(file).size for file in files]
        self.server.prompts += texts
        self.server.sizes.append(sizes)
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": self.server.answer(sizes[-1])},
        }
        usage = self.server.usage(texts[0])
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        self.reply(200, reply | {"choices": [choice]} | ({"usage": usage} if usage else {}))

    def reply(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Not on standard error."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server at work."""
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
        thread.join()
