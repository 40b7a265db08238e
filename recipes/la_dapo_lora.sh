#!/usr/bin/env bash
# Stage 2 with adapters (LoRA) of the language model on one GPU of 80 GB; the reference is the actor without them. Further
# arguments are those of la_dapo_qwen3vl8b.sh, but not --pools separate: there verl sends the rollout no adapters.
#   bash recipes/la_dapo_lora.sh futurebench|twiff --model DIR --data FILE --val FILE --out DIR [...]
# `future-l1 export --run DIR --out DIR` makes a checkpoint with the adapters merged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

# how large, and how fast: ten times the rate of all weights, as verl's documentation advises
rank=64 alpha=64 lr=1e-5

questions=${1:-}
case "$questions" in futurebench | twiff) shift ;; *) fail "usage: bash recipes/la_dapo_lora.sh futurebench|twiff --model DIR ..." ;; esac
case " $* " in *" --pools separate "*) fail "adapters do not reach a rollout with devices of its own" ;; esac

# The rollout reads the checkpoint itself, and is sent the adapters alone.
exec bash "recipes/la_dapo_$questions.sh" --gpus 1 \
    actor_rollout_ref.model.lora_rank="$rank" actor_rollout_ref.model.lora_alpha="$alpha" \
    actor_rollout_ref.rollout.load_format=safetensors actor_rollout_ref.actor.optim.lr="$lr" \
    trainer.experiment_name="la_dapo_lora_$questions" "$@"
