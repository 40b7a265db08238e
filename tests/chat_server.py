"""A local server that speaks the OpenAI chat API, replies by script, and fails on demand."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """``body`` of a 200 unless ``status`` says otherwise; ``after`` seconds late; or the connection ends without one."""

    body: str = ""
    status: int = 200
    after: float = 0.0
    drop: bool = False


def says(content: str | None) -> Reply:
    return Reply(json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}))


Script = Callable[[str, int], Reply]
DROPPED = Reply(drop=True)


class Server(ThreadingHTTPServer):
    """At ``url``, answers chat completions by ``script(prompt, how many times it came before)`` and writes down what it saw."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script: Script = lambda prompt, nth: says("yes")
        self.models = ["judge"]
        self.owned_by: str | None = "nobody"
        self.listing: Reply | None = None  # in place of the list of models
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.seen: Counter[str] = Counter()
        self.in_flight = self.peak = 0
        self.away = False  # every connection ends without a reply

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Upstream prints a traceback; a client that has ended, and so reset its connection, is no fault of the server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self.send(Reply('{"detail": "Not Found"}', status=404))
            return
        models = [{"id": model, "owned_by": self.server.owned_by} for model in self.server.models]
        self.send(self.server.listing or Reply(json.dumps({"data": models})))

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = request["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else json.dumps(content)
        with server.lock:
            nth = server.seen[prompt]
            server.seen[prompt] += 1
            server.requests.append(request)
            server.keys.append(self.headers["Authorization"])
            server.in_flight += 1
            server.peak = max(server.peak, server.in_flight)
        reply = server.script(prompt, nth)
        # A late reply leaves the count now: when the client gives it up, its next request may arrive before that shows here.
        with server.lock:
            server.in_flight -= 1
        server.stopped.wait(reply.after)
        self.send(reply)

    def send(self, reply: Reply) -> None:
        if reply.drop or self.server.away:
            self.close_connection = True
            return
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the client gave up on a late reply
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
