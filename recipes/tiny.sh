# How the recipes for a CPU train and evaluate the tiny model; they read it with `source`, from the root of the checkout, and set
#   run     the folder of the run, whose logs/, data/ and tensorboard/ these use
#   seed    of the trainings
# and, unless `sizes` does it, pretrain_steps, sft_steps, rl_steps, sft_batch and rl_batch.

python=.venv/bin/python
source recipes/large_pages.sh

# settings of the libraries underneath; one thread a process, for most stages have several
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
export VLLM_LOGGING_LEVEL=ERROR RAY_USAGE_STATS_ENABLED=0 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0

# sizes CLIPS: sets how long the trainings are, where that is not set, and their batches.
sizes() {
    case "$1" in
    synthetic) : "${pretrain_steps:=280}" "${sft_steps:=220}" "${rl_steps:=18}" && sft_batch=32 rl_batch=16 ;;
    # A few steps on real files: there is nothing to be learnt from a dozen of them.
    real) : "${pretrain_steps:=0}" "${sft_steps:=10}" "${rl_steps:=3}" && sft_batch=8 rl_batch=4 ;;
    *) fail "--clips is synthetic or real, not $1" ;;
    esac
}

# stage NAME FILTER COMMAND...: runs once. All output goes to a log; what FILTER lets through goes to the screen.
stage() {
    local name=$1 filter=$2 log=$run/logs/$1.log started=$SECONDS
    shift 2
    if [ -f "$run/logs/$name.done" ]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name"
    mkdir -p "$(dirname "$log")"
    if ! "$@" 2>&1 | tee -a "$log" | "$filter"; then
        tail -n 40 "$log" >&2
        fail "$name failed; its log is $log"
    fi
    echo "$((SECONDS - started))" >"$run/logs/$name.done"
    echo "== $name: $((SECONDS - started)) s"
}
# beside STAGE...: a stage in the background, which shows when it begins and ends. `together` waits for all of them.
beside() {
    ("$@" | { grep --line-buffered '^== ' || true; }) &
    others+=($!)
}
together() {
    local each
    for each in "${others[@]}"; do wait "$each" || exit; done
    others=()
}
others=()
everything() { cat; }
steps() { "$python" -m future_l1_verl.toy.progress; }
# Without the warnings of the libraries underneath.
results() { grep --line-buffered -vE 'WARN|W1|\[transformers\]|^\(EngineCore' || true; }

# pretrain: the tiny model, into $run/tiny.
pretrain() {
    stage tiny results "$python" -m future_l1_verl.toy.tiny \
        --out "$run/tiny" --data "$run/data" --seed "$seed" --pretrain "$pretrain_steps"
}

# train_sft NAME MODEL [OVERRIDES...]: stage 1, into $run/NAME.
train_sft() {
    stage "$1" steps env TENSORBOARD_DIR="$run/tensorboard/$1" "$python" -m future_l1_verl.sft platform=cpu \
        model.path="$(quoted "$2")" \
        data.train_files="$(quoted "$run/data/sft_train.parquet")" data.val_files="$(quoted "$run/data/val.parquet")" data.val_max_samples=128 \
        data.train_batch_size="$sft_batch" data.micro_batch_size_per_gpu="$sft_batch" data.use_dynamic_bsz=false data.max_length=1024 data.num_workers=1 \
        data.system_prompt=null \
        latent.weight=1 latent.supervise_decisions=true optim.lr=2e-3 \
        trainer.seed="$seed" trainer.total_epochs=1000 trainer.total_training_steps="$sft_steps" trainer.save_freq=100 trainer.test_freq=100 \
        trainer.max_ckpt_to_keep=1 trainer.default_local_dir="$(quoted "$run/$1")" "${@:3}"
}

# train_rl NAME MODEL [OVERRIDES...]: stage 2, into $run/NAME.
train_rl() {
    stage "$1" steps env TENSORBOARD_DIR="$run/tensorboard/$1" "$python" -m future_l1_verl.rl platform=cpu \
        actor_rollout_ref.model.path="$(quoted "$2")" \
        data.train_files="$(quoted "$run/data/train.parquet")" data.val_files="$(quoted "$run/data/val.parquet")" \
        data.train_batch_size="$rl_batch" data.max_prompt_length=512 data.max_response_length=96 data.seed="$seed" \
        actor_rollout_ref.actor.ppo_mini_batch_size="$rl_batch" actor_rollout_ref.actor.use_dynamic_bsz=false actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=$((rl_batch * 4)) \
        actor_rollout_ref.actor.optim.lr=1e-4 \
        actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=$((rl_batch * 8)) actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=$((rl_batch * 8)) \
        actor_rollout_ref.rollout.max_model_len=1024 actor_rollout_ref.rollout.max_num_seqs=128 actor_rollout_ref.rollout.max_num_batched_tokens=4096 \
        trainer.val_before_train=true trainer.test_freq=6 trainer.total_epochs=1000 trainer.total_training_steps="$rl_steps" \
        trainer.save_freq=6 trainer.max_actor_ckpt_to_keep=1 trainer.default_local_dir="$(quoted "$run/$1")" "${@:3}"
}

# evaluate NAME MODEL PART [ARGUMENTS...]: asks the questions of a part of the set; answers go to $run/evaluation/NAME.
evaluate() {
    stage "evaluate-$1" results "$python" -m future_l1_verl.evaluation run --task synthetic --model "$2" \
        --data "$run/data/$3.parquet" --out "$run/evaluation/$1" --max-model-len 1024 --dtype float32 --system-prompt "" "${@:4}"
}

# intervene NAME MODEL PART: does a model that was evaluated need its latents? Those of other answers in their place, and none at all.
intervene() {
    local kind
    for kind in swap zero; do beside evaluate "$1-$kind" "$2" "$3" --limit 400 --intervene "$kind" --intact "$run/evaluation/$1"; done
}

# sft_checkpoint NAME and rl_checkpoint NAME print where a training leaves its model.
sft_checkpoint() { echo "$run/$1/global_step_$sft_steps/huggingface"; }
rl_checkpoint() { echo "$run/$1/global_step_$rl_steps/actor/huggingface"; }

# teach_hints MODEL: stage 1 on hints, which curation needs of its model, into $run/hints: it then also answers where it is shown the future.
teach_hints() {
    local hints=$run/data/sft_hints.parquet
    [ -f "$hints" ] || "$python" -m data_prep.toy.synthetic.hints --data "$run/data" --out "$hints"
    train_sft hints "$1" data.text_only=true data.train_files="$(quoted "$hints")" data.cache_dir="$(quoted "$run/hints/frames")" trainer.test_freq=-1
}
by_hints=(--base-prompt "$PWD/data_prep/toy/synthetic/prompts/base.txt" --hint-prompt "$PWD/data_prep/toy/synthetic/prompts/hint.txt"
    --max-tokens 64 --temperature 1 --top-p 1 --engine '{"dtype": "float32", "max_model_len": 1024}')
