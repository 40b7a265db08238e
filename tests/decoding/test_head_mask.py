"""Tokens that cannot be sampled outside spans, as a bias of the output head, on a vocabulary of six over one and two shards."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.logits_processor import LogitsProcessor

from future_l1_verl.decoding.vllm.v1.head import OutsideMask


@pytest.fixture(autouse=True)
def of_an_engine() -> Iterator[None]:
    """vLLM 0.32 makes layers within an engine's config alone."""
    with set_current_vllm_config(VllmConfig()):
        yield


WEIGHT = torch.arange(12.0).reshape(6, 2)
HIDDEN = torch.tensor([[1.0, 2.0], [0.5, -1.0]])


def linear(head: nn.Module, hidden: Tensor, bias: Tensor | None) -> Tensor:
    return nn.functional.linear(hidden, head.weight, bias)


class Model(nn.Module):
    """A language model's head, or the shard of it that has the tokens from ``first`` on."""

    def __init__(self, first: int = 0, size: int = 6, apply=linear) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=2)
        self.logits_processor = LogitsProcessor(6)
        self.logits_processor._gather_logits = lambda logits: logits if size == 6 else None  # of a rank that only helps
        self.lm_head = nn.Module()
        self.lm_head.weight = WEIGHT[first : first + size]
        self.lm_head.tp_size = 1
        self.lm_head.num_embeddings_per_partition = size
        self.lm_head.shard_indices = SimpleNamespace(org_vocab_start_index=first, num_org_elements=size)
        self.lm_head.quant_method = SimpleNamespace(apply=apply)

    def compute_logits(self, hidden: Tensor) -> Tensor | None:
        return self.logits_processor(self.lm_head, hidden)


def test_banned_tokens_are_impossible_while_it_is_active_and_nothing_else_changes() -> None:
    model = Model()
    mask = OutsideMask(model, (4, 3), torch.float32)
    plain = HIDDEN @ WEIGHT.T
    assert torch.equal(model.compute_logits(HIDDEN), plain)
    mask.active = True
    expected = plain.clone()
    expected[:, [3, 4]] = float("-inf")
    assert torch.equal(model.compute_logits(HIDDEN), expected)
    assert list(model.state_dict()) == [], "it is no weight of the checkpoint"
    assert [name for name, _ in model.named_buffers()] == ["logits_processor.outside"]


@pytest.mark.parametrize(("first", "masked"), [(0, []), (3, [0, 1])])
def test_a_shard_masks_the_tokens_that_it_has(first: int, masked: list[int]) -> None:
    model = Model(first, 3)
    OutsideMask(model, (4, 3), torch.float32)
    assert model.logits_processor.outside.isinf().nonzero().flatten().tolist() == masked


def test_a_product_without_a_bias_is_refused() -> None:
    with pytest.raises(RuntimeError, match="takes no bias"):
        OutsideMask(Model(apply=lambda head, hidden, bias: linear(head, hidden, None)), (4,), torch.float32)
