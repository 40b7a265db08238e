"""Token rate of an engine with latents against stock vLLM on the same weights, and what a step of each consists of.

Both run as vLLM chooses: on a GPU with CUDA graphs and async scheduling. The rates are rollout.py's; the steps are those after
the first of a batch, profiled by vLLM, whose trace is read here. Kernels and copies count where there is a GPU, else operators
of torch.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import rollout
from checkpoint import checkpoint
from engines import Engine, engine, prompts, without_latents
from record import Form, Record, run

OPENS = 5.0  # on the logit of the start token
ON_DEVICE, ON_HOST = ("kernel", "gpu_memcpy", "gpu_memset"), ("cpu_op",)
STEPS, TOP = 20, 25


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny" if form.cpu else "2b", form.folder)
    text, traces = form.folder / "stock", form.folder / "traces"
    if not text.exists():
        without_latents(path, text)
    batches, tokens, rounds = ((2,), 32, 1) if form.cpu else ((64, 256), 96, 4)
    graphs = {"compilation_config": {"cudagraph_capture_sizes": list(batches)}}  # of the batches alone: each takes its time
    size = {"dtype": "float32"} if form.cpu else {"dtype": "bfloat16", "gpu_memory_utilization": 0.4, **graphs}

    def profiled(name: str) -> dict[str, Any]:
        folder = traces / name
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "profiler": "torch", "torch_profiler_dir": str(folder), "torch_profiler_with_stack": False,
            "torch_profiler_use_gzip": False, "torch_profiler_dump_cuda_time_total": False, "ignore_frontend": True,
            "delay_iterations": 5, "max_iterations": STEPS,
        }  # fmt: skip

    arguments = {"logprobs_mode": "processed_logprobs", **size}
    with (
        engine(path, latents=True, profiler_config=profiled("latent"), **arguments) as with_latents,
        engine(text, latents=False, profiler_config=profiled("text"), **arguments) as stock,
    ):
        both = {"latent": with_latents, "text": stock}
        for batch in batches:
            record.cell(f"batch {batch}", lambda batch=batch: rollout.measure(both, path, batch, tokens, rounds, OPENS))
        for name, llm in both.items():
            given = (llm, path, traces / name, batches[0])
            record.cell(f"step of {name}", lambda given=given: _step(*given))


def _step(llm: Engine, path: Path, traces: Path, batch: int) -> dict[str, Any]:
    llm.profile(prompts(batch), **rollout.sampling(path, STEPS + 10, OPENS))
    return operations(max(traces.glob("*.json"), key=lambda trace: trace.stat().st_size), batch)


def operations(trace: Path, batch: int) -> dict[str, Any]:
    """Returns, of a profiled step: the number of operations, and the `TOP` that take longest with number and microseconds.

    Raises ValueError if the trace has no step.
    """
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("ph") == "X"]
    steps = sum(event["name"].startswith("execute_") and event.get("cat") == "user_annotation" for event in events)
    if not steps:
        raise ValueError(f"{trace} has no step")
    there = {event.get("cat") for event in events}
    kinds = ON_DEVICE if there & set(ON_DEVICE) else ON_HOST
    number, took = Counter(), Counter()
    for event in events:
        if event.get("cat") in kinds:
            number[event["name"]] += 1
            took[event["name"]] += event["dur"]
    return {
        "batch": batch, "steps": steps, "kinds": kinds, "operations": number.total() / steps,
        "host_operations": sum(event.get("cat") in ON_HOST for event in events) / steps,
        "microseconds": took.total() / steps,
        "top": [
            {"name": name[:100], "number": number[name] / steps, "microseconds": total / steps}
            for name, total in took.most_common(TOP)
        ],
    }  # fmt: skip


if __name__ == "__main__":
    run(measure)
