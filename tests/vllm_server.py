"""``vllm serve`` of this environment as a process of its own, with whatever it starts; nothing of it is left afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

# For a tiny checkpoint on a CPU.
SMALL = ("--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16", "--enforce-eager")
START = 900.0  # seconds until a server must answer, or must have ended
END = 30.0  # seconds until everything must be gone


def _start(checkpoint: str, flags: tuple[str, ...], output: IO[str]) -> subprocess.Popen:
    command = [str(Path(sys.executable).with_name("vllm")), "serve", checkpoint, *flags]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def refused(checkpoint: str, *flags: str) -> tuple[int, str]:
    """Exit status and output of a ``vllm serve`` that is to end by itself. Raises AssertionError, with everything ended, if it
    does not."""
    with tempfile.TemporaryFile("w+") as output:
        server = _start(checkpoint, flags, output)
        left = _gone(server, START)
        assert not left, f"the server did not end by itself: {left}\n{_tail(output)}"
        return server.returncode, _tail(output)


@contextmanager
def serving(checkpoint: str, *flags: str) -> Iterator[str]:
    """Yields what comes before ``/chat/completions``.

    Raises RuntimeError with the end of its output if the server ends or does not answer, and AssertionError if a process that
    it started outlives it.
    """
    port = _free_port()
    with tempfile.TemporaryFile("w+") as output:
        server = _start(checkpoint, ("--host", "127.0.0.1", "--port", str(port), *flags), output)
        left: list[psutil.Process] = []
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", output)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            left = _gone(server)
        assert not left, f"the server left processes behind: {left}\n{_tail(output)}"


def session(server: subprocess.Popen) -> list[psutil.Process]:
    """All living processes of the server's session, itself among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == server.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found


def _gone(server: subprocess.Popen, within: float = END) -> list[psutil.Process]:
    """Waits for the end of the session, some seconds. Returns, killed, what did not end by itself."""
    deadline = time.monotonic() + within
    while (server.poll() is None or session(server)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = session(server)
    for process in left:
        process.send_signal(signal.SIGKILL)
    server.wait()
    return left


def _wait(server: subprocess.Popen, health: str, output: IO[str]) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}:\n{_tail(output)}")
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"no answer from {health} within {START:.0f} s:\n{_tail(output)}")


def _tail(output: IO[str]) -> str:
    output.seek(0)
    return output.read()[-4000:]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
