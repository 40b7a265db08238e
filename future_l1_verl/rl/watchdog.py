"""Ends a run if one of its processes dies while no call is waiting for it.

The trainer waits without a time limit for rollouts, for weight updates and for TransferQueue: it would never notice a dead
engine, agent-loop worker or storage unit.
"""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import ray
import torch
from ray.exceptions import ActorUnavailableError

# The errors of a process that cannot reach another one, for example after a node is lost.
UNREACHABLE = (ActorUnavailableError, torch.distributed.DistError)


class ProcessDied(RuntimeError):
    """A process of the run has died; the message says which one, and what is known of the cause."""


class EngineDied(ProcessDied):
    """A rollout engine has died; the message has its last output."""


def interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def named_actors() -> set[tuple[str, str]]:
    """Returns names and namespaces of the live Ray actors of this driver and of the TransferQueue that it shares by name."""
    ours = {ray.get_runtime_context().namespace, "transfer_queue"}
    found = ray.util.list_named_actors(all_namespaces=True)
    return {(actor["name"], actor["namespace"]) for actor in found if actor["namespace"] in ours}


class Watchdog(threading.Thread):
    """Checks every ``interval`` seconds that the Ray actors that had a name at the start, as all parts of a run have, are
    alive, and calls each rollout server's ``check_health``; no answer within ``patience`` seconds counts as dead."""

    def __init__(self, servers: Sequence[Any], interval: float = 10.0, patience: float = 60.0) -> None:
        super().__init__(daemon=True, name="watchdog")
        self.servers, self.interval, self.patience = servers, interval, patience
        self.finished = threading.Event()
        self.death: ProcessDied | None = None

    def run(self) -> None:
        while not self.finished.wait(self.interval):
            death = self._dead_actor() or self._dead_engine()
            if self.finished.is_set():
                return
            if death is not None:
                self.death = death
                # A signal, not _thread.interrupt_main(): that one does not wake a thread that waits for a lock or a socket.
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                return

    def _dead_actor(self) -> ProcessDied | None:
        gone: list[tuple[str, str]] = []
        try:
            gone = sorted(self.actors.keys() - named_actors())
            # Raises why.
            ray.get([self.actors[actor].__ray_ready__.remote() for actor in gone], timeout=self.patience)
        except Exception as error:
            names = ", ".join(name for name, _ in gone) or "Ray's control service"
            return ProcessDied(f"{names} died: {error}")
        return None

    def _dead_engine(self) -> EngineDied | None:
        try:
            ray.get([server.check_health.remote() for server in self.servers], timeout=self.patience)
        except Exception as error:
            return self._who(error) or EngineDied(f"a rollout engine died: {error}")
        return None

    def _who(self, error: Exception) -> ProcessDied | None:
        """Returns which process died if ``error`` only says that one could not be reached; None if Ray, which needs time to
        notice a dead node, does not know within ``patience`` seconds."""
        deadline = time.monotonic() + self.patience
        while isinstance(error, UNREACHABLE) and time.monotonic() < deadline:
            if death := self._dead_actor():
                return death
            time.sleep(1)
        return None

    @contextmanager
    def raising_here(self) -> Iterator[None]:
        """Watches during the block; raises `ProcessDied` in it when a process dies. Use it only in the main thread."""
        # asyncio.run replaces only Python's own handler, by one that only cancels the task: a blocking ray.get inside a
        # coroutine, by which verl updates weights (verl/checkpoint_engine/base.py), would never notice that.
        before = signal.signal(signal.SIGINT, interrupt)
        self.actors = {(name, namespace): ray.get_actor(name, namespace) for name, namespace in named_actors()}
        self.start()
        try:
            yield
        except KeyboardInterrupt:
            if self.death is None:
                raise
            raise self.death from None
        except UNREACHABLE as error:
            self.finished.set()
            if death := self._who(error):
                raise death from error
            raise
        finally:
            self.finished.set()
            signal.signal(signal.SIGINT, before)
