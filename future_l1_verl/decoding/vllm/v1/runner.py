"""Latent spans on vLLM's V1 model runner: five overrides, each of which calls the method that it overrides."""

from typing import Any

from torch import Tensor
from vllm.sequence import IntermediateTensors
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput, SamplerOutput
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.decoding.vllm.v1.decoder import SpanDecoder
from future_l1_verl.decoding.vllm.v1.head import OutsideMask
from future_l1_verl.decoding.vllm.v1.plan import Batch
from future_l1_verl.decoding.vllm.v1.sampler import LatentSampler

_Runner: Any = object  # `install` puts the mixin in front of the runner of the device


class LatentRunnerMixin(_Runner):
    """Overrides of vllm/v1/worker/gpu_model_runner.py, from which the runners of other devices inherit."""

    spans: SpanDecoder
    outside: OutsideMask
    sampler: LatentSampler
    _hidden: Tensor

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Upstream loads the weights; here the output head also gets the mask of tokens not allowed outside spans."""
        super().load_model(*args, **kwargs)
        tokens, spans = self.spans.tokens, self.spans.settings.defaults.spans
        banned = (tokens.latent,) if spans else (tokens.latent, tokens.start)
        self.outside = OutsideMask(self.get_model().get_language_model(), banned, self.dtype)

    def execute_model(self, scheduler_output: SchedulerOutput, intermediate_tensors: IntermediateTensors | None = None) -> Any:
        """Upstream updates its batch and runs the model; here the latents of new and finished requests are updated first."""
        self.spans.begin(scheduler_output)
        return super().execute_model(scheduler_output, intermediate_tensors)

    def _preprocess(
        self,
        scheduler_output: SchedulerOutput,
        num_input_tokens: int,
        intermediate_tensors: IntermediateTensors | None = None,
    ) -> tuple[Any, ...]:
        """Upstream embeds token ids into the persistent ``inputs_embeds``; here the row of a slot gets its latent instead.

        CUDA graphs read that buffer, so its rows are written in place.
        """
        prepared = super()._preprocess(scheduler_output, num_input_tokens, intermediate_tensors)
        n = self.input_batch.num_reqs
        batch = Batch(
            request_ids=self.input_batch.req_ids,
            computed=self.input_batch.num_computed_tokens_cpu[:n],
            offsets=self.query_start_loc.np[: n + 1],
            discarded=self.discard_request_mask.np[:n],
            token_ids=self.input_batch.token_ids_cpu,
        )
        inputs_embeds = prepared[1]
        self.spans.inject(batch, inputs_embeds)
        self.outside.active = self.spans.rows is None
        return prepared

    def _sample(self, logits: Tensor | None, spec_decode_metadata: SpecDecodeMetadata | None) -> SamplerOutput:
        """Upstream samples with ``self.sampler``; here the sampler gets the spans first, and its result is recorded."""
        turn = self.sampler.turn
        turn.rows, turn.decided = self.spans.rows, None
        output = super()._sample(logits, spec_decode_metadata)
        turn.rows, self.outside.active = None, False  # log-probs of prompts are computed after this
        self.spans.sampled(output.sampled_token_ids, turn.decided, self._hidden)
        return output

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput | AsyncModelRunnerOutput:
        """Upstream samples, builds the output of a step and drops the hidden states; here these are kept until then."""
        if self.execute_model_state is None:
            return super().sample_tokens(grammar_output)
        if grammar_output is not None:
            raise RuntimeError("structured output got past the scheduler's check; latent spans do not work with it")
        self._hidden = self.execute_model_state.sample_hidden_states
        output = super().sample_tokens(grammar_output)
        del self._hidden
        if isinstance(output, AsyncModelRunnerOutput):
            stream = self._get_or_create_async_output_copy_stream() if self.device.type == "cuda" else None
            return self.spans.finish_async(output, stream)
        return self.spans.finish(output)


def install(runner: Any, settings: EngineSettings) -> None:
    """Gives a constructed runner the overrides above and a sampler that knows spans.

    Its class is replaced on the instance: workers construct the runner of their device by name, deep inside
    ``init_device``, where no other class can be given.

    Raises ValueError if the model is not fed embeddings.
    """
    if not runner.supports_mm_inputs:
        raise ValueError("latent spans need inputs_embeds, which vLLM does not use if every multimodal limit is 0")
    stock = type(runner)
    runner.__class__ = type(f"Latent{stock.__name__}", (LatentRunnerMixin, stock), {})
    runner.spans = SpanDecoder(settings, runner.device)
    runner.sampler = LatentSampler(runner.sampler, settings.tokens, settings.defaults.spans)
