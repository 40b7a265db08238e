#!/usr/bin/env bash
# The whole loop on a laptop: environment, data, a tiny Qwen3-VL, SFT, LA-DAPO, evaluation before and after, a report.
#   bash recipes/quickstart.sh [--clips synthetic|real] [--run DIR] [--fresh] [--seed N] [--from DIR]
#                              [--pretrain-steps N] [--sft-steps N] [--rl-steps N] [-- sft:KEY=VALUE rl:KEY=VALUE ...]
# Running it again continues where it stopped; --fresh starts over. --from: the folder of another run of these arguments, whose
# data, model and stage 1 are taken. Behind -- stand settings of the two stages (`future-l1 sft --help`, `future-l1 rl --help`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh
source recipes/tiny.sh

# what to run
clips=synthetic run= fresh= seed=1 from= sft=() rl=()
# how long; the defaults depend on the clips
pretrain_steps= sft_steps= rl_steps=

while [ $# -gt 0 ]; do
    case "$1" in
    --fresh) fresh=yes ;;
    --) ;;
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --clips) clips=$2 && shift ;;
    --run) run=$2 && shift ;;
    --seed) seed=$2 && shift ;;
    --pretrain-steps) pretrain_steps=$2 && shift ;;
    --sft-steps) sft_steps=$2 && shift ;;
    --rl-steps) rl_steps=$2 && shift ;;
    --from) from=$2 && shift ;;
    sft:?*=*) sft+=("${1#sft:}") ;;
    rl:?*=*) rl+=("${1#rl:}") ;;
    *) fail "unknown argument $1; see --help" ;;
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
[ ${#sft[@]} -eq 0 ] || arguments+=" -- $(printf 'sft:%s ' "${sft[@]}")"
[ ${#rl[@]} -eq 0 ] || arguments+=" -- $(printf 'rl:%s ' "${rl[@]}")"
[ ! -f "$run/logs/arguments" ] || [ "$(cat "$run/logs/arguments")" = "$arguments" ] ||
    fail "$run was made with $(cat "$run/logs/arguments"); use the same arguments, --fresh or another --run"
echo "$arguments" >"$run/logs/arguments"

bash recipes/env.sh cpu

if [ -n "$from" ] && [ ! -f "$run/logs/sft.done" ]; then
    [ ${#sft[@]} -eq 0 ] || fail "--from takes stage 1 as it is there; leave sft:${sft[0]} out"
    [ -f "$from/logs/evaluate-sft.done" ] || fail "$from holds no stage 1 that was evaluated"
    mkdir -p "$run"/{evaluation,tensorboard}
    for part in data tiny sft evaluation/sft tensorboard/sft logs/{data,tiny,sft,evaluate-sft}.done; do cp -a "$from/$part" "$run/$part"; done
fi

# Stages that cannot continue what an earlier run left start over.
for name in data tiny; do [ -f "$run/logs/$name.done" ] || rm -rf "${run:?}/$name"; done
if [ "$clips" = synthetic ]; then
    stage data everything "$python" -m data_prep.toy.synthetic --out "$run/data" --seed "$seed"
else
    stage data everything "$python" -m data_prep.toy.real_clips --out "$run/data"
fi
pretrain
train_sft sft "$run/tiny" "${sft[@]}"

# Most of the time the trainer leaves a core to others.
beside evaluate sft "$(sft_checkpoint sft)" test --save-latents
train_rl rl "$(sft_checkpoint sft)" "${rl[@]}"
together
evaluate rl "$(rl_checkpoint rl)" test --save-latents
intervene rl "$(rl_checkpoint rl)" test
beside stage inspect results "$python" -m future_l1_verl.evaluation inspect --run "$run/evaluation/rl" --training "$run"
together

stage report everything "$python" -m future_l1_verl.cli report --run "$run" \
    --stage "SFT=$run/evaluation/sft" --stage "LA-DAPO=$run/evaluation/rl" \
    --intervention "swap=$run/evaluation/rl-swap" --intervention "zero=$run/evaluation/rl-zero"
echo "report: $run/report/report.md, answers: $run/evaluation/rl/inspect/index.html"
