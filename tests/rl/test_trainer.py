"""What the trainer does with a batch before an update: dividing it, giving pixels to its parts, and leaving out a pass."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from future_l1_verl.rl import trainer as module
from future_l1_verl.rl.modes import SyncTrainer

SIBLINGS = 4


class Queue:
    """TransferQueue's two calls on a dict of rows."""

    def __init__(self, rows: dict[str, dict[str, Any]]) -> None:
        self.rows, self.read = rows, 0

    def kv_batch_get(self, keys: list[str], select_fields: list[str], **_: Any) -> TensorDict:
        self.read += len(keys)
        fields = {name: NonTensorStack(*[self.rows[key][name] for key in keys]) for name in select_fields}
        return TensorDict(fields, batch_size=len(keys))

    def kv_batch_put(self, keys: list[str], fields: TensorDict, **_: Any) -> None:
        for name in fields.keys():  # noqa: SIM118  a TensorDict is no dict
            for key, value in zip(keys, fields[name], strict=True):
                self.rows[key][name] = value


def trainer(ranks: int, questions: int, **actor: int) -> SyncTrainer:
    """A trainer without workers whose updates have ``questions`` questions."""
    instance = object.__new__(SyncTrainer)
    settings = {"ppo_mini_batch_size": questions, "ppo_epochs": 1} | actor
    instance.config = OmegaConf.create(
        {"actor_rollout_ref": {"actor": settings, "rollout": {"n": SIBLINGS}}, "trainer": {"critic_warmup": 0}}
    )
    instance.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(ranks))})
    instance.tokenizer = SimpleNamespace(eos_token_id=0)
    instance.use_critic, instance.use_reference_policy, instance.ref_in_actor = False, True, True
    instance.global_steps, instance.parameter_sync_step = 1, 1
    return instance


def batch(questions: int, monkeypatch: pytest.MonkeyPatch) -> tuple[KVBatchMeta, Queue]:
    """Answers in the order of their arrival; the third of each question has its pixels."""
    keys = [f"q{question}_{answer}_0" for answer in range(SIBLINGS) for question in range(questions)]
    rows = {
        key: {"multi_modal_inputs": {"image_grid_thw": 1} | ({"pixel_values": key[:2]} if "_2_" in key else {})} for key in keys
    }
    queue = Queue(rows)
    monkeypatch.setattr(module, "tq", queue)
    tags = [{"prompt_len": 100 + 10 * int(key[1]), "response_len": 5} for key in keys]
    return KVBatchMeta(partition_id="train", keys=keys, tags=tags), queue


def parts(order: KVBatchMeta, size: int) -> list[list[str]]:
    return [order.keys[start : start + size] for start in range(0, len(order.keys), size)]


def assert_every_part_has_pixels(order: KVBatchMeta, queue: Queue, size: int) -> None:
    for part in parts(order, size):
        for question in {key[:2] for key in part}:
            pixels = {queue.rows[key]["multi_modal_inputs"].get("pixel_values") for key in part if key[:2] == question}
            assert pixels - {None} == {question}


def test_answers_to_a_question_go_to_one_rank_and_nothing_is_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, queue = batch(4, monkeypatch)
    metrics: dict[str, float] = {}
    order = trainer(ranks=2, questions=4)._balance_batch(meta, metrics)
    assert [len({key[:2] for key in part}) for part in parts(order, 8)] == [2, 2]
    assert queue.read == 0
    assert_every_part_has_pixels(order, queue, 8)
    # Prompts of 100, 110, 120 and 130 tokens count once: 460 and 16 answers of 5, the longest with the shortest.
    assert metrics["global_seqlen/mean"] == 270.0
    assert metrics["global_seqlen/balanced_max"] == metrics["global_seqlen/balanced_min"] == 270


@pytest.mark.parametrize(("ranks", "questions", "update"), [(4, 2, 2), (8, 2, 2), (2, 4, 1)])
def test_each_part_of_a_divided_question_gets_its_pixels(
    ranks: int, questions: int, update: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ranks than questions; and updates of one question on two ranks."""
    meta, queue = batch(questions, monkeypatch)
    order = trainer(ranks, update)._balance_batch(meta, {})
    for size in (len(order) // ranks, update * SIBLINGS // ranks):
        assert_every_part_has_pixels(order, queue, size)


def test_a_reference_on_other_devices_gets_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, queue = batch(2, monkeypatch)
    instance = trainer(ranks=1, questions=2)
    instance.ref_in_actor, instance.ref_policy_wg = False, SimpleNamespace(_dispatch_info={"ref": list(range(8))})
    order = instance._balance_batch(meta, {})
    assert_every_part_has_pixels(order, queue, 1)


def test_questions_of_text_alone_have_nothing_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, queue = batch(2, monkeypatch)
    for row in queue.rows.values():
        row["multi_modal_inputs"] = {}
    trainer(ranks=4, questions=2)._balance_batch(meta, {})
    assert all(row["multi_modal_inputs"] == {} for row in queue.rows.values())


def test_one_update_of_the_weights_needs_no_pass_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, _ = batch(4, monkeypatch)
    assert trainer(1, questions=4)._needs_old_pass(meta) is None
    assert "16 answers is more than an update" in trainer(1, questions=2)._needs_old_pass(meta)
    assert "ppo_epochs is 2" in trainer(1, questions=4, ppo_epochs=2)._needs_old_pass(meta)
    behind = trainer(1, questions=4)
    behind.parameter_sync_step = 2
    assert "weights after 2 updates" in behind._needs_old_pass(meta)


def test_versions_of_rows_that_only_fill_up_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, queue = batch(1, monkeypatch)
    for number, key in enumerate(meta.keys):
        queue.rows[key]["extra_fields"] = {"segments": [(3, 1), (4, number)]}
    meta.tags[3] = {"is_padding": True, "response_len": 1}
    expected = torch.tensor([[3, -1, -1], [3, 4, -1], [3, 4, 4], [-1, -1, -1]])
    assert torch.equal(trainer(1, 1)._versions(meta), expected)


def test_a_run_whose_rollout_is_another_model_ends_at_its_first_step() -> None:
    """The gap of 2.09 nats is what a synchronisation that lost two buffers made (vLLM 0.32 with load_format=dummy)."""
    instance = trainer(ranks=1, questions=1)
    instance.config.parity = {"most_at_first": 0.5}

    def steps(*gaps: float | None) -> None:
        instance.compared = False
        for gap in gaps:
            instance._require_parity(
                {"parity/entries": 0.0} if gap is None else {"parity/entries": 9.0, "parity/text_gap_mean": gap}
            )

    steps(0.49, 2.09)  # later steps show it in their metrics
    steps(None, None, 0.02)
    for gaps in ((2.09,), (None, 2.09)):
        with pytest.raises(
            RuntimeError, match=r"differ by 2\.09 nats on average at the first step \(parity\.most_at_first=0\.5\)"
        ):
            steps(*gaps)
