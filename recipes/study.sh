#!/usr/bin/env bash
# The paper's table with the tiny model on a CPU: for each seed a quickstart, whose two stages are the arms sft and la_dapo, and from
# its data and its pretrained model all other arms, with equal steps. An arm's verdicts and curves are written to a small file as
# soon as it is done; a study that stops goes on from those files and folders that are there.
#   bash recipes/study.sh [--runs DIR] [--results DIR] [--seeds "N ..."] [--arms "NAME ..."]
# Arms: untrained sft_text_only text_only_grpo text_only_dapo sft_random sft_curated sft grpo depo dapo dapo+ctr dapo+div la_dapo;
# with the paper's masking sft_masked la_dapo_masked; of the sweeps lambda=X l_max=N lambda_c=X lambda_d=X.
# The page: python benchmarks/study/page.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh
source recipes/tiny.sh

runs=runs results=benchmarks/study/results seeds="1 2 3 4 5"
arms="sft la_dapo dapo dapo+ctr dapo+div grpo depo sft_text_only text_only_grpo text_only_dapo sft_curated sft_random untrained"

while [ $# -gt 0 ]; do
    case "$1" in
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --runs) runs=$2 ;;
    --results) results=$2 ;;
    --seeds) seeds=$2 ;;
    --arms) arms=$2 ;;
    *) fail "unknown argument $1; see --help" ;;
    esac
    shift 2
done
runs=$(realpath -m -- "$runs") results=$(realpath -m -- "$results")
sizes synthetic

# train ARM: trains it and all that it starts from, and sets $model.
train() {
    local value=${1#*=}
    case "$1" in
    untrained) model=$run/tiny ;;
    sft) model=$(sft_checkpoint sft) ;;
    la_dapo) model=$(rl_checkpoint rl) ;;
    sft_text_only) sft "$1" data.text_only=true ;;
    sft_curated)
        curate
        sft "$1" data.train_files="$(quoted "$run/curation/curated/data/sft_train.parquet")"
        ;;
    sft_random)
        curate
        sft "$1" data.train_files="$(quoted "$run/curation/random/sft_train.parquet")"
        ;;
    text_only_*) rl "$1" sft_text_only ablation="$1" ;;
    grpo | depo | dapo | dapo+ctr | dapo+div) rl "$1" sft ablation="$1" ;;
    # the paper's masking: whether to go on within a span is not taught
    sft_masked) sft "$1" latent.supervise_decisions=false ;;
    la_dapo_masked) rl "$1" sft_masked ;;
    # sweeps, around latent.weight=1, spans of 4, and the paper's weights of the two rewards
    lambda=*) sft "$1" latent.weight="$value" ;;
    l_max=*)
        stage "$1-model" results "$python" -m future_l1_verl.modeling.prepare --model "$run/tiny" --out "$run/$1-model" --max-latents "$value"
        train_sft "$1" "$run/$1-model"
        model=$(sft_checkpoint "$1")
        ;;
    lambda_c=*) rl "$1" sft rewards.contrastive="$value" ;;
    lambda_d=*) rl "$1" sft rewards.diversity="$value" ;;
    *) fail "there is no arm $1; see --help" ;;
    esac
}
# sft ARM [OVERRIDES...]: an arm of stage 1.
sft() {
    train_sft "$1" "$run/tiny" "${@:2}"
    model=$(sft_checkpoint "$1")
}
# rl ARM FROM [OVERRIDES...]: an arm of stage 2, which starts from the arm FROM.
rl() {
    train "$2"
    train_rl "$1" "$model" "${@:3}"
    model=$(rl_checkpoint "$1")
}
# curate: the rows of most visual gain of another set, and as many of any gain.
curate() {
    local set=$run/curation/candidates out=$run/curation/curated sft_steps=300
    [ -f "$run/logs/candidates.done" ] || rm -rf "$set"
    stage candidates everything "$python" -m data_prep.toy.synthetic --out "$set" --seed $((1000 + seed)) --train-questions 600 --val-questions 1 --test-questions 1
    teach_hints "$run/tiny"
    stage curated results bash recipes/curate_future_l1_50k.sh --input "$set/sft_train.parquet" --videos "$set" \
        --model "$(sft_checkpoint hints)" --out "$out" --gpus 0 --replicas 1 --top 500 -- "${by_hints[@]}"
    stage random results "$python" -m data_prep.curation build --selected "$out/selected/control.parquet" --videos "$set" --out "$run/curation/random"
}

for arm in $arms; do
    for seed in $seeds; do
        run=$runs/quickstart-synthetic-seed$seed found=$results/$arm-seed$seed.json
        [ ! -f "$found" ] || { echo "$arm, seed $seed: done before" && continue; }
        echo "# $arm, seed $seed"
        [ -f "$run/logs/report.done" ] || bash recipes/quickstart.sh --run "$run" --seed "$seed"
        train "$arm"
        # The quickstart names the evaluation of la_dapo after its stage.
        [ "$arm" = la_dapo ] && name=rl || name=$arm
        case "$arm" in
        # no latents in its answers, or a value of a sweep
        untrained | *text_only* | *=*) evaluate "$name" "$model" test ;;
        *)
            evaluate "$name" "$model" test --save-latents
            intervene "$name" "$model" test
            together
            ;;
        esac
        "$python" benchmarks/study/collect.py --run "$run" --name "$name" --arm "$arm" --seed "$seed" --out "$found"
    done
done
