"""Checkpoints that bring code: classes of their own, pickled weights, a chat template that calls the system."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jinja2
import torch
from answers import tiny_model
from decoding_harness import in_process
from outcome import Outcome
from test_untrusted import Payload
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm_server import SMALL, serving

from future_l1_verl.evaluation.inspection.nearest import Tower
from future_l1_verl.modeling.checkpoint import check_checkpoint
from future_l1_verl.modeling.export import export
from future_l1_verl.modeling.prepare import prepare

DONE = "a checkpoint that brings classes of its own, pickled weights or a template that calls the system, to all that loads one"
UNIT = "loads"
CLASSES = ("AutoConfig", "AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor")
REASONS = re.compile(
    "contains custom code|Weights only load failed|has neither model.safetensors|is unsafe|400 Bad Request"
    "|Engine core initialization failed"
)
CHAT: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "what happens next?"}]}]


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def code(model: Path, marker: Path, *files: str) -> None:
    """Names a module of the checkpoint's own in ``files``; importing it leaves a mark."""
    (model / "own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own: ...\n")
    for file in files:
        change(model / file, auto_map={name: "own.Own" for name in CLASSES})


def own_classes(model: Path, marker: Path) -> None:
    code(model, marker, "config.json")


def own_architecture(model: Path, marker: Path) -> None:
    code(model, marker, "config.json")
    change(model / "config.json", model_type="own", architectures=["Own"])


def own_processor(model: Path, marker: Path) -> None:
    code(model, marker, "tokenizer_config.json", "processor_config.json")
    change(model / "tokenizer_config.json", tokenizer_class="Own")


def pickled_weights(model: Path, marker: Path) -> None:
    (model / "model.safetensors").unlink()
    pickled_beside(model, marker)


def pickled_beside(model: Path, marker: Path) -> None:
    torch.save({"weight": Payload(marker)}, model / "pytorch_model.bin")


def template(model: Path, marker: Path) -> None:
    call = f"{{{{ cycler.__init__.__globals__.os.system('touch {marker}') }}}}"
    (model / "chat_template.jinja").write_text(call + (model / "chat_template.jinja").read_text())


def executed(model: Path) -> None:
    """Runs by hand whatever code there is in a checkpoint."""
    if (model / "own.py").exists():
        runpy.run_path(str(model / "own.py"))
    if (model / "pytorch_model.bin").exists():
        torch.load(model / "pytorch_model.bin", weights_only=False)
    jinja2.Environment().from_string((model / "chat_template.jinja").read_text().partition("{%")[0]).render()


def actor(model: Path, out: Path) -> None:
    """As the actor of both stages, and the tiny model's own training."""
    AutoModelForImageTextToText.from_pretrained(model)


def verl(model: Path, out: Path) -> None:
    """As both stages describe their model to the workers."""
    from verl.workers.config import HFModelConfig

    HFModelConfig(path=str(model))


def prompt(model: Path, out: Path) -> None:
    """As evaluation and stages make prompts."""
    AutoProcessor.from_pretrained(model).apply_chat_template(CHAT, tokenize=False)


def engine(model: Path, out: Path) -> None:
    """As evaluation and rollout."""
    with in_process(str(model)) as llm:
        llm.chat(CHAT, use_tqdm=False)


def server(model: Path, out: Path) -> None:
    with serving(str(model), *SMALL) as url:
        body = {"model": str(model), "messages": CHAT, "max_tokens": 4}
        httpx.post(f"{url}/chat/completions", json=body, timeout=60).raise_for_status()


KINDS = (own_classes, own_architecture, own_processor, pickled_weights, pickled_beside, template)
LOADERS: dict[str, Callable[[Path, Path], Any]] = {
    "checks": lambda model, out: check_checkpoint(model),
    "prepare": lambda model, out: prepare(model, out, 4),
    "export": export,
    "tower": lambda model, out: Tower(model),
    **{loader.__name__: loader for loader in (actor, verl, prompt, engine, server)},
}
CASES = [(kind, name) for name in LOADERS for kind in KINDS]


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    tiny_model(work)

    def once(number: int) -> Outcome:
        kind, name = CASES[number % len(CASES)]
        model, out, marker = work / kind.__name__, work / "out", work / "marker"
        for left in (model, out):
            shutil.rmtree(left, ignore_errors=True)
        marker.unlink(missing_ok=True)
        shutil.copytree(work / "model", model)
        kind(model, marker)
        began = time.monotonic()
        after = loaded(LOADERS[name], model, out)
        print(f"{kind.__name__}, {name}: {after}")
        return Outcome(1, 0, int(marker.exists()), time.monotonic() - began, after.partition(":")[0])

    for kind in KINDS:  # they do work
        model, marker = work / "control", work / "control-marker"
        shutil.copytree(work / "model", model)
        kind(model, marker)
        executed(model)
        marker.unlink()
        shutil.rmtree(model)
    with Path(os.devnull).open() as sys.stdin:  # transformers asks whether to run the code; nobody says yes
        yield once


def loaded(loader: Callable[[Path, Path], Any], model: Path, out: Path) -> str:
    try:
        loader(model, out)
    # What refuses is transformers, vLLM, jinja or ours, in an error of its own.
    except Exception as error:
        reason = REASONS.search(str(error))
        return f"refused: {reason.group()}" if reason else f"failed otherwise: {error!r}"
    return "loaded without the code"
