"""Slots stay out of the token KL, and masked entries out of everything."""

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig

from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.rl.loss import la_dapo_loss

S, L, E = 4, 5, 6
PROMPT, RESPONSE = [1, 2], [3, S, L, L, E, 7]


def jagged(row: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row)], layout=torch.jagged)


def loss(reference: list[float], kl_coef: float = 1.0) -> float:
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_mini_batch_size=1, ppo_micro_batch_size_per_gpu=1, loss_agg_mode="token-mean",
        clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=3.0, use_kl_loss=False, kl_loss_type="low_var_kl",
    )  # fmt: skip
    log_probs = [-1.0, -1.2, 0.01, -0.5, 0.0, -0.8]
    data = TensorDict(
        {
            "prompts": jagged(PROMPT), "responses": jagged(RESPONSE), "input_ids": jagged(PROMPT + RESPONSE),
            "response_mask": jagged([1, 1, 1, 1, 0, 1]), "old_log_probs": jagged(log_probs),
            "advantages": jagged([0.0] * 6), "ref_log_prob": jagged(reference),
        },
        batch_size=[1],
    )  # fmt: skip
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=5, global_batch_size=1)
    # The model's entries cover prompt and response, shifted: entry p scores token p + 1.
    output = {"log_probs": jagged([0.0] * (len(PROMPT) - 1) + log_probs + [0.0])}
    value, _ = la_dapo_loss(output, data, config=config, kl_coef=kl_coef, latent=LatentSettings(LatentTokens(S, L, E), 2))
    return float(value)


SAME = [-1.0, -1.2, 0.01, -0.5, 0.0, -0.8]


def test_a_policy_that_is_its_reference_has_no_kl() -> None:
    assert loss(SAME) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("index", [2, 3, 4])
def test_slots_and_forced_ends_are_not_in_it(index: int) -> None:
    changed = list(SAME)
    changed[index] -= 5.0
    assert loss(changed) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("index", [0, 1, 5])
def test_text_is_and_counts_as_the_k3_estimate_over_all_tokens(index: int) -> None:
    changed = list(SAME)
    changed[index] -= 0.5
    # k3: exp(d) - d - 1 with d = ref - policy = -0.5, over 5 unmasked tokens of the batch.
    k3 = 2.718281828**-0.5 + 0.5 - 1
    assert loss(changed) == pytest.approx(k3 / 5, rel=1e-4)
    assert loss(changed, kl_coef=0.0) == pytest.approx(0.0, abs=1e-7)
