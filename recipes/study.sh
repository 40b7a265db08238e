#!/usr/bin/env bash
# The paper's table with the tiny model on a CPU: all arms from the same data and the same pretrained model of a seed, with equal
# steps. An arm's verdicts and curves are written to a small file as soon as it is done; a study that stops goes on from them.
#   bash recipes/study.sh [--run DIR] [--results DIR] [--seeds "N ..."] [--arms "NAME ..."]
# Arms: untrained sft_text_only text_only_grpo text_only_dapo sft_random sft_curated sft grpo depo dapo dapo+ctr dapo+div la_dapo;
# with the paper's masking sft_masked la_dapo_masked; of the sweeps lambda=X l_max=N lambda_c=X lambda_d=X.
# The page: python benchmarks/study/page.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh
source recipes/tiny.sh

root=runs/study results=benchmarks/study/results seeds="11 12 13 14 15"
arms="la_dapo dapo dapo+ctr dapo+div sft untrained grpo depo sft_text_only text_only_grpo text_only_dapo sft_curated sft_random"
pretrain_steps=280 sft_steps=220 rl_steps=18 sft_batch=32 rl_batch=16

while [ $# -gt 0 ]; do
    case "$1" in
    --run) root=$2 ;;
    --results) results=$2 ;;
    --seeds) seeds=$2 ;;
    --arms) arms=$2 ;;
    *) fail "unknown argument $1; see the first lines of recipes/study.sh" ;;
    esac
    shift 2
done
root=$(realpath -m -- "$root") results=$(realpath -m -- "$results")
bash recipes/env.sh cpu

# prepare: the data and the pretrained model of the seed.
prepare() {
    mkdir -p "$run/logs"
    for name in data tiny; do [ -f "$run/logs/$name.done" ] || rm -rf "${run:?}/$name"; done
    stage data everything "$python" -m data_prep.synthetic --out "$run/data" --seed "$seed"
    pretrain "$pretrain_steps"
}

# train NAME: trains an arm and all that it starts from, and sets $model.
# sft NAME [OVERRIDES...] and rl NAME FROM [OVERRIDES...]: do that for an arm of stage 1, and for one of stage 2 that starts from the arm FROM.
sft() { train_sft "$1" "$run/tiny" "$sft_steps" "${@:2}" && model=$(sft_checkpoint "$1" "$sft_steps"); }
rl() { train "$2" && train_rl "$1" "$model" "$rl_steps" "${@:3}" && model=$(rl_checkpoint "$1" "$rl_steps"); }

# curate: sft_curated and sft_random learn from as many rows, those of most visual gain of another set and any of it.
curate() {
    local set=$run/candidates
    [ -f "$run/logs/candidates.done" ] || rm -rf "$set"
    stage candidates everything "$python" -m data_prep.synthetic --out "$set" --seed $((1000 + seed)) --train-questions 600 --val-questions 1 --test-questions 1
    teach_hints "$run/tiny" 300
    stage curated results bash recipes/curate_future_l1_50k.sh --input "$set/sft_train.parquet" --videos "$set" \
        --model "$(sft_checkpoint hints 300)" --out "$run/curated" --gpus 0 --replicas 1 --top 500 -- "${by_hints[@]}"
    stage random results "$python" -m data_prep.visual_gain build --selected "$run/curated/selected/control.parquet" --videos "$set" --out "$run/random"
}

train() {
    local value=${1#*=}
    case "$1" in
    untrained) model=$run/tiny ;;
    sft) sft sft ;;
    sft_text_only) sft "$1" data.text_only=true ;;
    sft_curated) curate && sft "$1" data.train_files="$(quoted "$run/curated/data/sft_train.parquet")" ;;
    sft_random) curate && sft "$1" data.train_files="$(quoted "$run/random/sft_train.parquet")" ;;
    text_only_*) rl "$1" sft_text_only ablation="$1" ;;
    grpo | depo | dapo | dapo+ctr | dapo+div | la_dapo) rl "$1" sft ablation="$1" ;;
    # sweeps, around latent.weight=1, spans of 4, and the paper's weights of the two rewards
    lambda=*) sft "$1" latent.weight="$value" ;;
    l_max=*)
        [ -d "$run/$1/model" ] || "$python" -m future_l1_verl.modeling.prepare --model "$run/tiny" --out "$run/$1/model" --max-latents "$value"
        train_sft "$1" "$run/$1/model" "$sft_steps" && model=$(sft_checkpoint "$1" "$sft_steps")
        ;;
    lambda_c=*) rl "$1" sft rewards.contrastive="$value" ;;
    lambda_d=*) rl "$1" sft rewards.diversity="$value" ;;
    # the paper's masking: whether to go on within a span is not taught
    sft_masked) sft "$1" latent.supervise_decisions=false ;;
    la_dapo_masked) rl "$1" sft_masked ;;
    *) fail "there is no arm $1; see the first lines of recipes/study.sh" ;;
    esac
}

for arm in $arms; do
    for seed in $seeds; do
        run=$root/seed-$seed found=$results/$arm-seed$seed.json
        [ ! -f "$found" ] || { echo "$arm, seed $seed: done before" && continue; }
        echo "# $arm, seed $seed"
        prepare
        train "$arm"
        case "$arm" in
        untrained | *text_only*) evaluate "$arm" "$model" test ;;
        *)
            evaluate "$arm" "$model" test --save-latents
            for kind in swap zero; do
                beside evaluate "$arm-$kind" "$model" test --intervene "$kind" --intact "$run/evaluation/$arm"
            done
            together
            ;;
        esac
        "$python" benchmarks/study/collect.py --run "$run" --arm "$arm" --seed "$seed" --out "$found"
    done
done
