#!/usr/bin/env bash
# Curation by visual gain (paper section 3): from a download of TwiFF to the files that stages 1 and 2 read.
#   bash recipes/curate_future_l1_50k.sh --input FILE... --videos DIR --model DIR --out DIR
#        [--judge-url URL --judge-model NAME] [--judge-cache FILE] [--address RAY] [--replicas N] [--gpus N]
#        [--benchmark FILE... --benchmark-videos DIR...] [--video-id REGEX] [--top K] [--max-missing SHARE] [--estimate N --cpus N]
#        [--dry-run]
#        [-- further arguments of `score`]
# Started again it keeps its candidates and goes on with scores where it stopped; selection and training files are made anew.
# --benchmark: files that `read --max-bad-rate 0` wrote, so that no item is missing; --benchmark-videos: a folder of each, or of all.
# --judge-cache: an SQLite file on a disk of this machine, not on one that machines share.
# --max-missing: the share of rows whose clip may be missing; without it `read` ends with a table and says which share it is.
# --video-id: the video's id in a clip's file name, if several clips are of one video.
# --estimate N scores a sample only and says what N candidates will take, with --cpus cores of all machines together to decode.
# --dry-run prints the commands and ends. On a cluster: start Ray, give its address, and let all machines see the same files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

# what
input=() videos= out= top=50000 benchmark=() benchmark_videos=() video_id= max_missing=
# who answers: a checkpoint for vLLM, its engines, and GPUs of each, 0 for a CPU: as it stands 8 GPUs are needed
model= replicas=8 gpus=1 address=
# who judges; without a judge answers are right by rule or wrong
judge_url= judge_model= judge_cache=
# of how many candidates an estimate is made
sample=512 cpus=

dry_run= estimate= more=
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=yes && shift && continue ;;
    --) shift && break ;;
    --*) [ $# -ge 2 ] || fail "$1 needs a value" && more= ;;&
    --input | --benchmark | --benchmark-videos) more=${1#--} && declare -n list=${more/-/_} && list=("$2") ;;
    --videos) videos=$2 ;;
    --model) model=$2 ;;
    --out) out=$2 ;;
    --judge-url) judge_url=$2 ;;
    --judge-model) judge_model=$2 ;;
    --judge-cache) judge_cache=$2 ;;
    --address) address=$2 ;;
    --replicas) replicas=$2 ;;
    --gpus) gpus=$2 ;;
    --video-id) video_id=$2 ;;
    --top) top=$2 ;;
    --max-missing) max_missing=$2 ;;
    --estimate) estimate=$2 ;;
    --cpus) cpus=$2 ;;
    [!-]*) [ -n "$more" ] || fail "unknown argument $1" && list+=("$1") && shift && continue ;;
    *) fail "unknown argument $1; see --help" ;;
    esac
    shift 2
done
for needed in input videos model out; do [ -n "${!needed:-}" ] || fail "--$needed is needed"; done
[ ${#benchmark[@]} -eq 0 ] || [ ${#benchmark_videos[@]} -gt 0 ] || fail "--benchmark needs --benchmark-videos"
[ -z "$estimate" ] || [ -n "$cpus" ] || fail "--estimate needs --cpus"
[ "$gpus" != 0 ] && platform=cuda || platform=cpu

run() { if [ -n "$dry_run" ]; then printf '%q ' "$@" && echo; else "$@"; fi; }
curate() { run .venv/bin/python -m data_prep.curation "$@"; }
[ -n "$dry_run" ] || bash recipes/env.sh "$platform"

candidates=$out/candidates.parquet scores=$out/scored
[ -z "$estimate" ] || candidates=$out/sample.parquet scores=$out/sampled
score=(score --candidates "$candidates" --videos "$videos" --out "$scores" --model "$model" --replicas "$replicas" --gpus "$gpus")
[ -z "$address" ] || score+=(--address "$address")
[ -z "$judge_url" ] || score+=(--judge-url "$judge_url" --judge-model "$judge_model")
[ -z "$judge_cache" ] || score+=(--judge-cache "$judge_cache")
select=(select --candidates "$candidates" --videos "$videos" --scores "$scores" --out "$out/selected" --top "$top" --control)
[ ${#benchmark[@]} -eq 0 ] || select+=(--benchmark "${benchmark[@]}" --benchmark-videos "${benchmark_videos[@]}")
build=(build --selected "$out/selected/selected.parquet" --videos "$videos" --out "$out/data")
[ -z "$video_id" ] || select+=(--video-id "$video_id") build+=(--video-id "$video_id")

[ -f "$candidates" ] || curate read --input "${input[@]}" --videos "$videos" --out "$candidates" ${estimate:+--limit "$sample"} \
    ${max_missing:+--max-missing "$max_missing"}
curate "${score[@]}" "$@"
if [ -n "$estimate" ]; then
    curate estimate --scores "$scores" --candidates "$estimate" --replicas "$replicas" --cpus "$cpus"
    exit 0
fi
# They take minutes, and what an earlier run left may be of other arguments.
run rm -rf "$out/selected" "$out/data"
curate "${select[@]}"
curate "${build[@]}"
