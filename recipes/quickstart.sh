#!/usr/bin/env bash
# The whole loop on a laptop: environment, data, a tiny Qwen3-VL, SFT, LA-DAPO, evaluation before and after, a report.
#   bash recipes/quickstart.sh [--clips synthetic|real] [--run DIR] [--fresh] [--seed N]
#                              [--pretrain-steps N] [--sft-steps N] [--rl-steps N]
# Running it again continues where it stopped; --fresh starts over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

# what to run
clips=synthetic run= fresh= seed=1
# how long; the defaults depend on the clips
pretrain_steps= sft_steps= rl_steps=

while [ $# -gt 0 ]; do
    case "$1" in
    --clips) clips=$2 && shift ;;
    --run) run=$2 && shift ;;
    --fresh) fresh=yes ;;
    --seed) seed=$2 && shift ;;
    --pretrain-steps) pretrain_steps=$2 && shift ;;
    --sft-steps) sft_steps=$2 && shift ;;
    --rl-steps) rl_steps=$2 && shift ;;
    *) fail "unknown argument $1; see the first lines of recipes/quickstart.sh" ;;
    esac
    shift
done
case "$clips" in
synthetic) : "${pretrain_steps:=350}" "${sft_steps:=200}" "${rl_steps:=15}" && sft_batch=32 rl_batch=16 ;;
# A few steps on real files: there is nothing to be learnt from a dozen of them.
real) : "${pretrain_steps:=0}" "${sft_steps:=10}" "${rl_steps:=3}" && sft_batch=8 rl_batch=4 ;;
*) fail "--clips is synthetic or real, not $clips" ;;
esac
run=$(realpath -m -- "${run:-runs/quickstart-$clips-seed$seed}")
if [ -n "$fresh" ] && [ -e "$run" ]; then
    [ -f "$run/logs/arguments" ] || fail "$run is not the folder of a quickstart run; it is not deleted"
    rm -rf "$run"
fi
mkdir -p "$run/logs"
arguments="--clips $clips --seed $seed --pretrain-steps $pretrain_steps --sft-steps $sft_steps --rl-steps $rl_steps"
[ ! -f "$run/logs/arguments" ] || [ "$(cat "$run/logs/arguments")" = "$arguments" ] ||
    fail "$run was made with $(cat "$run/logs/arguments"); use the same arguments, --fresh or another --run"
echo "$arguments" >"$run/logs/arguments"

bash recipes/env.sh cpu
python=.venv/bin/python

# settings of the libraries underneath; threads that wait leave their core to other jobs
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_LOGGING_LEVEL=ERROR RAY_USAGE_STATS_ENABLED=0 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0

# stage NAME FILTER COMMAND...: runs once. All output goes to a log; what FILTER lets through goes to the screen.
stage() {
    local name=$1 filter=$2 log=$run/logs/$1.log started=$SECONDS
    shift 2
    if [ -f "$run/logs/$name.done" ]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name"
    if ! "$@" 2>&1 | tee -a "$log" | "$filter"; then
        tail -n 40 "$log" >&2
        fail "$name failed; its log is $log"
    fi
    touch "$run/logs/$name.done"
    echo "== $name: $((SECONDS - started)) s"
}
everything() { cat; }
steps() { "$python" -m future_l1_verl.evaluation.progress; }
# Without the warnings of the libraries underneath.
results() { grep --line-buffered -vE 'WARN|W1|\[transformers\]|^\(EngineCore' || true; }

# Stages that cannot continue what an earlier run left start over.
for name in data tiny; do [ -f "$run/logs/$name.done" ] || rm -rf "${run:?}/$name"; done
if [ "$clips" = synthetic ]; then
    stage data everything "$python" -m data_prep.synthetic --out "$run/data" --seed "$seed"
else
    stage data everything "$python" -m data_prep.real_clips --out "$run/data"
fi
stage tiny results "$python" -m future_l1_verl.modeling.tiny --out "$run/tiny" --data "$run/data" --seed "$seed" --pretrain "$pretrain_steps"

evaluate() { # NAME CHECKPOINT [ARGUMENTS...]
    stage "evaluate-$1" results "$python" -m future_l1_verl.evaluation run --task synthetic --model "$2" \
        --data "$run/data/test.parquet" --out "$run/evaluation/$1" --max-model-len 1024 --dtype float32 --system-prompt "" "${@:3}"
}
evaluate untrained "$run/tiny"

sft=$run/sft/global_step_$sft_steps/huggingface
stage sft steps env TENSORBOARD_DIR="$run/tensorboard/sft" "$python" -m future_l1_verl.sft platform=cpu \
    model.path="$(quoted "$run/tiny")" \
    data.train_files="$(quoted "$run/data/train.parquet")" data.val_files="$(quoted "$run/data/val.parquet")" data.val_max_samples=128 \
    data.train_batch_size="$sft_batch" data.micro_batch_size_per_gpu="$sft_batch" data.use_dynamic_bsz=false data.max_length=1024 data.num_workers=1 \
    data.system_prompt=null \
    latent.weight=3 latent.supervise_decisions=true optim.lr=2e-3 \
    trainer.seed="$seed" trainer.total_epochs=1000 trainer.total_training_steps="$sft_steps" trainer.save_freq=100 trainer.test_freq=50 \
    trainer.max_ckpt_to_keep=1 trainer.default_local_dir="$(quoted "$run/sft")"
evaluate sft "$sft"

stage rl steps env TENSORBOARD_DIR="$run/tensorboard/rl" OMP_NUM_THREADS=1 "$python" -m future_l1_verl.rl platform=cpu \
    actor_rollout_ref.model.path="$(quoted "$sft")" \
    data.train_files="$(quoted "$run/data/train.parquet")" data.val_files="$(quoted "$run/data/val.parquet")" \
    data.train_batch_size="$rl_batch" data.max_prompt_length=512 data.max_response_length=96 data.seed="$seed" \
    actor_rollout_ref.actor.ppo_mini_batch_size="$rl_batch" actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=$((rl_batch * 4)) \
    actor_rollout_ref.actor.optim.lr=3e-5 \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=$((rl_batch * 8)) actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=$((rl_batch * 8)) \
    actor_rollout_ref.rollout.max_model_len=1024 actor_rollout_ref.rollout.max_num_seqs=128 actor_rollout_ref.rollout.max_num_batched_tokens=4096 \
    trainer.val_before_train=false trainer.total_epochs=1000 trainer.total_training_steps="$rl_steps" \
    trainer.save_freq=5 trainer.max_actor_ckpt_to_keep=1 trainer.default_local_dir="$(quoted "$run/rl")"
rl=$run/rl/global_step_$rl_steps/actor/huggingface
evaluate rl "$rl" --save-latents
# Does the model need its latents? Those of other answers in their place, and none at all.
for kind in swap zero; do evaluate "rl-$kind" "$rl" --save-latents --intervene "$kind" --intact "$run/evaluation/rl"; done

stage report everything "$python" -m future_l1_verl.evaluation report --run "$run" \
    --stage "untrained=$run/evaluation/untrained" --stage "SFT=$run/evaluation/sft" --stage "LA-DAPO=$run/evaluation/rl" \
    --intervention "swap=$run/evaluation/rl-swap" --intervention "zero=$run/evaluation/rl-zero"
stage inspect results "$python" -m future_l1_verl.evaluation inspect --run "$run/evaluation/rl" --training "$run"
echo "report: $run/report/report.md, answers: $run/evaluation/rl/inspect/index.html"
