"""verl's SFT trainer with the latent loss."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from verl.trainer import sft_trainer
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group
from verl.utils.metric import Metric
from verl.utils.tracking import Tracking
from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.sft.engine import MODEL_TYPE
from future_l1_verl.sft.objective import latent_sft_loss, prediction_metrics
from future_l1_verl.sft.skipped import counts


class LatentTrainingWorker(TrainingWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sums: Counter[str] = Counter()

    def infer_batch(self, data: TensorDict) -> TensorDict:
        """Upstream reports the loss of a validation batch alone; here it also counts how well latents are predicted."""
        tu.assign_non_tensor(data, return_latent_states=True)
        output = super().infer_batch(data)
        if output is not None:
            metrics = tu.get(output, "metrics")
            self.sums.update({name.removeprefix("val/"): metrics[name] for name in metrics if name.startswith("val/")})
        return output

    def _postprocess_output(self, output: Any, **kwargs: Any) -> Any:
        """Upstream (engine_workers.py:181) leaves a loss's own metrics as lists of `Metric`, which trackers cannot log."""
        result = super()._postprocess_output(output, **kwargs)
        metrics = tu.get(result, "metrics")
        for name, values in metrics.items():
            if isinstance(values, list):
                metrics[name] = float(Metric.aggregate_dp(values))
        return result


class LatentSFTTrainer(SFTTrainer):
    def _build_config(self) -> None:
        super()._build_config()
        with open_dict(self.config):
            self.config.data.max_latents = LatentSettings.from_config(self.model_config.hf_config).max_latents
            self.config.data.supervise_decisions = self.config.latent.supervise_decisions

    def fit(self) -> None:
        """Upstream logs nothing of a validation but its loss, through a tracker that it makes itself (sft_trainer.py:330)."""
        tracking = sft_trainer.Tracking

        def with_predictions(*args: Any, **kwargs: Any) -> Tracking:
            tracker = tracking(*args, **kwargs)
            log = tracker.log

            def log_more(data: dict[str, float], step: int, **options: Any) -> None:
                if "val/loss" in data:
                    data.update(prediction_metrics(self.training_client.sums))
                    self.training_client.sums.clear()
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

    def _build_engine(self) -> None:
        """Upstream (sft_trainer.py:162) hard-wires the loss and the model type."""
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
    """One rank of stage 1, under torchrun."""
    initialize_global_process_group()
    LatentSFTTrainer(config=config).fit()
    destroy_global_process_group()
