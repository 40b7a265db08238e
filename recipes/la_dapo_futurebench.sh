#!/usr/bin/env bash
# Stage 2 on 2K questions with options, as FutureBench's: 31 steps of 64 prompts at most, by rule alone. Arguments are those of
# la_dapo_qwen3vl8b.sh.
#   bash recipes/la_dapo_futurebench.sh --model DIR --data FILE --val FILE --out DIR [--ablation NAME] [...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh

exec bash recipes/la_dapo_qwen3vl8b.sh --questions futurebench --every 10 "$@"
