"""``future-l1 doctor``: checks what a run needs, one thing after the other."""

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from future_l1_verl.config.attention import installed_attention
from future_l1_verl.versions import SETS, UnsupportedVersion, require

GLIBC = (2, 35)
"""The oldest glibc that the packages in recipes/locks/cuda.txt run on."""


class Unfit(Exception):
    """Something does not work; the message says what to do."""


@dataclass(frozen=True)
class Asked:
    platform: str
    model: Path | None
    ray: str | None
    judge: str | None


def python(asked: Asked) -> str:
    glibc = platform.libc_ver()[1]
    if asked.platform == "cuda" and tuple(int(part) for part in glibc.split(".")[:2]) < GLIBC:
        raise Unfit(f"glibc {glibc}: the CUDA packages need {'.'.join(map(str, GLIBC))}; use a container of a newer system")
    return f"{platform.python_version()} in {sys.prefix}, glibc {glibc}"


def versions(asked: Asked) -> str:
    try:
        name = require("vllm", "transformers")
        require(*SETS[name])
    except UnsupportedVersion as error:
        raise Unfit(str(error)) from error
    found = SETS[name] | {"torch": version("torch")}
    return f"{name}: {', '.join(f'{package} {number}' for package, number in found.items())}"


def driver(asked: Asked) -> str:
    """Compares the CUDA version that the driver supports with the one that torch was built for."""
    import torch

    if asked.platform == "cpu":
        return "none is needed for platform=cpu"
    found = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    except OSError as error:
        raise Unfit(
            "no NVIDIA driver: install one, start the container with --gpus all, or look with --platform cpu"
        ) from error
    wanted = torch.version.cuda
    if wanted is None:
        raise Unfit("this torch was built without CUDA: bash recipes/env.sh cuda")
    serves = (found.value // 1000, found.value % 1000 // 10)
    if serves < tuple(int(part) for part in wanted.split(".")):
        raise Unfit(f"the driver serves CUDA {serves[0]}.{serves[1]}, torch was built for {wanted}: update it to 580 or newer")
    return f"serves CUDA {serves[0]}.{serves[1]}, torch was built for {wanted}"


def device(asked: Asked) -> str:
    import torch

    if asked.platform == "cpu":
        return f"{os.cpu_count()} CPU cores"
    if not torch.cuda.is_available():
        raise Unfit(
            "torch sees no GPU: see `nvidia-smi` and CUDA_VISIBLE_DEVICES; a driver on a machine without GPUs needs none"
        )
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{each.name} {each.total_memory / 2**30:.0f} GiB" for each in found)


def attention(asked: Asked) -> str:
    """Runs the kernel that the config trees choose on the device."""
    import torch

    from future_l1_verl.modeling.attention import KERNELS
    from future_l1_verl.modeling.packing import Packing

    name = "sdpa" if asked.platform == "cpu" else installed_attention()
    packing = Packing(prompts=(5,), answers=(3, 2), questions=(0, 0), device=asked.platform)
    dtype = torch.float32 if asked.platform == "cpu" else torch.bfloat16
    try:
        rows = torch.ones(packing.asked, 2, 64, dtype=dtype, device=asked.platform)
        KERNELS[name](rows, rows, rows, packing.prompt_segments, 0.1)
    except (ImportError, RuntimeError) as error:
        said = str(error).splitlines()[0].split(". ")[0]
        raise Unfit(f"{name} does not run here ({said}): bash recipes/env.sh cuda says what it needs") from error
    return name


def ray_cluster(asked: Asked) -> str:
    """Joins the cluster that a recipe would join: that of ``--ray`` or RAY_ADDRESS."""
    address = asked.ray or os.environ.get("RAY_ADDRESS")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray/auth_token"))
    if address is None:
        return "no address is given (--ray, RAY_ADDRESS): a recipe starts a Ray of its own"
    if token.exists() and os.environ.get("RAY_AUTH_MODE") != "token":
        raise Unfit(f"there is a token ({token}), which Ray uses only when it is told: RAY_AUTH_MODE=token")
    try:
        done = subprocess.run([sys.executable, "-c", _RAY, address], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise Unfit(f"{address} does not answer within 60 s: is it HOST:6379 of `ray start --head`, and reachable?") from error
    if done.returncode:
        raise Unfit(f"{address}: {done.stderr.strip().splitlines()[-1]}")
    nodes, gpus = done.stdout.split()[-2:]
    return f"{address}: {nodes} nodes, {float(gpus):.0f} GPUs"


def judge(asked: Asked) -> str:
    from future_l1_verl.cli import main

    if asked.judge is None:
        return "none is given (--judge): open answers are judged by rule alone"
    if main(["judge", "--check", asked.judge]):
        raise Unfit(f"future-l1 judge --check {asked.judge} says what is wrong with it")
    return f"{asked.judge} is fit"


def engine(asked: Asked) -> str:
    """Decodes a token with a vLLM engine with active spans, on the given checkpoint or a tiny one."""
    with tempfile.TemporaryDirectory() as made:
        if asked.model is None:
            from transformers.utils.logging import disable_progress_bar

            from future_l1_verl.toy import tiny

            disable_progress_bar()
            tiny.build(Path(made))
        command = [sys.executable, "-c", _ENGINE, str(asked.model or made)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise Unfit(f"the engine ended with: {said[-1].strip()}")
    (found,) = (line.removeprefix("doctor: ") for line in done.stdout.splitlines() if line.startswith("doctor: "))
    if found != asked.platform:
        raise Unfit(f"vLLM runs on {found}, not on {asked.platform}: bash recipes/env.sh {asked.platform}")
    return f"on {found}: latent spans are in force, and a token was decoded"


# Each in a separate process, so that everything that Ray and vLLM start ends with it.
_RAY = """
import sys
import ray

ray.init(sys.argv[1], logging_level="error")
print(len(ray.nodes()), ray.cluster_resources().get("GPU", 0))
"""
_ENGINE = """
import sys
from vllm import LLM, SamplingParams
from vllm.platforms import current_platform
from future_l1_verl.decoding.vllm import engine_arguments, require_live
from future_l1_verl.platform.vllm_engine import engine_defaults

if __name__ == "__main__":
    # vLLM 0.32 computes in bfloat16 with instructions that not every CPU has.
    dtype = "float32" if current_platform.is_cpu() else "auto"
    small = dict(dtype=dtype, max_model_len=512, gpu_memory_utilization=0.3, kv_cache_memory_bytes=2**28)
    llm = LLM(sys.argv[1], **small, **engine_arguments(sys.argv[1]), **engine_defaults())
    require_live(llm)
    (output,) = llm.generate([{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=1), use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 1
    print("doctor:", current_platform.device_type)
"""

CHECKS: tuple[Callable[[Asked], str], ...] = (python, versions, driver, device, attention, ray_cluster, judge, engine)


def examine(asked: Asked) -> int:
    """Prints a line for each check; returns 0 if everything works, 1 if not."""
    unfit = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            print(f"ok   {name:12} {check(asked)}", flush=True)
        except (Unfit, PackageNotFoundError, ModuleNotFoundError) as error:
            unfit += 1
            print(f"FIX  {name:12} {error}", flush=True)
    return 1 if unfit else 0


if __name__ == "__main__":
    from future_l1_verl.cli import main

    sys.argv.insert(1, "doctor")
    sys.exit(main())
