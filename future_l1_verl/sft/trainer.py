"""verl's SFT trainer with the latent loss."""

import json
import math
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from verl.trainer import sft_trainer
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.checkpoint import CheckpointHandler
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group
from verl.utils.metric import Metric
from verl.utils.tracking import Tracking
from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig

from future_l1_verl.data.skipped import counts
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.sft.objective import latent_sft_loss, prediction_metrics
from future_l1_verl.training.checkpoints import delete_older, saying_where
from future_l1_verl.training.engine import MODEL_TYPE


class LatentTrainingWorker(TrainingWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sums: Counter[str] = Counter()
        self.started = False

    def train_batch(self, data: TensorDict) -> TensorDict:
        """Trains on a batch; on the first one logs the scales of latents and predictions, on which lambda depends."""
        tu.assign_non_tensor(data, return_latent_states=not self.started)
        output = super().train_batch(data)
        if not self.started and output is not None:
            metrics = tu.get(output, "metrics")
            sums = {name.removeprefix("val/"): metrics.pop(name) for name in list(metrics) if name.startswith("val/")}
            found = prediction_metrics(sums)
            if found and torch.distributed.get_rank() == 0:
                print(
                    f"before training: root mean square {found['val/rms_hidden']:.3g} of hidden states, "
                    f"{found['val/rms_target']:.3g} of future embeddings (latent.unit_targets scales these to 1)"
                )
        self.started = True
        return output

    def infer_batch(self, data: TensorDict) -> TensorDict:
        """Upstream reports only the loss of a validation batch; here also how well latents are predicted."""
        tu.assign_non_tensor(data, return_latent_states=True)
        output = super().infer_batch(data)
        if output is not None:
            metrics = tu.get(output, "metrics")
            self.sums.update({name.removeprefix("val/"): metrics[name] for name in metrics if name.startswith("val/")})
        return output

    def _postprocess_output(self, output: Any, **kwargs: Any) -> Any:
        """Upstream (engine_workers.py) leaves a loss's metrics as lists of `Metric`; here as numbers, for trackers."""
        result = super()._postprocess_output(output, **kwargs)
        metrics = tu.get(result, "metrics")
        for name, values in metrics.items():
            if isinstance(values, list):
                metrics[name] = float(Metric.aggregate_dp(values))
        return result


class BestKeeper(CheckpointHandler):
    """Keeps verl's last ``trainer.max_ckpt_to_keep`` checkpoints, and the one with the lowest validation loss as
    ``best/huggingface``, with its step and loss in ``best/step.json``."""

    latest: tuple[int, float] = (-1, math.inf)
    saved: list[Path]  # in order; of earlier processes' checkpoints only the one resumed from

    def validated(self, step: int, loss: float) -> None:
        """Records a validation loss; called before the checkpoint of that step is written, on the rank that logs."""
        self.latest = (step, loss)

    def load_checkpoint(self) -> int:
        """Upstream never deletes checkpoints of earlier processes; here the one resumed from is deleted when it is old."""
        step = super().load_checkpoint()
        own = step > 0 and self.resume_mode == "auto" and self.resume_from_path is None
        self.saved = [self._checkpoint(step)] if own else []
        return step

    def _checkpoint(self, step: int) -> Path:
        return Path(self.default_local_dir) / f"global_step_{step}"

    def save_checkpoint(self, step: int) -> None:
        """Upstream (checkpoint_handler.py) deletes the previous checkpoint once the engine's part of the new one is written:
        a process that dies before it is named has nothing to resume from. Here old ones are deleted after it is named."""
        saved = self._checkpoint(step)
        keep, self.max_ckpt_to_keep = self.max_ckpt_to_keep, None
        with saying_where(saved):
            super().save_checkpoint(step=step)
        self.max_ckpt_to_keep = keep
        if self.rank == 0:
            self.saved.append(saved)
            delete_older(self.saved, keep)
        self._keep_if_best(step, saved)

    def _keep_if_best(self, step: int, saved: Path) -> None:
        best = Path(self.default_local_dir) / "best"
        record = best / "step.json"
        lowest = json.loads(record.read_text())["val/loss"] if record.is_file() else math.inf
        # Without hf_model in checkpoint.save_contents no folder can be loaded by itself.
        if self.latest[0] != step or self.latest[1] >= lowest or not (saved / "huggingface").is_dir():
            return
        new, old = (best.with_name(f"best.{name}") for name in ("new", "old"))
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(saved / "huggingface", new / "huggingface", copy_function=os.link)
        for adapters in saved.glob("lora_train_meta.json"):
            os.link(adapters, new / adapters.name)
        (new / record.name).write_text(json.dumps({"step": step, "val/loss": self.latest[1]}))
        if best.is_dir():
            best.rename(old)
        new.rename(best)
        shutil.rmtree(old, ignore_errors=True)


class LatentSFTTrainer(SFTTrainer):
    def _build_config(self) -> None:
        if self.config.data.text_only:
            self.config.model.override_config.model_config.trained_shape = "text_only"
        super()._build_config()
        with open_dict(self.config):
            self.config.data.max_latents = LatentSettings.from_config(self.model_config.hf_config).max_latents
            self.config.data.supervise_decisions = self.config.latent.supervise_decisions
            self.config.data.targets = self.config.latent.targets

    def fit(self) -> None:
        """Upstream (sft_trainer.py) logs only the loss of a validation, with its own tracker; here other metrics are added."""
        tracking = sft_trainer.Tracking

        def with_predictions(*args: Any, **kwargs: Any) -> Tracking:
            tracker = tracking(*args, **kwargs)
            log = tracker.log

            def log_more(data: dict[str, float], step: int, **options: Any) -> None:
                if "val/loss" in data:
                    data.update(prediction_metrics(self.training_client.sums))
                    self.training_client.sums.clear()
                    self.ckpt_handler.validated(step, data["val/loss"])
                log(data=data, step=step, **options)

            tracker.log = log_more
            return tracker

        sft_trainer.Tracking = with_predictions
        try:
            super().fit()
        finally:
            sft_trainer.Tracking = tracking
        if self.rank == 0 and (skipped := counts(self.config.data.manifest)):
            print(f"skipped rows, listed in {self.config.data.manifest}: {dict(skipped)}")

    def _build_ckpt_handler(self) -> None:
        super()._build_ckpt_handler()
        self.ckpt_handler.__class__ = BestKeeper

    def _build_engine(self) -> None:
        """Upstream (sft_trainer.py) hard-codes the loss and the model type; here they are ours."""
        self.loss_fn = partial(latent_sft_loss, weight=self.config.latent.weight)
        self.training_client = LatentTrainingWorker(
            config=TrainingWorkerConfig(
                model_type=MODEL_TYPE,
                model_config=self.model_config,
                engine_config=self.engine_config,
                optimizer_config=self.optimizer_config,
                checkpoint_config=self.checkpoint_config,
                profiler_config=self.profiler_config,
            )
        )
        self.training_client.set_loss_fn(loss_fn=self.loss_fn)
        self.engine = self.training_client.engine


def train(config: DictConfig) -> None:
    """Runs one rank of stage 1, under torchrun."""
    initialize_global_process_group()
    LatentSFTTrainer(config=config).fit()
    destroy_global_process_group()
