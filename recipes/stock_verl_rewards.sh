#!/usr/bin/env bash
# Our rewards in a stock verl job: verl's own trainer and agent loop, a text model; here a tiny one on a CPU.
#   bash recipes/stock_verl_rewards.sh [--run DIR] [--steps N] [--judge URL MODEL] [--group-rewards] [hydra overrides...]
# In a job of your own, the lines under "rewards" are all there is to add. --group-rewards adds R_ctr and R_div: nothing for
# a text model; for a latent one with its rollout (future_l1_verl/rl/stock_group_rewards.py).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

run=runs/stock-verl-rewards steps=2 judge=() group=()
while [ $# -gt 0 ]; do
    case "$1" in
    --run) run=$2 && shift 2 ;;
    --steps) steps=$2 && shift 2 ;;
    --judge)
        kwargs=+reward.custom_reward_function.reward_kwargs.judge
        judge=("$kwargs.url=$(quoted "$2")" "$kwargs.model=$(quoted "$3")" "$kwargs.mode=judge_only") && shift 3
        ;;
    --group-rewards)
        manager=future_l1_verl.rl.stock_group_rewards.GroupRewardManager
        group=("+actor_rollout_ref.rollout.agent.agent_loop_manager_class=$manager") && shift
        ;;
    *) break ;;
    esac
done

bash recipes/env.sh cpu
python=.venv/bin/python run=$(realpath -m -- "$run")
mkdir -p "$run"
"$python" -m future_l1_verl.modeling.tiny --text --out "$run/model"
"$python" -m data_prep.sums --out "$run/sums.parquet"

# settings of the libraries underneath
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_LOGGING_LEVEL=ERROR RAY_USAGE_STATS_ENABLED=0 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0

rewards=(
    reward.custom_reward_function.path=pkg://future_l1_verl.rewards.score
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.repetition=0.1
    +reward.custom_reward_function.reward_kwargs.overlong=1.0
    +reward.custom_reward_function.reward_kwargs.tokenizer="$(quoted "$run/model")"
    +reward.custom_reward_function.reward_kwargs.max_response_length=32
    +reward.custom_reward_function.reward_kwargs.overlong_buffer=16
    "${judge[@]}" "${group[@]}"
)
cpu=(
    "hydra.searchpath=[pkg://future_l1_verl.config.rl]" +platform=cpu
    actor_rollout_ref.model.external_lib=future_l1_verl.platform.verl_engine
)

exec "$python" -m verl.trainer.main_ppo "${cpu[@]}" "${rewards[@]}" \
    actor_rollout_ref.model.path="$(quoted "$run/model")" \
    data.train_files="$(quoted "$run/sums.parquet")" data.val_files="$(quoted "$run/sums.parquet")" data.train_batch_size=4 \
    data.max_prompt_length=256 data.max_response_length=32 data.dataloader_num_workers=0 \
    algorithm.adv_estimator=grpo \
    actor_rollout_ref.actor.ppo_mini_batch_size=4 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16 \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=4 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16 \
    actor_rollout_ref.rollout.max_model_len=512 actor_rollout_ref.rollout.max_num_seqs=16 actor_rollout_ref.rollout.max_num_batched_tokens=2048 \
    reward.num_workers=1 \
    trainer.logger=[console] trainer.validation_data_dir="$(quoted "$run/validation")" trainer.default_local_dir="$(quoted "$run/checkpoints")" \
    data.val_max_samples=8 trainer.val_before_train=false trainer.test_freq="$steps" trainer.save_freq=-1 trainer.resume_mode=disable \
    trainer.total_training_steps="$steps" \
    "$@"
