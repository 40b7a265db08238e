#!/usr/bin/env bash
# Sets up the serve set of versions and tests what runs on it: on vLLM's V1 model runner, which a CPU has, and on V2, whose kernels
# Triton's interpreter runs here, slowly. `--light`: of V2 a few minutes, as in CI. Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
light=''
if [ "${1:-}" = --light ]; then light=yes && shift; fi
bash recipes/env.sh serve
source recipes/large_pages.sh
run() { .venv-serve/bin/python -m pytest --numprocesses 1 "$@"; }
if [ -n "$light" ]; then
    run --model-runner v2 tests/decoding/test_vllm.py -k "preempted_requests or control_without_injection" "$@"
    exit
fi
run --model-runner v1 tests/decoding tests/evaluation tests/modeling tests/data_prep tests/latents tests/data "$@"
run --timeout 3600 --model-runner v2 tests/decoding/test_{vllm,vllm_interventions,tensor_parallel,qwen2_5_vl,settings,vllm_selection}.py "$@"
