"""The output head of a model whose rows are all outside spans: what cannot be sampled there is impossible in its logits.

The mask is the bias of the product that makes the logits, so that it costs no operation: what has no span runs as in vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.lora.layers import BaseLayerWithLoRA


class OutsideMask:
    """While ``active``, the tokens ``banned`` have logits of -inf in all rows."""

    def __init__(self, language_model: nn.Module, banned: Sequence[int], dtype: torch.dtype) -> None:
        """Gives ``language_model`` a logits processor that knows the mask.

        Upstream (vllm/model_executor/layers/logits_processor.py) takes a bias of the head, which no Qwen model gives it. Raises
        RuntimeError if this build's matrix product leaves the bias out.
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
            # A kernel of 0.32 for a CPU, to which upstream gives biases of layers as fp32 (model_executor/layers/utils.py).
            bias = bias.float()
            product = head.quant_method.apply(head, hidden, bias=bias)
        if not product[0, here].isneginf().all():
            raise RuntimeError("this vLLM build's matrix product takes no bias, by which tokens of latent spans are masked")
        # A buffer, since what a sleeping engine throws away comes back for parameters and buffers alone.
        processor.register_buffer("outside", bias, persistent=False)
        stock = processor.forward

        def forward(
            lm_head: nn.Module, hidden_states: Tensor, embedding_bias: Tensor | None = None, *args: Any, **kwargs: Any
        ) -> Tensor | None:
            return stock(lm_head, hidden_states, processor.outside if self.active else embedding_bias, *args, **kwargs)

        processor.forward = forward
