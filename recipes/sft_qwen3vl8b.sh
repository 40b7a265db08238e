#!/usr/bin/env bash
# Stage 1 of the paper on Qwen3-VL-8B, 8 GPUs of 80 GB a node. Checkpoints come to DIR/global_step_N.
#   bash recipes/sft_qwen3vl8b.sh --model DIR --data FILE --out DIR [--dry-run]
#                                 [--nnodes N --node-rank R --master-addr HOST [--master-port PORT]] [KEY=VALUE...]
# --model: Qwen3-VL-8B-Instruct after `future-l1 prepare --max-latents 4`.
# On several nodes it runs on each of them, with files that all of them see; make the environment once before.
# --dry-run prints the resolved config and ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

# what to run
model=MODEL data=DATA out=OUT dry_run=() overrides=()
# where
build=cuda gpus=8 nnodes=1 node_rank=0 master_addr=null master_port=29500
# how: the optimisation is the tree's (future_l1_verl/config/sft/main.yaml), the paper's Table 8. A row is never cut: a
# micro-batch has room for the longest.
length=16384
# how often; a checkpoint takes some 130 GB
save_every=100

while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=(--cfg job --resolve) ;;
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --model) model=$2 && shift ;;
    --data) data=$2 && shift ;;
    --out) out=$2 && shift ;;
    --nnodes) nnodes=$2 && shift ;;
    --node-rank) node_rank=$2 && shift ;;
    --master-addr) master_addr=$(quoted "$2") && shift ;;
    --master-port) master_port=$2 && shift ;;
    --*) fail "unknown argument $1; see --help" ;;
    platform=cpu) build=cpu overrides+=("$1") ;;
    *) overrides+=("$1") ;;
    esac
    shift
done

if [ ${#dry_run[@]} -eq 0 ]; then
    [ "$model" != MODEL ] && [ "$data" != DATA ] && [ "$out" != OUT ] || fail "--model, --data and --out are needed"
    environment "$build"
fi

exec .venv/bin/python -m future_l1_verl.sft "${dry_run[@]}" \
    model.path="$(quoted "$model")" data.train_files="$(quoted "$data")" trainer.default_local_dir="$(quoted "$out")" \
    trainer.n_gpus_per_node="$gpus" trainer.nnodes="$nnodes" trainer.node_rank="$node_rank" \
    trainer.master_addr="$master_addr" trainer.master_port="$master_port" \
    data.max_length="$length" data.max_token_len_per_gpu="$length" \
    trainer.experiment_name=sft_qwen3vl8b trainer.save_freq="$save_every" \
    "${overrides[@]}"
