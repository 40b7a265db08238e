"""Masks, while all rows are outside spans, the logits of the tokens that cannot be sampled there.

The mask is the bias of the matrix product that computes the logits, so it costs nothing extra: text runs as fast as in vLLM.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.lora.layers import BaseLayerWithLoRA


class OutsideMask:
    """Gives the tokens ``banned`` logits of -inf in all rows while ``active``."""

    def __init__(self, language_model: Any, banned: Sequence[int], dtype: torch.dtype) -> None:
        """Makes the logits processor of ``language_model`` use the mask.

        Upstream (vllm/model_executor/layers/logits_processor.py) accepts a bias of the head, which no Qwen model uses. Raises
        RuntimeError if this build's matrix product ignores the bias.
        """
        self.active = False
        processor, head = language_model.logits_processor, language_model.lm_head
        if isinstance(head, BaseLayerWithLoRA):
            head = head.base_layer
        shard = head.shard_indices
        rows = [token - shard.org_vocab_start_index for token in banned]
        here = [row for row in rows if 0 <= row < shard.num_org_elements]
        hidden = torch.zeros(1, language_model.config.hidden_size, dtype=dtype, device=head.weight.device)
        bias = torch.zeros(head.num_embeddings_per_partition, dtype=dtype, device=hidden.device)
        bias[here] = float("-inf")
        try:
            product = head.quant_method.apply(head, hidden, bias=bias)
        except RuntimeError:
            # A CPU kernel of 0.32 needs the bias as fp32, as upstream passes it (model_executor/layers/utils.py).
            bias = bias.float()
            product = head.quant_method.apply(head, hidden, bias=bias)
        if not product[0, here].isneginf().all():
            raise RuntimeError("this vLLM build's matrix product takes no bias, by which tokens of latent spans are masked")
        # A buffer: an engine that wakes from sleep restores only parameters and buffers.
        processor.register_buffer("outside", bias, persistent=False)
        stock = processor.forward

        def forward(
            lm_head: Any, hidden_states: Tensor, embedding_bias: Tensor | None = None, *args: Any, **kwargs: Any
        ) -> Tensor | None:
            return stock(lm_head, hidden_states, processor.outside if self.active else embedding_bias, *args, **kwargs)

        processor.forward = forward
