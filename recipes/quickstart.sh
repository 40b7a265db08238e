#!/usr/bin/env bash
# The whole loop on a laptop: environment, data, a tiny Qwen3-VL, SFT, LA-DAPO, evaluation before and after, a report.
#   bash recipes/quickstart.sh [--clips synthetic|real] [--run DIR] [--fresh] [--seed N]
#                              [--pretrain-steps N] [--sft-steps N] [--rl-steps N]
# Running it again continues where it stopped; --fresh starts over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh
source recipes/tiny.sh

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
sizes "$clips"
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

# Stages that cannot continue what an earlier run left start over.
for name in data tiny; do [ -f "$run/logs/$name.done" ] || rm -rf "${run:?}/$name"; done
if [ "$clips" = synthetic ]; then
    stage data everything "$python" -m data_prep.toy.synthetic --out "$run/data" --seed "$seed"
else
    stage data everything "$python" -m data_prep.toy.real_clips --out "$run/data"
fi
pretrain
train_sft sft "$run/tiny"
sft=$(sft_checkpoint sft)

# Most of the time the trainer leaves a core to others.
beside evaluate sft "$sft" test --save-latents
train_rl rl "$sft"
rl=$(rl_checkpoint rl)
together
evaluate rl "$rl" test --save-latents
intervene rl "$rl" test
beside stage inspect results "$python" -m future_l1_verl.evaluation inspect --run "$run/evaluation/rl" --training "$run"
together

stage report everything "$python" -m future_l1_verl.evaluation report --run "$run" \
    --stage "SFT=$run/evaluation/sft" --stage "LA-DAPO=$run/evaluation/rl" \
    --intervention "swap=$run/evaluation/rl-swap" --intervention "zero=$run/evaluation/rl-zero"
echo "report: $run/report/report.md, answers: $run/evaluation/rl/inspect/index.html"
