#!/usr/bin/env bash
# Curation by visual gain on the synthetic set, on a CPU: `curate_future_l1_50k.sh` with the tiny model of a quickstart, after that
# has learnt to use hints. Validation questions are the candidates, for it has not seen them; all are scored twice, with two seeds.
#   bash recipes/curate_synthetic.sh [--run DIR] [--sft-steps N]
# --run: folder of a quickstart that has got as far as its tiny model. Started again it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/functions.sh
source recipes/tiny.sh

run=runs/quickstart-synthetic-seed1 sft_steps=300 sft_batch=32

while [ $# -gt 0 ]; do
    case "$1" in
    --run) run=$2 ;;
    --sft-steps) sft_steps=$2 ;;
    *) fail "unknown argument $1; see the first lines of recipes/curate_synthetic.sh" ;;
    esac
    shift 2
done
[ -f "$run/logs/tiny.done" ] || fail "$run holds no tiny model; run recipes/quickstart.sh first"
run=$(realpath -m -- "$run")
out=$run/curated model=$run/curated/sft/global_step_$sft_steps/huggingface

bash recipes/env.sh cpu

[ -f "$run/data/sft_hints.parquet" ] || "$python" -m data_prep.synthetic.hints --data "$run/data" --out "$run/data/sft_hints.parquet"
[ -d "$model" ] || "$python" -m future_l1_verl.sft platform=cpu model.path="$(quoted "$run/tiny")" data.text_only=true \
    data.train_files="$(quoted "$run/data/sft_hints.parquet")" \
    data.train_batch_size="$sft_batch" data.micro_batch_size_per_gpu="$sft_batch" data.use_dynamic_bsz=false data.max_length=1024 data.num_workers=1 \
    data.system_prompt=null data.cache_dir="$(quoted "$out/frames")" optim.lr=2e-3 \
    trainer.seed=1 trainer.total_epochs=1000 trainer.total_training_steps="$sft_steps" trainer.save_freq=100 trainer.test_freq=-1 \
    trainer.max_ckpt_to_keep=1 trainer.default_local_dir="$(quoted "$out/sft")" 2>&1 | "$python" -m future_l1_verl.evaluation.progress

prompts=$PWD/data_prep/synthetic/prompts
how=(--base-prompt "$prompts/base.txt" --hint-prompt "$prompts/hint.txt" --max-tokens 64 --temperature 1 --top-p 1
    --engine '{"dtype": "float32", "max_model_len": 1024}')
bash recipes/curate_future_l1_50k.sh --input "$run/data/val.parquet" --videos "$run/data" --model "$model" --out "$out" \
    --gpus 0 --replicas 1 --top 150 -- "${how[@]}"
"$python" -m data_prep.visual_gain score --candidates "$out/candidates.parquet" --videos "$run/data" --out "$out/scored-again" \
    --model "$model" --seed 1 "${how[@]}"
"$python" -m data_prep.visual_gain recheck --selected "$out/selected" --scores "$out/scored-again" --json "$out/recheck.json"
