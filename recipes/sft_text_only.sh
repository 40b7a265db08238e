#!/usr/bin/env bash
# The paper's control of stage 1: the same rows without latents, and a prompt that knows of none. All else is as in
# sft_qwen3vl8b.sh, its arguments too.
#   bash recipes/sft_text_only.sh --model DIR --data FILE --out DIR [--dry-run] [...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

# shellcheck disable=SC2016  # hydra's reference, to future_l1_verl/config/system_prompts.yaml
exec bash recipes/sft_qwen3vl8b.sh trainer.experiment_name=sft_text_only data.text_only=true \
    data.system_prompt='${prompts.text_only}' "$@"
