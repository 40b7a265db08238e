"""What goes into the model for a batch, and what comes back for its rows; a stand-in for the model."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.modeling.latent_vl import LatentOutput
from future_l1_verl.platform.verl_engine import PortableEngine
from future_l1_verl.training import engine as engine_module
from future_l1_verl.training.engine import LatentEngine
from future_l1_verl.training.settings import EngineSettings

S, L, E = 4, 5, 6
SETTINGS = LatentSettings(LatentTokens(S, L, E), 2)
#  prompt, answer: a span of one latent, stopped · one up to the budget · text alone, to the first prompt
ROWS = [([1, 2, 3], [S, L, E, 7]), ([1], [S, L, L, E]), ([1, 2, 3], [8])]
UIDS = ["a", "b", "a"]


def engine(ranks: int = 1) -> LatentEngine:
    """An engine without processes or weights."""
    instance = object.__new__(LatentEngine)
    instance.module = SimpleNamespace(latent=SETTINGS)
    instance.latent = EngineSettings(likelihood="none")
    instance.ulysses_sequence_parallel_size = ranks
    return instance


def ragged(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch(uids: list[str] | None = UIDS, **media: Any) -> TensorDict:
    slots = [answer.count(L) for _, answer in ROWS]
    data = TensorDict(
        {
            "input_ids": ragged([torch.tensor(prompt + answer) for prompt, answer in ROWS]),
            "prompts": ragged([torch.tensor(prompt) for prompt, _ in ROWS]),
            "latents": ragged([torch.full((count, 3), float(row)) for row, count in enumerate(slots)]),
        },
        batch_size=[len(ROWS)],
    )
    positions = [torch.arange(len(prompt + answer)).expand(4, -1) + 10 * row for row, (prompt, answer) in enumerate(ROWS)]
    data["position_ids"] = tu.nested_tensor_from_tensor_list(positions, ragged_idx=2)
    if uids is not None:
        data["uid"] = NonTensorStack(*uids)
    if media:
        data["multi_modal_inputs"] = NonTensorStack(*media["rows"])
    tu.assign_non_tensor(data, temperature=0.9)
    return data


def test_a_prompt_goes_in_once_and_answers_after_all_prompts() -> None:
    inputs, _ = engine().prepare_model_inputs(batch())
    assert inputs["input_ids"].tolist() == [[1, 2, 3, 1, S, L, E, 7, S, L, L, E, 8]]
    # Prompts have the positions of their first answers, each answer its own.
    assert inputs["position_ids"][0].tolist() == [[0, 1, 2, 10, 3, 4, 5, 6, 11, 12, 13, 14, 23]]
    assert inputs["packing"].questions == (0, 1, 0)
    assert inputs["latents"].tolist() == [[0.0] * 3, [1.0] * 3, [1.0] * 3]


def test_without_a_uid_each_row_is_its_own_question() -> None:
    inputs, _ = engine().prepare_model_inputs(batch(uids=None))
    assert inputs["input_ids"].tolist() == [[1, 2, 3, 1, 1, 2, 3, S, L, E, 7, S, L, L, E, 8]]


def test_a_sequence_is_filled_up_to_a_multiple_of_its_ranks() -> None:
    packing = engine(ranks=4).prepare_model_inputs(batch())[0]["packing"]
    assert (packing.padding, len(packing)) == (3, 16)


def test_every_entry_follows_the_role_table() -> None:
    data = batch()
    _, output_args = engine().prepare_model_inputs(data)
    output = LatentOutput(
        # S, L, E, 7 · S, L, L, E · 8
        log_probs=torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -9.0]),
        latent_term=torch.tensor([0.5, 0.25, 0.125]),
        entropy=torch.arange(9.0),
        latent_states=torch.arange(9.0).view(3, 3),
        latent_targets=torch.zeros(3, 3),
    )
    found = engine().prepare_model_outputs(output, output_args, data, None)
    assert [row.tolist() for row in found["log_probs"].unbind()] == [
        # The first slot of a span is forced: no decision. A free stop is one.
        [0, 0, -1, 0, -3, -4, 0],
        # The second slot is free; the end at the budget is forced.
        [-5, 0, -7, 0, 0],
        [0, 0, -9, 0],
    ]
    assert [row.tolist() for row in found["latent_term"].unbind()] == [[0, 0, 0, 0.5, 0, 0, 0], [0, 0.25, 0.125, 0, 0], [0] * 4]
    assert [row.tolist() for row in found["entropy"].unbind()] == [[0, 0, 0, 1, 2, 3, 0], [4, 5, 6, 7, 0], [0, 0, 8, 0]]
    assert [row.tolist() for row in found["latent_states"].unbind()] == [[[0, 1, 2]], [[3, 4, 5], [6, 7, 8]], []]


def test_a_row_with_too_few_latents_is_named() -> None:
    data = batch()
    data["latents"] = ragged([torch.ones(1, 3), torch.ones(1, 3), torch.ones(0, 3)])
    with pytest.raises(ValueError, match="row 1 of the micro-batch has 2 slots but 1 latents"):
        engine().prepare_model_inputs(data)


def test_one_uid_with_two_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="rows 0 and 1 of the micro-batch have the same uid but not the same prompt"):
        engine().prepare_model_inputs(batch(uids=["a", "a", "b"]))


def test_latents_that_changed_on_the_way_are_refused() -> None:
    data = batch()
    rows = data["latents"].unbind()
    data["latents_checksum"] = torch.tensor([[checksum(row)] for row in rows])
    engine_module._require_unchanged(data)
    changed = rows[1].clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(2.0))
    data["latents"] = ragged([rows[0], changed, rows[2]])
    with pytest.raises(ValueError, match="row 1 of the batch"):
        engine_module._require_unchanged(data)


GRID = torch.tensor([[1, 2, 2]])


@pytest.mark.parametrize("carrier", [0, 2])
def test_pixels_of_one_row_serve_all_answers_and_go_in_once(carrier: int) -> None:
    rows = [{"image_grid_thw": GRID} | ({"pixel_values": torch.ones(4, 8)} if row == carrier else {}) for row in range(3)]
    rows[1] = {}  # the other question is text alone
    data = batch(rows=rows)
    engine_module._share_pixels(data)
    assert [sorted(inputs) for inputs in data["multi_modal_inputs"]] == [["image_grid_thw", "pixel_values"], [], [
        "image_grid_thw", "pixel_values"]]  # fmt: skip
    first, last = data["multi_modal_inputs"][0], data["multi_modal_inputs"][2]
    assert first["pixel_values"].data_ptr() == last["pixel_values"].data_ptr()
    inputs, _ = engine().prepare_model_inputs(data)
    assert inputs["pixel_values"].shape == (4, 8) and inputs["image_grid_thw"].tolist() == GRID.tolist()


def test_a_question_without_its_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="row 0 of the batch has image_grid_thw, but no row of its question has pixel_values"):
        engine_module._share_pixels(batch(rows=[{"image_grid_thw": GRID}, {}, {"image_grid_thw": GRID}]))


@pytest.mark.parametrize("computed", [torch.bfloat16, torch.float32])
def test_weights_leave_in_what_the_actor_computes_with(computed: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's are the master weights, in fp32."""
    master = {"a": torch.full((2,), 1 / 3), "b": torch.ones(1)}
    monkeypatch.setattr(PortableEngine, "get_per_tensor_param", lambda self: (iter(master.items()), "adapter"), raising=False)
    instance = engine()
    instance._autocast_dtype = computed
    weights, adapter = instance.get_per_tensor_param()
    sent = dict(weights)
    assert adapter == "adapter" and {name: weight.dtype for name, weight in sent.items()} == dict.fromkeys(master, computed)
    assert torch.equal(sent["a"], master["a"].to(computed))
