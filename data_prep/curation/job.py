"""A scoring job: its candidates and settings, and the files of its shards."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data_prep.curation import candidates as candidate_files
from data_prep.curation import questions
from data_prep.curation import scores as score_files
from data_prep.curation.candidates import Candidate
from data_prep.curation.questions import Prompts
from data_prep.curation.scores import CONDITIONS, Score


@dataclass(frozen=True)
class Job:
    """Candidates and settings of a job; ``folder`` holds ``rollouts/`` and ``scores/``. All machines must see the paths."""

    candidates: Path
    videos: Path
    folder: Path
    prompts: Prompts
    rollouts: int = 8
    seed: int = 0
    shard_size: int = 64
    max_pixels: int = 512 * 512

    def read(self, shard: int) -> list[Candidate]:
        return candidate_files.part(self.candidates, shard * self.shard_size, (shard + 1) * self.shard_size)

    def texts_file(self, shard: int) -> Path:
        return self.folder / "rollouts" / f"shard-{shard:06d}.parquet"

    def scores_file(self, shard: int) -> Path:
        return self.folder / "scores" / f"shard-{shard:06d}.parquet"

    def begun(self, shard: int) -> tuple[list[Candidate], list[Score], Counter[str]]:
        """Returns a shard's candidates, their known scores, and their measurements so far. If the worker died right after it
        finished, the shard has its scores already."""
        found = self.read(shard)
        for file in (self.texts_file(shard), self.scores_file(shard)):
            if file.exists():
                return found, score_files.rows(file), Counter(score_files.measured(file))
        return found, [self._nothing(candidate["id"]) for candidate in found], Counter(candidates=len(found))

    def _nothing(self, candidate_id: str) -> Score:
        unknown = {"text": None, "correct": None, "parsed": None, "error": None}
        asked = {c: questions.seeds(self.seed, candidate_id, c, self.rollouts) for c in CONDITIONS}
        return {"id": candidate_id} | {c: [{"seed": seed} | unknown for seed in asked[c]] for c in CONDITIONS}
