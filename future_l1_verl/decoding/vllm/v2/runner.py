"""Latent spans on vLLM's V2 model runner: four overrides, each of which calls the method that it overrides."""

from typing import Any

from torch import Tensor
from vllm.model_executor.model_loader import get_model_cls
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.sample.output import SamplerOutput

from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.decoding.vllm.v2.state import LatentModelState


class LatentRunnerMixin:
    """Overrides of vllm/v1/worker/gpu/model_runner.py, from which the runners of other devices inherit."""

    @property
    def spans(self) -> LatentModelState:
        return self.model_state

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Upstream asks the model for its state's class (model_states/__init__.py), and the state for a sampler; here ours.

        Raises ValueError for a model that has its own state.
        """
        model = get_model_cls(self.model_config)
        if hasattr(model, "get_model_state_cls"):
            raise ValueError(f"latent spans do not work with {model.__name__}, which has a model state of its own")
        model.get_model_state_cls = lambda _: LatentModelState
        try:
            super().load_model(*args, **kwargs)
        finally:
            del model.get_model_state_cls

    def execute_model(self, scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
        """Upstream adds and removes requests and runs the model; here the latents of the last step are stored first."""
        self.spans.begin(scheduler_output)
        return super().execute_model(scheduler_output, *args, **kwargs)

    def sample(
        self, hidden_states: Tensor, input_batch: InputBatch, grammar_output: GrammarOutput | None
    ) -> tuple[SamplerOutput, Tensor, Tensor]:
        """Upstream samples from logits only; here the hidden states behind them are recorded as latents."""
        if grammar_output is not None:
            raise RuntimeError("structured output got past the scheduler's check; latent spans do not work with it")
        found = super().sample(hidden_states, input_batch, grammar_output)
        sampled_from = hidden_states.index_select(0, input_batch.logits_indices)
        self.spans.sampled(input_batch, self.sampler.decided, sampled_from, found[1] > 0)
        return found

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput | AsyncModelRunnerOutput | None:
        """Upstream samples and starts to copy the output of a step to the host; here its latents are copied too."""
        output = super().sample_tokens(grammar_output)
        if not isinstance(output, AsyncModelRunnerOutput):
            return output
        return self.spans.finish(output, self.output_copy_stream if self.device.type == "cuda" else None)


def install(runner: GPUModelRunner, settings: EngineSettings) -> None:
    """Gives a constructed runner the overrides above, before it loads the model.

    Its class is replaced on the instance: workers construct the runner of their device by name, and only some accept another.

    Raises ValueError if the model is not fed embeddings.
    """
    if not runner.supports_mm_inputs:
        raise ValueError("latent spans need inputs_embeds, which vLLM does not use if every multimodal limit is 0")
    stock = type(runner)
    runner.__class__ = type(f"Latent{stock.__name__}", (LatentRunnerMixin, stock), {})
