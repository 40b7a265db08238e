"""The environment that torch and vLLM are started in; and that no test fails because a machine is busy."""

import os

from hypothesis import HealthCheck, settings

# Read when torch is loaded, and by vLLM in this process and in those it starts.
os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="1",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    TORCHDYNAMO_DISABLE="1",  # vLLM compiles small functions of its sampler, in every process anew
)

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
