#!/usr/bin/env bash
# Curation by visual gain on the synthetic set, on a CPU: `curate_future_l1_50k.sh` with the stage 1 of a quickstart, after that
# has learnt to use hints. Validation questions are the candidates, for it has not seen them; all are scored twice, with two seeds.
#   bash recipes/curate_synthetic.sh [--run DIR] [--sft-steps N]
# --run: folder of a quickstart that has got through stage 1. Started again it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh
source recipes/tiny.sh

run=runs/quickstart-synthetic-seed1 seed=1 sft_steps=80 sft_batch=32

while [ $# -gt 0 ]; do
    case "$1" in
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --run) run=$2 ;;
    --sft-steps) sft_steps=$2 ;;
    *) fail "unknown argument $1; see --help" ;;
    esac
    shift 2
done
[ -f "$run/logs/sft.done" ] || fail "$run holds no stage 1; run recipes/quickstart.sh first"
run=$(realpath -m -- "$run") out=$run/curated

bash recipes/env.sh cpu

stage_1=("$run"/sft/global_step_*/huggingface)
teach_hints "${stage_1[0]}"
model=$(sft_checkpoint hints)
bash recipes/curate_future_l1_50k.sh --input "$run/data/val.parquet" --videos "$run/data" --model "$model" --out "$out" \
    --gpus 0 --replicas 1 --top 150 -- "${by_hints[@]}"
"$python" -m data_prep.curation score --candidates "$out/candidates.parquet" --videos "$run/data" --out "$out/scored-again" \
    --model "$model" --seed 1 "${by_hints[@]}"
"$python" -m data_prep.curation recheck --selected "$out/selected" --scores "$out/scored-again" --json "$out/recheck.json"
