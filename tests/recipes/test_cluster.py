"""``slurm.sh`` with real Ray and stand-ins for Slurm's commands (two nodes, both this machine), and ``submit.sh``."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dry_run import ROOT, run

pytestmark = pytest.mark.engine

# Runs what it is given here, whatever node it is for.
SRUN = """#!/usr/bin/env bash
while [ "$1" != .venv/bin/ray ]; do shift; done
echo $$ >>pids
exec "$@"
"""
SCONTROL = "#!/usr/bin/env bash\nprintf 'a\\nb\\n'\n"

# Recipes. One says what it sees of Ray, also as somebody who has no token; one takes a node away and would go on for ever.
LOOK = """
echo "arguments: $*"
look() { timeout 60 .venv/bin/python -c 'import ray; ray.init(logging_level="error"); print(len(ray.nodes()), "nodes")'; }
look
unset RAY_AUTH_TOKEN RAY_AUTH_MODE
HOME=/nowhere look || echo refused
exit 3
"""
KILL = """
echo taking
kill "$(tail -n 1 pids)"
sleep 600
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A root whose recipes install nothing, and the environment of a Slurm job there."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "bin").mkdir()
    files = {"recipes/env.sh": "", "recipes/look.sh": LOOK, "recipes/kill.sh": KILL, "bin/srun": SRUN, "bin/scontrol": SCONTROL}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "[a-b]", "SLURM_CPUS_ON_NODE": "1"}
    folders = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    yield tmp_path, os.environ | slurm | folders
    shutil.rmtree(f"/tmp/ray-{os.getpid()}")


def submit(job: tuple[Path, dict[str, str]], *arguments: str) -> subprocess.CompletedProcess[str]:
    """As sbatch does: a copy of the script, run elsewhere."""
    root, environment = job
    script = shutil.copy(root / "recipes/slurm.sh", root / "slurm_script")
    done = subprocess.run(["bash", script, *arguments], cwd="/", env=environment, capture_output=True, text=True, timeout=900)
    started = [int(pid) for pid in (root / "pids").read_text().split()]
    assert len(started) == 2 and not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    return done


@pytest.mark.e2e
def test_a_recipe_runs_on_a_ray_of_all_nodes_that_only_the_job_can_use(job: tuple[Path, dict[str, str]]) -> None:
    done = submit(job, "look.sh", "--model", "a b")
    said = [line for line in done.stdout.splitlines() if line.startswith(("arguments", "2 nodes", "refused"))]
    assert said == ["arguments: --model a b --nodes 2", "2 nodes", "refused"], done.stderr
    assert done.returncode == 3


@pytest.mark.e2e
def test_a_node_that_is_lost_ends_the_job(job: tuple[Path, dict[str, str]]) -> None:
    done = submit(job, "kill.sh")
    assert done.returncode == 1 and "taking\n" in done.stdout and "Ray ended on a node" in done.stderr


def test_what_slurm_is_asked_for() -> None:
    done = run("slurm.sh", "--dry-run", "la_dapo_sweep.sh", "ablation", "--model", "a b")
    assert done.returncode == 0, done.stderr
    head, workers, recipe = (shlex.split(line) for line in done.stdout.splitlines())
    assert recipe == ["bash", "recipes/la_dapo_sweep.sh", "ablation", "--model", "a b", "--nodes", "N"]
    for command, nodes in ((head, "1"), (workers, "N-1")):
        step = command[: command.index(".venv/bin/ray")]
        assert (
            step[0] == "srun" and step[step.index("--ntasks-per-node") + 1] == "1" and step[step.index("--nodes") + 1] == nodes
        )
        assert command[len(step) + 1] == "start" and "--block" in command
    assert head[head.index("--nodelist") + 1] == workers[workers.index("--exclude") + 1]
    assert "--head" in head and workers[workers.index("--address") + 1] == "IP:PORT"


def test_what_ray_is_asked_for() -> None:
    done = run("submit.sh", "--address", "http://head:8265", "--dry-run", "la_dapo_twiff.sh", "--model", "a b", "--dry-run")
    assert done.returncode == 0, done.stderr
    recipe = ["bash", str(ROOT / "recipes/la_dapo_twiff.sh"), "--model", "a b", "--dry-run"]
    assert shlex.split(done.stdout) == [".venv/bin/ray", "job", "submit", "--address", "http://head:8265", "--", *recipe]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("slurm.sh", [], "which recipe?"),
        ("slurm.sh", ["la_dapo.sh"], "no recipe la_dapo.sh"),
        ("slurm.sh", ["la_dapo_twiff.sh"], "it runs in a Slurm job"),
        ("submit.sh", ["la_dapo_twiff.sh"], "--address is needed"),
        ("submit.sh", ["--address", "http://head:8265"], "which recipe?"),
        ("submit.sh", ["--address", "http://head:8265", "la_dapo.sh"], "no recipe la_dapo.sh"),
        ("submit.sh", ["--adress", "http://head:8265", "la_dapo_twiff.sh"], "unknown argument --adress"),
    ],
)
def test_a_wrong_call_says_so(script: str, arguments: list[str], message: str) -> None:
    done = run(script, *arguments)
    assert done.returncode == 1 and message in done.stderr and not done.stdout


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "recipes").glob("*.sh")))
def test_scripts_parse(script: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / "recipes" / script], capture_output=True).stderr == b""
