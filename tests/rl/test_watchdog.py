"""The watchdog with real Ray actors as the server and as a part of the run that nobody asks anything."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import ray
import torch

from future_l1_verl.rl.watchdog import EngineDied, ProcessDied, Watchdog

pytestmark = pytest.mark.engine


@ray.remote(num_cpus=0)
class Server:
    def __init__(self) -> None:
        self.dead = False

    def die(self) -> None:
        self.dead = True

    def check_health(self) -> None:
        if self.dead:
            raise RuntimeError("the engine core is gone")

    def wait(self) -> None:
        time.sleep(60)

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def server(started: None) -> Iterator[ray.actor.ActorHandle]:
    server = Server.remote()
    yield server
    ray.kill(server)


def for_a_lock() -> None:
    threading.Event().wait()


def for_a_coroutine() -> None:
    asyncio.run(asyncio.sleep(60))


def for_an_actor_inside_a_coroutine() -> None:
    """As verl waits for a weight update (verl/checkpoint_engine/base.py:519)."""

    async def update() -> None:
        ray.get(Server.remote().wait.remote())

    asyncio.run(update())


@pytest.mark.parametrize("wait", [lambda: time.sleep(60), for_a_lock, for_a_coroutine, for_an_actor_inside_a_coroutine])
@pytest.mark.timeout(300, method="thread")
def test_a_death_ends_the_block_whatever_it_waits_for(wait: Callable[[], None], server: ray.actor.ActorHandle) -> None:
    watchdog = Watchdog([server], interval=0.2)
    with pytest.raises(EngineDied, match="the engine core is gone"), watchdog.raising_here():
        server.die.remote()
        wait()


@pytest.mark.parametrize("namespace", [None, "transfer_queue"])
@pytest.mark.timeout(300, method="thread")
def test_a_killed_actor_that_nobody_asks_ends_the_block(namespace: str | None, server: ray.actor.ActorHandle) -> None:
    part, busy = Server.options(name="storage", namespace=namespace).remote(), Server.options(name=f"busy {namespace}").remote()
    pid, _ = ray.get([part.pid.remote(), busy.pid.remote()])
    watchdog = Watchdog([server], interval=0.2)
    with pytest.raises(ProcessDied, match=f"(?s)^storage died: .*pid: {pid}"), watchdog.raising_here():
        busy.wait.remote()  # who does not answer since it works is not dead
        time.sleep(1)
        assert watchdog.death is None
        os.kill(pid, signal.SIGKILL)
        time.sleep(60)


def test_who_died_is_said_where_the_error_is_of_a_connection(server: ray.actor.ActorHandle) -> None:
    part = Server.options(name="vllm_server").remote()
    pid = ray.get(part.pid.remote())
    watchdog = Watchdog([server])
    with pytest.raises(ProcessDied, match="vllm_server died") as raised, watchdog.raising_here():
        os.kill(pid, signal.SIGKILL)
        raise torch.distributed.DistNetworkError("Connection reset by peer")
    assert "reset by peer" in str(raised.value.__cause__)
    # With nobody dead it stays what it is.
    watchdog = Watchdog([server], patience=1)
    with pytest.raises(torch.distributed.DistNetworkError), watchdog.raising_here():
        raise torch.distributed.DistNetworkError("Connection reset by peer")


def test_a_block_that_ends_first_is_left_alone(server: ray.actor.ActorHandle) -> None:
    watchdog = Watchdog([server], interval=0.2)
    with watchdog.raising_here():
        time.sleep(1)
    server.die.remote()
    watchdog.join(5)
    assert watchdog.death is None
