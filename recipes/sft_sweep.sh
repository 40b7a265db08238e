#!/usr/bin/env bash
# The paper's Table 3: stage 1 with other values of lambda or L_max, one after the other, each in OUT/SWEEP_VALUE.
#   bash recipes/sft_sweep.sh lambda|l_max --model DIR --data FILE --out DIR [--dry-run] [KEY=VALUE...]
# Further arguments are those of sft_qwen3vl8b.sh; l_max, which prepares the checkpoint anew for each value, is for one node.
# Running it again continues where it stopped: a value that is done has a file `finished` in its folder. --dry-run prints each run's resolved config.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

sweep=${1:-}
case "$sweep" in
lambda) values=(0.01 0.05 0.1 0.2 0.5 1.0) ;;
l_max) values=(2 4 8 16 32 64) ;;
*) fail "usage: bash recipes/sft_sweep.sh lambda|l_max --model DIR --data FILE --out DIR" ;;
esac
shift

model=MODEL out=OUT dry_run= rest=()
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=yes rest+=("$1") ;;
    --model | --out) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --model) model=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) rest+=("$1") ;;
    esac
    shift
done
if [ -z "$dry_run" ]; then
    [ "$model" != MODEL ] && [ "$out" != OUT ] || fail "--model and --out are needed"
fi

for value in "${values[@]}"; do
    run=$out/${sweep}_$value
    echo "# $sweep $value: $run"
    [ ! -f "$run/finished" ] || continue
    case "$sweep" in
    lambda) start=$model setting=(latent.weight="$value") ;;
    l_max)
        start=$run/model setting=()
        prepare=(.venv/bin/python -m future_l1_verl.modeling.prepare --model "$model" --out "$start" --max-latents "$value")
        if [ -n "$dry_run" ]; then printf '#' && printf ' %q' "${prepare[@]}" && echo; elif [ ! -d "$start" ]; then "${prepare[@]}"; fi
        ;;
    esac
    bash recipes/sft_qwen3vl8b.sh --model "$start" --out "$run" trainer.experiment_name="sft_${sweep}_$value" "${setting[@]}" "${rest[@]}"
    if [ -n "$dry_run" ]; then echo "---"; else touch "$run/finished"; fi
done
