#!/usr/bin/env bash
# All benchmarks of latents on one GPU, in the shape of Qwen3-VL-2B with random weights, bf16, about 10 minutes.
#   bash benchmarks/gpu/run.sh [--cpu] [--out DIR]
# --cpu: the same scripts on a tiny checkpoint in fp32, which only shows that they work.
# DIR/NAME.json is what each measured, DIR/NAME.log what it printed, DIR/machine.json what it ran on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

form=gpu out=runs/benchmarks
while [ $# -gt 0 ]; do
    case "$1" in
    --cpu) form=cpu ;;
    --out) out=$2 && shift ;;
    *) echo "run.sh: unknown argument $1" >&2 && exit 1 ;;
    esac
    shift
done
mkdir -p "$out"
python=.venv/bin/python
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_LOGGING_LEVEL=ERROR RAY_USAGE_STATS_ENABLED=0

if [ $form = gpu ]; then
    shape=2b dtype=bfloat16 packed=--packed
    engine='{"gpu_memory_utilization": 0.4}'
    overrides='["actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2"]'
    rollout="--batch 64 256 --rounds 5" decode="--rounds 2 --alone 1 --max-tokens 64"
    actor="--length 1024" transport="--hidden 2048 --dtype bfloat16"
else
    export OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0
    shape=tiny dtype=float32 packed= engine='{}' overrides='[]'
    rollout="--batch 2 --rounds 1 --max-tokens 24" decode="--batch 4 --rounds 1 --alone 1 --max-tokens 24"
    actor="--rows 2 --length 64 --rounds 1" transport="--answers 4 --latents 2 --rounds 1"
fi

# measure NAME COMMAND...: the last line printed is the result
measure() {
    local name=$1 started=$SECONDS
    shift
    "$python" "$@" >"$out/$name.log" 2>&1 || { tail -n 40 "$out/$name.log" >&2; exit 1; }
    grep '^{' "$out/$name.log" | tail -n 1 >"$out/$name.json"
    echo "$name: $((SECONDS - started)) s"
}

rm -rf "$out/checkpoint"
"$python" benchmarks/gpu/checkpoint.py --out "$out/checkpoint" --shape $shape
measure machine benchmarks/gpu/machine.py
# shellcheck disable=SC2086  the settings are words
{
    measure parity benchmarks/gpu/parity.py --model "$out/checkpoint" --dtype $dtype $packed --engine "$engine" --overrides "$overrides"
    measure rollout benchmarks/rollout.py --model "$out/checkpoint" --dtype $dtype $rollout
    measure decode_vs_hf benchmarks/decode_vs_hf.py --model "$out/checkpoint" --dtype $dtype $decode --engine "$engine"
    measure actor_step benchmarks/actor_step.py --model "$out/checkpoint" $packed $actor --overrides "$overrides"
    measure transport benchmarks/transport.py $transport
}
