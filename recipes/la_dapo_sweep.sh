#!/usr/bin/env bash
# The paper's tables of stage 2 on FutureBench, one run after the other, each in OUT/SWEEP_VALUE: all rows of the ablation, or
# other values of lambda_c (R_ctr) or lambda_d (R_div).
#   bash recipes/la_dapo_sweep.sh ablation|lambda_c|lambda_d --model DIR --data FILE --val FILE --out DIR
#                                 [--text-model DIR] [--dry-run] [...]
# --text-model: the checkpoint of sft_text_only.sh, from which the text-only rows of `ablation` start.
# Further arguments are those of la_dapo_qwen3vl8b.sh. Running it again continues where it stopped. --dry-run prints each run's
# resolved config.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

sweep=${1:-}
case "$sweep" in
ablation) values=(text_only_grpo text_only_dapo grpo depo dapo dapo+ctr dapo+div la_dapo) ;;
lambda_c) values=(0.01 0.05 0.1 0.2 0.5 1.0) key=rewards.contrastive ;;
lambda_d) values=(0.01 0.05 0.1 0.2 0.5 1.0) key=rewards.diversity ;;
*) fail "usage: bash recipes/la_dapo_sweep.sh ablation|lambda_c|lambda_d --model DIR --data FILE --val FILE --out DIR" ;;
esac
shift

model=MODEL text_model=TEXT_MODEL out=OUT dry_run= rest=()
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=yes rest+=("$1") ;;
    --ablation) fail "--ablation is what the sweep chooses" ;;
    --model | --text-model | --out) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --model) model=$2 && shift ;;
    --text-model) text_model=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) rest+=("$1") ;;
    esac
    shift
done
if [ -z "$dry_run" ]; then
    [ "$model" != MODEL ] && [ "$out" != OUT ] || fail "--model and --out are needed"
    [ "$sweep" != ablation ] || [ "$text_model" != TEXT_MODEL ] || fail "--text-model is needed"
fi

for value in "${values[@]}"; do
    run=$out/${sweep}_$value
    echo "# $sweep $value: $run"
    [ ! -f "$run/finished" ] || continue
    start=$model
    case "$sweep" in
    ablation) setting=(--ablation "$value") && [ "$value" = "${value#text_only}" ] || start=$text_model ;;
    *) setting=(trainer.experiment_name="la_dapo_futurebench_${sweep}_$value" "$key=$value") ;;
    esac
    bash recipes/la_dapo_futurebench.sh --model "$start" --out "$run" "${setting[@]}" "${rest[@]}"
    if [ -n "$dry_run" ]; then echo "---"; else touch "$run/finished"; fi
done
