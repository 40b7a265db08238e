"""The engine's two hooks on a ragged batch of rollouts, packed and padded, with a stand-in for the model."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.modeling.latent_vl import LatentOutput
from future_l1_verl.sft import engine as engine_module
from future_l1_verl.training.engine import LatentEngine

S, L, E, PAD, VOCABULARY = 4, 5, 6, 0, 8
SETTINGS = LatentSettings(LatentTokens(S, L, E), 2)
#        prompt  text span of one latent, stopped       prompt  span up to the budget, text
ROWS = [[1, 2, 3, S, L, E, 7], [1, S, L, L, E]]
GO_ON = -0.375  # log(1 - p(end)) before the one free slot, as the model says


def engine() -> LatentEngine:
    """An engine without processes or weights."""
    instance = object.__new__(LatentEngine)
    instance.module = SimpleNamespace(latent=SETTINGS)
    instance.min_latents = 1
    instance.pad_to_length = instance.use_ulysses_sp = False
    instance.engine_config = SimpleNamespace(entropy_checkpointing=False)
    return instance


def batch(packed: bool) -> TensorDict:
    ids = torch.nested.as_nested_tensor([torch.tensor(row) for row in ROWS], layout=torch.jagged)
    positions = torch.nested.as_nested_tensor([torch.arange(len(row)) for row in ROWS], layout=torch.jagged)
    latents = torch.nested.as_nested_tensor([torch.ones(1, 3), torch.ones(2, 3)], layout=torch.jagged)
    data = TensorDict({"input_ids": ids, "position_ids": positions, "latents": latents}, batch_size=[2])
    tu.assign_non_tensor(data, use_remove_padding=packed, temperature=1.0, pad_token_id=PAD)
    return data


def expected_entries(logits: list[torch.Tensor]) -> list[list[float]]:
    """By hand: what follows each position, and what the output head decided of it (the role table without its density)."""
    first, second = (row.log_softmax(-1) for row in logits)
    return [
        # 2, 3, S are text; the first slot is forced: no decision; E is a free stop; 7 is text.
        [
            *[float(first[p, t]) for p, t in ((0, 2), (1, 3), (2, S))],
            0.0,
            float(first[4, E]),
            float(first[5, 7]),
        ],
        # S is text; a forced slot; a free slot: log(1 - p(end)); the end at the budget counts nothing.
        [float(second[0, S]), 0.0, GO_ON, 0.0],
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_every_entry_follows_the_role_table(packed: bool) -> None:
    """reference-audit.md, rows 3 and 14."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(len(row), VOCABULARY, generator=generator) for row in ROWS]
    density = [torch.zeros(len(row)) for row in ROWS]
    density[0][3], density[1][1], density[1][2] = 0.5, 0.25, 0.125
    go_on = [torch.zeros(len(row)) for row in ROWS]
    go_on[0][3], go_on[1][1], go_on[1][2] = -7.0, -7.0, GO_ON  # the others are forced
    if packed:
        rows = [torch.cat(values)[None].clone() for values in (logits, density, go_on)]
    else:
        rows = [torch.nn.utils.rnn.pad_sequence(values, batch_first=True) for values in (logits, density, go_on)]
    output = LatentOutput(logits=rows[0], latent_term=rows[1], log_go_on=rows[2])

    data = batch(packed)
    inputs, output_args = engine().prepare_model_inputs(data)
    assert inputs["latents"].shape == (3, 3)
    outputs = engine().prepare_model_outputs(output, output_args, data, None)
    for entries, expected, row in zip(outputs["log_probs"].unbind(), expected_entries(logits), ROWS, strict=True):
        # The last entry scores nothing: it has no token after it.
        assert entries[: len(row) - 1].tolist() == pytest.approx(expected, abs=1e-5)
    assert [row.tolist() for row in outputs["latent_term"].unbind()] == [row.tolist() for row in density]


def test_a_row_with_too_few_latents_is_named() -> None:
    """reference-audit.md, row 6."""
    data = batch(packed=True)
    data["latents"] = torch.nested.as_nested_tensor([torch.ones(1, 3), torch.ones(1, 3)], layout=torch.jagged)
    with pytest.raises(ValueError, match="row 1 of the micro-batch has 2 slots but 1 latents"):
        engine().prepare_model_inputs(data)


def test_latents_that_changed_on_the_way_are_refused() -> None:
    """reference-audit.md, row 7."""
    data = batch(packed=True)
    rows = data["latents"].unbind()
    data["latents_checksum"] = torch.tensor([[checksum(row)] for row in rows])
    engine_module._require_unchanged(data)
    changed = rows[1].clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(2.0))
    data["latents"] = torch.nested.as_nested_tensor([rows[0], changed], layout=torch.jagged)
    with pytest.raises(ValueError, match="row 1 of the batch"):
        engine_module._require_unchanged(data)
