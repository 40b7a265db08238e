"""``python benchmarks/loader.py --data DIR --model DIR``: how fast stage 1's loader gives rows, and that its memory stays flat.

``DIR`` are a set (python -m data_prep.toy.synthetic) and a checkpoint. Prints a JSON line: rows a second over ``--rows`` rows
without a cache, on the first epoch with one and on the next, and the memory of the loader at a tenth and at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil
from omegaconf import OmegaConf
from torch.utils.data import DataLoader
from tqdm import tqdm
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.utils.tokenizer import hf_processor

from future_l1_verl.sft.dataset import LatentSFTDataset


def run(data: Path, model: Path, rows: int, workers: int, cache: str | None, folder: str) -> dict[str, float]:
    processor = hf_processor(str(model))
    config = OmegaConf.create({
        "max_latents": 4, "max_length": 4096, "system_prompt": None, "supervise_decisions": False, "observed": "frames",
        "video_frames": 16, "targets": "resize", "text_only": False, "cache_dir": cache, "max_bad_rate": 0.0,
        "manifest": f"{folder}/skipped.jsonl", "videos": None,
    })  # fmt: skip
    dataset = LatentSFTDataset(str(data / "train.parquet"), processor.tokenizer, config, processor, max_samples=rows)
    loader = DataLoader(dataset, batch_size=8, num_workers=workers, collate_fn=SFTTensorCollator("no_padding"))
    early, started = 0.0, time.perf_counter()
    for number, _ in enumerate(tqdm(loader, unit="batch", leave=False)):
        if number == len(loader) // 10:
            early = megabytes()
        if number == len(loader) - 1:
            late = megabytes()
    return {"rows_per_second": len(dataset) / (time.perf_counter() - started), "mb_early": early, "mb_late": late}


def megabytes() -> float:
    """Resident memory that this process and its workers do not share."""
    process = psutil.Process()
    return sum(p.memory_full_info().uss for p in (process, *process.children(recursive=True))) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, first, second = (
            run(args.data, args.model, args.rows, args.workers, cache, folder)
            for cache in (None, f"{folder}/cache", f"{folder}/cache")
        )
    print(json.dumps({
        "rows": args.rows, "workers": args.workers, "without_cache": plain, "first_epoch": first, "second_epoch": second,
        "second_epoch_times_faster": second["rows_per_second"] / plain["rows_per_second"],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
