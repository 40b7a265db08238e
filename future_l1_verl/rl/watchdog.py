"""Ends a run whose rollout engine has died while nobody was asking it anything.

A dead engine answers no weight update, and the trainer waits for that answer without a limit.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import ray


class EngineDied(RuntimeError):
    """A rollout engine no longer lives; the message carries what it said last."""


def interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


class Watchdog(threading.Thread):
    """Asks each rollout server's ``check_health`` every ``interval`` seconds; no answer in ``patience`` seconds is death."""

    def __init__(self, servers: Sequence[Any], interval: float = 10.0, patience: float = 60.0) -> None:
        super().__init__(daemon=True, name="rollout watchdog")
        self.servers, self.interval, self.patience = servers, interval, patience
        self.finished = threading.Event()
        self.death: Exception | None = None

    def run(self) -> None:
        while not self.finished.wait(self.interval):
            try:
                ray.get([server.check_health.remote() for server in self.servers], timeout=self.patience)
            except Exception as error:
                if self.finished.is_set():
                    return
                self.death = error
                # A signal, not _thread.interrupt_main(): that one does not wake a thread that waits for a lock or a socket.
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                return

    @contextmanager
    def raising_here(self) -> Iterator[None]:
        """Watches during the block, which ends with `EngineDied` when an engine dies. For the main thread."""
        # asyncio.run puts a handler in the place of Python's own, and of no other, that only cancels the task: a blocking
        # ray.get inside a coroutine, which is how verl updates weights (verl/checkpoint_engine/base.py:519), never notices.
        before = signal.signal(signal.SIGINT, interrupt)
        self.start()
        try:
            yield
        except KeyboardInterrupt:
            if self.death is None:
                raise
            raise EngineDied(f"a rollout engine died: {self.death}") from self.death
        finally:
            self.finished.set()
            signal.signal(signal.SIGINT, before)
