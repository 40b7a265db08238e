#!/usr/bin/env bash
# Curation by visual gain (paper section 3): from a download of TwiFF to the files that stages 1 and 2 read.
#   bash recipes/curate_future_l1_50k.sh --input "FILE..." --videos DIR --model DIR --out DIR [--judge-url URL --judge-model NAME]
#        [--address RAY] [--replicas N] [--gpus N] [--benchmark FILE --benchmark-videos DIR] [--top K] [--estimate N] [--dry-run]
#        [-- further arguments of `score`]
# Started again it goes on where it stopped. --estimate N scores a sample only and says what N candidates will take; --dry-run
# prints the commands and ends. On a cluster: start Ray, give its address, and let all machines see the same files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# what
input= videos= out= top=50000 benchmark= benchmark_videos=
# who answers: a checkpoint for vLLM, GPUs of each of its engines, 0 for a CPU
model= replicas=8 gpus=1 address=
# who judges; without a judge answers are right by rule or wrong
judge_url= judge_model=
# of how many candidates an estimate is made
sample=512

dry_run= estimate=
fail() { printf 'curate_future_l1_50k.sh: %s\n' "$1" >&2; exit 1; }
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=yes && shift && continue ;;
    --) shift && break ;;
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --input) input=$2 ;;
    --videos) videos=$2 ;;
    --model) model=$2 ;;
    --out) out=$2 ;;
    --judge-url) judge_url=$2 ;;
    --judge-model) judge_model=$2 ;;
    --address) address=$2 ;;
    --replicas) replicas=$2 ;;
    --gpus) gpus=$2 ;;
    --benchmark) benchmark=$2 ;;
    --benchmark-videos) benchmark_videos=$2 ;;
    --top) top=$2 ;;
    --estimate) estimate=$2 ;;
    *) fail "unknown argument $1; see the first lines of recipes/curate_future_l1_50k.sh" ;;
    esac
    shift 2
done
for needed in input videos model out; do [ -n "${!needed}" ] || fail "--$needed is needed"; done
[ "$gpus" != 0 ] && build=cuda || build=cpu

python=$PWD/.venv/bin/python
run() { if [ -n "$dry_run" ]; then printf '%q ' "$@" && echo; else "$@"; fi; }
visual_gain() { run "$python" -m data_prep.visual_gain "$@"; }
[ -n "$dry_run" ] || bash recipes/env.sh "$build"

candidates=$out/candidates.parquet scores=$out/scored
[ -z "$estimate" ] || candidates=$out/sample.parquet scores=$out/sampled
score=(score --candidates "$candidates" --videos "$videos" --out "$scores" --model "$model" --replicas "$replicas" --gpus "$gpus")
[ -z "$address" ] || score+=(--address "$address")
[ -z "$judge_url" ] || score+=(--judge-url "$judge_url" --judge-model "$judge_model" --judge-cache "$out/verdicts.sqlite")
select=(select --candidates "$candidates" --videos "$videos" --scores "$scores" --out "$out/selected" --top "$top" --control)
[ -z "$benchmark" ] || select+=(--benchmark "$benchmark" --benchmark-videos "$benchmark_videos")

# shellcheck disable=SC2086  # several files
[ -f "$candidates" ] || visual_gain read --input $input --videos "$videos" --out "$candidates" ${estimate:+--limit "$sample"}
visual_gain "${score[@]}" "$@"
if [ -n "$estimate" ]; then
    visual_gain estimate --scores "$scores" --candidates "$estimate" --replicas "$replicas"
    exit 0
fi
# The last file that each writes says that it has ended.
[ -f "$out/selected/report.json" ] || { run rm -rf "$out/selected" && visual_gain "${select[@]}"; }
[ -f "$out/data/README.md" ] || { run rm -rf "$out/data" && visual_gain build --selected "$out/selected/selected.parquet" --videos "$videos" --out "$out/data"; }
