#!/usr/bin/env bash
# All benchmarks of latents on one GPU, in the shape of Qwen3-VL-2B with random weights, bf16, meant for about 10
# minutes; then four steps of stage 2.
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
mkdir -p "$out" && out=$(realpath "$out")  # Ray's workers have working directories of their own
python=.venv/bin/python
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_LOGGING_LEVEL=ERROR RAY_USAGE_STATS_ENABLED=0

if [ $form = gpu ]; then
    shape=2b dtype=bfloat16
    engine='{"gpu_memory_utilization": 0.4}'
    overrides='["actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2"]'
    rollout="--batch 64 256 --rounds 5" decode="--rounds 2 --alone 1 --max-tokens 64"
    actor="--length 1024" transport="--hidden 2048 --dtype bfloat16"
    platform=cuda batch=16 n=8 response=512 at_once=128
else
    export OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0
    shape=tiny dtype=float32 engine='{}' overrides='[]'
    rollout="--batch 2 --rounds 1 --max-tokens 24" decode="--batch 4 --rounds 1 --alone 1 --max-tokens 24"
    actor="--rows 2 --length 64 --rounds 1" transport="--answers 4 --latents 2 --rounds 1"
    platform=cpu batch=4 n=2 response=24 at_once=8
fi

# measure NAME COMMAND...: the last line printed is the result
measure() {
    local name=$1 started=$SECONDS
    shift
    "$python" "$@" >"$out/$name.log" 2>&1 || { tail -n 40 "$out/$name.log" >&2; exit 1; }
    grep '^{' "$out/$name.log" | tail -n 1 >"$out/$name.json"
    echo "$name: $((SECONDS - started)) s"
}

rm -rf "$out"/{checkpoint,data,tensorboard,stage_2}
"$python" benchmarks/gpu/checkpoint.py --out "$out/checkpoint" --shape $shape
measure machine benchmarks/gpu/machine.py
# shellcheck disable=SC2086  the settings are words
{
    measure parity benchmarks/gpu/parity.py --model "$out/checkpoint" --dtype $dtype --engine "$engine" --overrides "$overrides"
    measure rollout benchmarks/rollout.py --model "$out/checkpoint" --dtype $dtype $rollout
    measure decode_vs_hf benchmarks/decode_vs_hf.py --model "$out/checkpoint" --dtype $dtype $decode --engine "$engine"
    measure actor_step benchmarks/actor_step.py --model "$out/checkpoint" $actor --overrides "$overrides"
    measure transport benchmarks/transport.py $transport
}

# A random model answers nothing right: no group is dropped.
"$python" -m data_prep.synthetic --out "$out/data" --clips 32 --test-clips 4 --seed 0 >"$out/stage_2.log" 2>&1
tokens=$((512 + response))
TENSORBOARD_DIR=$out/tensorboard "$python" -m future_l1_verl.rl platform=$platform actor_rollout_ref.model.path="$out/checkpoint" \
    data.train_files="$out/data/rl_train.parquet" data.val_files="$out/data/rl_test.parquet" data.train_batch_size=$batch \
    data.max_prompt_length=512 data.max_response_length=$response data.system_prompt=null algorithm.filter_groups.enable=false \
    actor_rollout_ref.actor.ppo_mini_batch_size=$batch actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=$((8 * tokens)) actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=$((16 * tokens)) \
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=$((16 * tokens)) actor_rollout_ref.rollout.n=$n \
    actor_rollout_ref.rollout.max_model_len=$tokens actor_rollout_ref.rollout.max_num_seqs=$at_once \
    actor_rollout_ref.rollout.max_num_batched_tokens=$((8 * tokens)) actor_rollout_ref.rollout.gpu_memory_utilization=0.4 \
    actor_rollout_ref.actor.fsdp_config.param_offload=true actor_rollout_ref.actor.fsdp_config.optimizer_offload=true \
    trainer.n_gpus_per_node=1 trainer.val_before_train=false trainer.test_freq=-1 trainer.save_freq=-1 trainer.total_training_steps=4 \
    trainer.default_local_dir="$out/stage_2" >>"$out/stage_2.log" 2>&1 || { tail -n 40 "$out/stage_2.log" >&2; exit 1; }
measure rl_step benchmarks/rl_step.py stage_2="$out/tensorboard" --out "$out/rl_step.png"
