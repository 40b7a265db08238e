"""One Ray node of two goes away: the one with the rollout. Both are this machine, with a token and a folder of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from e2e_environment import ENVIRONMENT
from outcome import Outcome
from training import Training

DONE = (
    "one Ray node of two gone (SIGKILL for all its processes) at a random moment of stage 2; the node is back, the same command"
)
UNIT = "questions of epochs begun"
RAY = Path(sys.executable).with_name("ray")
# A logical device each: the actor's and the rollout's are on nodes of their own.
SEPARATE = (
    *("pools=separate", "trainer.n_gpus_per_node=1", "actor_rollout_ref.rollout.n_gpus_per_node=1"),
    *("ray_kwargs.ray_init.num_gpus=null", "ray_kwargs.ray_init.num_cpus=null"),
)


class Node:
    """``ray start --block`` and all that it starts; with ``address`` it joins the node there."""

    def __init__(self, folder: Path, port: int, head: bool) -> None:
        where = ["--head", "--port", str(port), "--include-dashboard", "false"] if head else ["--address", f"127.0.0.1:{port}"]
        command = [RAY, "start", "--block", "--disable-usage-stats", "--num-gpus", "1", "--num-cpus", "8"]
        ip = ["--node-ip-address", "127.0.0.1"]
        log = (folder / f"node-{'head' if head else 'other'}.log").open("w")
        if head:
            ip += ["--temp-dir", f"/tmp/ray-{os.getpid()}"]
        # Workers have the environment of their node, not of the driver.
        self.process = subprocess.Popen(
            [*command, *where, *ip], stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | ENVIRONMENT
        )

    def kill(self) -> None:
        process = psutil.Process(self.process.pid)
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # a worker ends by itself once its node is gone
                each.kill()
        self.process.wait()


def alive(port: int) -> int:
    look = (
        f"import ray; ray.init('127.0.0.1:{port}', logging_level='error', log_to_driver=False)\n"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=100)
    return int(done.stdout or 0)


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    port = 20000 + os.getpid() % 10000
    os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token", "RAY_ADDRESS": f"127.0.0.1:{port}"}
    nodes = [Node(work, port, head=True)]
    join(nodes, work, port)
    training = Training(work, " died: .*node has died", *SEPARATE)

    def once(number: int) -> Outcome:
        return training.disturbed(lambda _: nodes.pop().kill(), mend=lambda: join(nodes, work, port))

    try:
        yield once
    finally:
        training.end()
        for node in nodes:
            node.kill()
        shutil.rmtree(f"/tmp/ray-{os.getpid()}")


def join(nodes: list[Node], work: Path, port: int) -> None:
    nodes.append(Node(work, port, head=False))
    while alive(port) < 2:
        time.sleep(1)
