"""``score_with_stub.py CANDIDATES OUT LOG SECONDS_PER_TEXT``: scoring in a process that can be killed."""

import sys
from pathlib import Path

import ray
from stub_backend import StubSettings

from data_prep.curation import pipeline
from data_prep.curation.job import Job
from data_prep.curation.patience import Patience
from data_prep.curation.questions import Prompts
from future_l1_verl.collector import RAY_HOOK

TRUTH = "the left wall"

if __name__ == "__main__":
    candidates, out, log = map(Path, sys.argv[1:4])
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=RAY_HOOK | {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
    )
    job = Job(candidates, candidates.parent, out, Prompts.read(), rollouts=4, shard_size=1)
    backend = StubSettings(TRUTH, log, seconds=float(sys.argv[4]))
    for _ in pipeline.score(job, backend, pipeline.Replicas(), None, Patience()):
        pass
