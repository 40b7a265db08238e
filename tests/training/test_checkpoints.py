"""The checkpoint before, while the next one is written; upstream's part of it is a stand-in that is interrupted."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.checkpoint import CheckpointHandler

from future_l1_verl.rl.modes import SyncTrainer
from future_l1_verl.sft.trainer import BestKeeper
from future_l1_verl.training.checkpoints import CheckpointFailed, open_whole

TRACKER = "latest_checkpointed_iteration.txt"


def there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Upstream:
    """Writes a step's folder and names it; interrupted in between if told so. Remembers what it was told to keep."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.full, self.kept = folder, False, set()

    def save(self, step: int, keep: int | None) -> None:
        self.kept.add(keep)
        (self.folder / f"global_step_{step}").mkdir()
        with trainer_base.open(self.folder / TRACKER, "w") as file:
            if self.full:
                raise OSError(28, "No space left on device")
            file.write(str(step))


def test_stage_2_has_a_checkpoint_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(tmp_path)
    trainer = object.__new__(SyncTrainer)
    settings = {"default_local_dir": str(tmp_path), "max_actor_ckpt_to_keep": 1, "resume_mode": "auto"}
    trainer.config, trainer.global_steps = OmegaConf.create({"trainer": settings}), 3
    (tmp_path / "global_step_3").mkdir()
    monkeypatch.setattr(trainer_base.PPOTrainer, "_load_checkpoint", lambda self: None)
    trainer._load_checkpoint()  # of a process before
    monkeypatch.setattr(
        trainer_base.PPOTrainer,
        "_save_checkpoint",
        lambda self: upstream.save(self.global_steps, self.config.trainer.max_actor_ckpt_to_keep),
    )
    for trainer.global_steps in (6, 9):
        trainer._save_checkpoint()
        assert there(tmp_path) == [f"global_step_{trainer.global_steps}", TRACKER]
    trainer.global_steps, upstream.full = 12, True
    with pytest.raises(
        CheckpointFailed, match=r"global_step_12 could not be written, [\d,]+ MiB are free there.*No space left"
    ):
        trainer._save_checkpoint()
    assert there(tmp_path) == ["global_step_12", "global_step_9", TRACKER] and (tmp_path / TRACKER).read_text() == "9"
    assert upstream.kept == {None}  # it deletes nothing itself


def best_keeper(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> BestKeeper:
    """Goes on from ``step``."""
    keeper = object.__new__(BestKeeper)
    keeper.default_local_dir, keeper.max_ckpt_to_keep, keeper.rank = str(folder), 1, 0
    keeper.resume_mode, keeper.resume_from_path = "auto", None
    monkeypatch.setattr(CheckpointHandler, "load_checkpoint", lambda self: step)
    keeper.load_checkpoint()
    return keeper


def test_stage_1_has_a_checkpoint_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(tmp_path)
    monkeypatch.setattr(trainer_base, "open", open_whole, raising=False)  # this stage's names it so by itself
    keeper = best_keeper(tmp_path, 3, monkeypatch)
    (tmp_path / "global_step_3").mkdir()
    monkeypatch.setattr(CheckpointHandler, "save_checkpoint", lambda self, step: upstream.save(step, self.max_ckpt_to_keep))
    for step in (6, 9):
        keeper.save_checkpoint(step)
        assert there(tmp_path) == [f"global_step_{step}", TRACKER]
    upstream.full = True
    with pytest.raises(CheckpointFailed):
        keeper.save_checkpoint(12)
    assert there(tmp_path) == ["global_step_12", "global_step_9", TRACKER]
    assert upstream.kept == {None}


def test_the_best_checkpoint_is_replaced_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = best_keeper(tmp_path, 0, monkeypatch)

    def save(self: BestKeeper, step: int) -> None:
        (tmp_path / f"global_step_{step}/huggingface").mkdir(parents=True)
        (tmp_path / f"global_step_{step}/huggingface/weights").write_text(str(step))

    monkeypatch.setattr(CheckpointHandler, "save_checkpoint", save)
    for step, loss in ((3, 1.0), (6, 0.5), (9, 0.7)):
        keeper.validated(step, loss)
        keeper.save_checkpoint(step)
    assert (tmp_path / "best/huggingface/weights").read_text() == "6"
    monkeypatch.setattr("future_l1_verl.sft.trainer.os.link", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
    keeper.validated(12, 0.1)
    with pytest.raises(OSError, match="killed here"):
        keeper.save_checkpoint(12)
    assert (tmp_path / "best/huggingface/weights").read_text() == "6"
