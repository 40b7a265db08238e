"""The loss of all roles on made-up log-probs: what enters which ratio, which KL, and with which weight."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.rl.loss import la_dapo_loss
from future_l1_verl.rl.settings import LatentLoss

S, L, E = 4, 5, 6
SETTINGS = LatentSettings(LatentTokens(S, L, E), 2)
PROMPT, RESPONSE = [1, 2], [3, S, L, L, E, 7]
# text, start, a forced slot, a free slot, the end at the budget (masked), text
MASK = [1, 1, 1, 1, 0, 1]
DECISIONS, DENSITIES = [-1.0, -1.2, 0.0, -0.5, 0.0, -0.8], [0.0, 0.0, 0.01, 0.02, 0.0, 0.0]
SHARED = LatentLoss(ratio="shared", clip_low=0.1, clip_high=0.1, weight=0.5, kl_coef=0.0)
DECOUPLED = SHARED.model_copy(update={"ratio": "decoupled"})


def actor_config(**changed: object) -> FSDPActorConfig:
    return FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_mini_batch_size=1, ppo_micro_batch_size_per_gpu=1,
        **{"loss_agg_mode": "token-mean", "clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 3.0,
           "use_kl_loss": True, "kl_loss_coef": 1.0, "kl_loss_type": "low_var_kl"} | changed,
    )  # fmt: skip


def jagged(rows: list[list[float]]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def loss(
    latent: LatentLoss = SHARED,
    advantage: float = 0.0,
    new: tuple[list[float], list[float]] = (DECISIONS, DENSITIES),
    reference: list[float] = DECISIONS,
    latent_kl: list[float] = [0.0] * 6,
    **config: object,
) -> tuple[float, dict[str, float]]:
    data = TensorDict(
        {
            "prompts": jagged([PROMPT]), "responses": jagged([RESPONSE]), "input_ids": jagged([PROMPT + RESPONSE]),
            "response_mask": jagged([MASK]), "old_log_probs": jagged([DECISIONS]), "old_log_density": jagged([DENSITIES]),
            "advantages": jagged([[advantage] * 6]), "ref_log_prob": jagged([reference]),
        },
        batch_size=[1],
    )  # fmt: skip
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=5, global_batch_size=1)

    def over_sequence(values: list[float]) -> torch.Tensor:
        # The model's entries cover prompt and response, shifted: entry p scores token p + 1.
        return jagged([[9.0] * (len(PROMPT) - 1) + values + [9.0]])

    output = {
        name: over_sequence(v) for name, v in zip(("log_probs", "latent_term", "latent_kl"), (*new, latent_kl), strict=True)
    }
    tree = actor_config(**config)
    clip = replace(tree, clip_ratio_low=latent.clip_low, clip_ratio_high=latent.clip_high, global_batch_info={})
    value, metrics = la_dapo_loss(
        output, data, config=tree, latent_config=clip, latent=latent, settings=SETTINGS, min_latents=1
    )
    return float(value), {name: float(metric.aggregate()) for name, metric in metrics.items()}


def changed(values: list[float], index: int, by: float) -> list[float]:
    return [value + by * (i == index) for i, value in enumerate(values)]


def test_a_policy_that_is_its_reference_has_no_kl() -> None:
    assert loss()[0] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("index", [2, 3, 4])
def test_slots_and_forced_ends_are_not_in_the_token_kl(index: int) -> None:
    """docs/differences.md, row 5."""
    assert loss(reference=changed(DECISIONS, index, -5.0))[0] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("index", [0, 1, 5])
def test_text_is_and_counts_as_the_k3_estimate_over_all_tokens(index: int) -> None:
    # k3: exp(d) - d - 1 with d = ref - policy = -0.5, over 5 unmasked tokens of the batch.
    k3 = math.exp(-0.5) + 0.5 - 1
    reference = changed(DECISIONS, index, -0.5)
    assert loss(reference=reference)[0] == pytest.approx(k3 / 5, rel=1e-4)
    assert loss(reference=reference, kl_loss_coef=0.25)[0] == pytest.approx(0.25 * k3 / 5, rel=1e-4)
    assert loss(reference=reference, use_kl_loss=False)[0] == pytest.approx(0.0, abs=1e-7)


def test_the_latent_kl_has_its_own_coefficient_and_mask() -> None:
    everywhere = [1.0, 1.0, 0.25, 0.75, 1.0, 1.0]
    # Slots are the entries 2 and 3: 0.25 + 0.75, over 5 tokens.
    assert loss(SHARED.model_copy(update={"kl_coef": 0.5}), latent_kl=everywhere)[0] == pytest.approx(0.5 * 1.0 / 5)
    assert loss(latent_kl=everywhere)[0] == pytest.approx(0.0, abs=1e-7)


def test_shared_multiplies_decision_and_density_into_one_ratio() -> None:
    new = changed(DECISIONS, 3, 0.1), changed(DENSITIES, 3, 0.05)
    # Advantage 1: four entries with ratio 1 and one with exp(0.15), not clipped at 1.28; over 5 tokens.
    value, metrics = loss(advantage=1.0, new=new)
    assert value == pytest.approx(-(4 + math.exp(0.15)) / 5, rel=1e-5)
    # Two slots: the forced one with ratio 1.
    assert metrics["actor/latent/entries"] == 2 and metrics["actor/text/entries"] == 3
    assert metrics["actor/latent/ratio_sum"] == pytest.approx(1 + math.exp(0.15), rel=1e-5)


def test_decoupled_clips_and_weights_the_density_by_itself() -> None:
    """DePO: the decision stays with text (clip 0.28), the density has 0.1 and weight 0.5."""
    new = changed(DECISIONS, 3, 0.2), changed(DENSITIES, 3, 0.2)
    value, metrics = loss(DECOUPLED, advantage=1.0, new=new)
    # Decisions: text at 0, 1, 5 with ratio 1 and the free slot's exp(0.2) = 1.22. Densities: 1 and 1.22 clipped at 1.1.
    assert value == pytest.approx(-(3 + math.exp(0.2) + 0.5 * (1 + 1.1)) / 5, rel=1e-5)
    # Shown apart: tokens (0, 1, 5), and densities.
    assert metrics["actor/text/entries"] == 3 and metrics["actor/text/clip_fraction_sum"] == 0
    assert metrics["actor/latent/entries"] == 2 and metrics["actor/latent/clip_fraction_sum"] == 1


@pytest.mark.parametrize("latent", [SHARED, DECOUPLED])
def test_the_kl_that_is_shown_is_the_mean_over_tokens(latent: LatentLoss) -> None:
    metrics = loss(latent, reference=changed(DECISIONS, 0, -0.5))[1]
    assert metrics["actor/text/ref_kl_sum"] / metrics["actor/text/entries"] == pytest.approx(
        (math.exp(-0.5) - 0.5) / 3, rel=1e-4
    )


def test_clip_higher_and_dual_clip() -> None:
    up, down = changed(DECISIONS, 0, 1.0), changed(DECISIONS, 0, -1.0)
    # Advantage 1: exp(1) is clipped at 1.28 above, exp(-1) not at all.
    assert loss(advantage=1.0, new=(up, DENSITIES), use_kl_loss=False)[0] == pytest.approx(-(4 + 1.28) / 5, rel=1e-5)
    assert loss(advantage=1.0, new=(down, DENSITIES), use_kl_loss=False)[0] == pytest.approx(-(4 + math.exp(-1)) / 5, rel=1e-5)
    # Advantage -1: exp(-1) is clipped at 0.8; exp(2) = 7.4 is cut by the dual clip at 3.
    assert loss(advantage=-1.0, new=(down, DENSITIES), use_kl_loss=False)[0] == pytest.approx((4 + 0.8) / 5, rel=1e-5)
    far = changed(DECISIONS, 0, 2.0)
    assert loss(advantage=-1.0, new=(far, DENSITIES), use_kl_loss=False)[0] == pytest.approx((4 + 3) / 5, rel=1e-5)


@pytest.mark.parametrize("latent", [SHARED, DECOUPLED])
@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean"])
@given(seed=st.integers(0, 1000), entropy=st.sampled_from([0.0, 0.01]))
def test_without_spans_it_is_verls_own_dapo_loss(latent: LatentLoss, mode: str, seed: int, entropy: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def rows(scale: float = 1.0) -> list[list[float]]:
        return [(torch.randn(n, generator=generator) * scale).tolist() for n in (5, 3)]

    old, advantages, reference = rows(), rows(), rows()
    data = TensorDict(
        {
            "prompts": jagged([[1.0, 2.0]] * 2).long(), "responses": torch.nested.as_nested_tensor(
                [torch.tensor([1, 2, 3, E, 1]), torch.tensor([3, 2, 1])], layout=torch.jagged),
            "response_mask": jagged([[1, 1, 1, 1, 1], [1, 1, 1]]), "old_log_probs": jagged(old),
            "old_log_density": jagged([[0.0] * 5, [0.0] * 3]), "advantages": jagged(advantages),
            "ref_log_prob": jagged(reference),
        },
        batch_size=[2],
    )  # fmt: skip
    tu.assign_non_tensor(data, dp_size=2, batch_num_tokens=13, global_batch_size=5)

    def over_sequence(values: list[list[float]]) -> torch.Tensor:
        return jagged([[0.0, *row, 0.0] for row in values])

    new = [[a + 0.3 * b for a, b in zip(*pair, strict=True)] for pair in zip(old, rows(), strict=True)]
    output = {"log_probs": over_sequence(new), "entropy": over_sequence(rows())}
    config = actor_config(loss_agg_mode=mode, entropy_coeff=entropy, kl_loss_coef=0.01)
    expected, _ = ppo_loss(config, dict(output), data)
    ours, _ = la_dapo_loss(
        output | {"latent_term": over_sequence([[0.0] * 5, [0.0] * 3])}, data, config=config,
        latent_config=actor_config(loss_agg_mode=mode), latent=latent, settings=SETTINGS, min_latents=1,
    )  # fmt: skip
    assert float(ours) == float(expected)


@pytest.mark.parametrize(("field", "value"), [("ratio", "both"), ("weight", -1.0), ("clip_low", math.nan), ("kl_coef", -0.1)])
def test_impossible_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        LatentLoss(**SHARED.model_dump() | {field: value})
