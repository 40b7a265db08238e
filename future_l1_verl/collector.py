"""Keeps Python's garbage collector from walking through imported libraries again and again."""

import atexit
import gc

RAY_HOOK = {"worker_process_setup_hook": "future_l1_verl.collector.spare_libraries"}
"""The part of a Ray job's ``runtime_env`` by which `spare_libraries` is called in each of its processes."""


def spare_libraries() -> None:
    """Makes full collections rare in this process, and leaves them out at its exit; to be called before heavy imports.

    torch, verl and vLLM have more than a million objects that live as long as the process. While they are imported Python goes
    through all of them some twenty times, and several times more at the exit: half of the time that a process takes to start
    and to end. Young objects are collected as before.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1000)
    atexit.register(gc.freeze)
