#!/usr/bin/env bash
# Our rewards in a stock verl job: verl's own trainer and agent loop, a text model; here a tiny one on a CPU, which learns to add.
#   bash recipes/stock_verl_rewards.sh [--run DIR] [--steps N] [--judge URL MODEL] [KEY=VALUE...]
# In a job of your own, the lines under "rewards" are all there is to add.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

run=runs/stock-verl-rewards steps=20 judge=()
while [ $# -gt 0 ]; do
    case "$1" in
    --run) run=$2 && shift 2 ;;
    --steps) steps=$2 && shift 2 ;;
    --judge)
        kwargs=+reward.custom_reward_function.reward_kwargs.judge
        judge=("$kwargs.url=$(quoted "$2")" "$kwargs.model=$(quoted "$3")" "$kwargs.mode=judge_only") && shift 3
        ;;
    *) break ;;
    esac
done

bash recipes/env.sh cpu
python=.venv/bin/python run=$(realpath -m -- "$run")
mkdir -p "$run"

source recipes/large_pages.sh
# settings of the libraries underneath
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
export VLLM_LOGGING_LEVEL=ERROR RAY_USAGE_STATS_ENABLED=0 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0
# a CPU for verl's driver; +platform=cpu tells Ray's processes
export VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=future_l1_verl.platform.verl_cpu

# Additions, and a model that knows the form of a reply and is right about a third of them.
"$python" -m data_prep.toy.sums --out "$run/data"
[ -d "$run/model" ] || "$python" -m future_l1_verl.toy.tiny_text --out "$run/model" --data "$run/data/taught.parquet"

rewards=(
    reward.custom_reward_function.path=pkg://future_l1_verl.rewards.adapters.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.repetition=0.1
    +reward.custom_reward_function.reward_kwargs.overlong=1.0
    +reward.custom_reward_function.reward_kwargs.tokenizer="$(quoted "$run/model")"
    +reward.custom_reward_function.reward_kwargs.max_response_length=24
    +reward.custom_reward_function.reward_kwargs.overlong_buffer=12
    "${judge[@]}"
)
cpu=(
    "hydra.searchpath=[pkg://future_l1_verl.config.rl]" +platform=cpu
    actor_rollout_ref.model.external_lib=future_l1_verl.platform.verl_engine
    +ray_kwargs.ray_init.runtime_env.worker_process_setup_hook=future_l1_verl.collector.spare_libraries
)

"$python" -m verl.trainer.main_ppo "${cpu[@]}" "${rewards[@]}" \
    actor_rollout_ref.model.path="$(quoted "$run/model")" \
    data.train_files="$(quoted "$run/data/train.parquet")" data.val_files="$(quoted "$run/data/val.parquet")" data.train_batch_size=16 \
    data.max_prompt_length=32 data.max_response_length=24 data.dataloader_num_workers=0 \
    algorithm.adv_estimator=grpo \
    actor_rollout_ref.actor.ppo_mini_batch_size=16 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=128 actor_rollout_ref.actor.optim.lr=5e-4 \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=128 \
    actor_rollout_ref.rollout.max_model_len=64 actor_rollout_ref.rollout.max_num_seqs=128 actor_rollout_ref.rollout.max_num_batched_tokens=4096 \
    actor_rollout_ref.rollout.val_kwargs.do_sample=true actor_rollout_ref.rollout.val_kwargs.temperature=1 actor_rollout_ref.rollout.val_kwargs.n=8 \
    reward.num_workers=1 \
    trainer.logger=[console] trainer.validation_data_dir="$(quoted "$run/validation")" trainer.default_local_dir="$(quoted "$run/checkpoints")" \
    trainer.val_before_train=true trainer.test_freq="$steps" trainer.save_freq=-1 trainer.resume_mode=disable \
    trainer.total_epochs=1000 trainer.total_training_steps="$steps" \
    "$@" 2>&1 | tee "$run/log"
echo "score by step: $(grep -oE 'critic/score/mean:[^ ]*' "$run/log" | grep -oE '[-0-9.]+$' | cut -c1-5 | paste -sd ' ')"
