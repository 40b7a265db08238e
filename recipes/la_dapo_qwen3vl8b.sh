#!/usr/bin/env bash
# Stage 2 of the paper on Qwen3-VL-8B, GPUs of 80 GB. Called by la_dapo_futurebench.sh and la_dapo_twiff.sh, with --questions,
# --every and, for open answers, --judged. Checkpoints come to DIR/global_step_N.
#   bash recipes/la_dapo_futurebench.sh --model DIR --data FILE --val FILE --out DIR [--ablation NAME]
#                                       [--pools colocated|colocated_async|separate] [--nodes N] [--gpus N]
#                                       [--judge-url URL --judge-model NAME] [--dry-run] [KEY=VALUE...]
# --model: stage 1's checkpoint after `future-l1 export`; for a text-only ablation the control's.
# --ablation: a file of future_l1_verl/config/ablation.
# On more than one node it runs on one of them, on a Ray that spans all (slurm.sh, submit.sh), with files that all of them see;
# make the environment once before. Started again it continues. --dry-run prints the resolved config and ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

# what to run
model=MODEL data=DATA val=VAL out=OUT questions= ablation=la_dapo judged= judge_url=null judge_model=null dry_run=() overrides=()
# where
build=cuda pools=colocated nodes=1 gpus=8
# how long, in tokens: the paper's. No row is longer than both together, so a micro-batch has room for the longest, or for
# some three questions with their eight answers each.
prompt=8192 response=2048
# how the rollout uses its GPUs: the whole model on each, as many prompts in a step as fit two of the longest
tensor_parallel=1 batched_tokens=16384
# how often; a checkpoint takes some 130 GB
every=10

while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=(--cfg job --resolve) ;;
    --judged) judged=yes ;;
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --questions) questions=$2 && shift ;;
    --every) every=$2 && shift ;;
    --model) model=$2 && shift ;;
    --data) data=$2 && shift ;;
    --val) val=$2 && shift ;;
    --out) out=$2 && shift ;;
    --ablation) ablation=$2 && shift ;;
    --pools) pools=$2 && shift ;;
    --nodes) nodes=$2 && shift ;;
    --gpus) gpus=$2 && shift ;;
    --judge-url) judge_url=$(quoted "$2") && shift ;;
    --judge-model) judge_model=$(quoted "$2") && shift ;;
    --*) fail "unknown argument $1; see --help" ;;
    platform=cpu) build=cpu overrides+=("$1") ;;
    *) overrides+=("$1") ;;
    esac
    shift
done
[ -n "$questions" ] || fail "start la_dapo_futurebench.sh or la_dapo_twiff.sh"
[ -f "future_l1_verl/config/ablation/$ablation.yaml" ] && [ "${ablation#_}" = "$ablation" ] ||
    fail "no ablation $ablation in future_l1_verl/config/ablation"

case "$pools" in
colocated | colocated_async)
    # Actor and reference are on the CPU while the rollout has the GPUs, and the other way round.
    devices=(trainer.nnodes="$nodes" trainer.n_gpus_per_node="$gpus") offload=true rollout_memory=0.7
    ;;
separate)
    # Half of the devices for the actor, a quarter each for rollout and reference: of each answer the actor makes a forward and
    # a training pass, the reference a forward pass, and the rollout's tokens wait for its memory more than for its arithmetic.
    if [ "$nodes" -eq 1 ]; then
        [ $((gpus % 4)) -eq 0 ] || fail "--pools separate on one node divides its GPUs by four, not $gpus"
        half=(1 $((gpus / 2))) quarter=(1 $((gpus / 4)))
    else
        [ $((nodes % 4)) -eq 0 ] || fail "--pools separate needs one node or a multiple of four, not $nodes"
        half=($((nodes / 2)) "$gpus") quarter=($((nodes / 4)) "$gpus")
    fi
    devices=(
        trainer.nnodes="${half[0]}" trainer.n_gpus_per_node="${half[1]}"
        actor_rollout_ref.rollout.nnodes="${quarter[0]}" actor_rollout_ref.rollout.n_gpus_per_node="${quarter[1]}"
        reference_pool.nnodes="${quarter[0]}" reference_pool.n_gpus_per_node="${quarter[1]}"
    ) offload=false rollout_memory=0.85
    ;;
*) fail "--pools is colocated, colocated_async or separate, not $pools" ;;
esac

if [ ${#dry_run[@]} -eq 0 ]; then
    for needed in model:MODEL data:DATA val:VAL out:OUT; do
        name=${needed%:*}
        [ "${!name}" != "${needed#*:}" ] || fail "--model, --data, --val and --out are needed"
    done
    [ -z "$judged" ] || { [ "$judge_url" != null ] && [ "$judge_model" != null ]; } ||
        fail "the answers are open: --judge-url and --judge-model are needed"
    environment "$build" "${overrides[@]}"
    # Ray's workers have working directories of their own.
    for name in model data val out; do printf -v "$name" %s "$(realpath -m -- "${!name}")"; done
    # a setting of verl's
    export TENSORBOARD_DIR=$out/tensorboard
fi

exec .venv/bin/python -m future_l1_verl.rl "${dry_run[@]}" ablation="$ablation" pools="$pools" "${devices[@]}" \
    actor_rollout_ref.model.path="$(quoted "$model")" data.train_files="$(quoted "$data")" data.val_files="$(quoted "$val")" \
    trainer.default_local_dir="$(quoted "$out")" \
    judge.url="$judge_url" judge.model="$judge_model" \
    data.max_prompt_length="$prompt" data.max_response_length="$response" \
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=$((2 * (prompt + response))) \
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=$((2 * (prompt + response))) \
    actor_rollout_ref.actor.fsdp_config.param_offload="$offload" actor_rollout_ref.actor.fsdp_config.optimizer_offload="$offload" \
    actor_rollout_ref.rollout.tensor_model_parallel_size="$tensor_parallel" \
    actor_rollout_ref.rollout.gpu_memory_utilization="$rollout_memory" \
    actor_rollout_ref.rollout.max_model_len=$((prompt + response)) \
    actor_rollout_ref.rollout.max_num_batched_tokens="$batched_tokens" \
    trainer.experiment_name="${ablation}_$questions" trainer.save_freq="$every" trainer.test_freq="$every" \
    "${overrides[@]}"
