"""The README's stock verl job: verl's own trainer and agent loop, a text model, our rewards, a judge on a local server."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def judge() -> Iterator[tuple[str, list[str]]]:
    """A judge that says yes to every answer of even length: its URL, and the answers it was asked about."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            answer = prompt.split("Answer to judge:\n")[1].split("\n\nThe answer is right if")[0]
            asked.append(answer)
            said = {"choices": [{"message": {"content": "yes" if len(answer) % 2 == 0 else "no"}}]}
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()


def validated(folder: Path, *arguments: str) -> list[dict]:
    """Runs the recipe; the eight rows of its validation, with their rewards."""
    command = ["bash", str(ROOT / "recipes/stock_verl_rewards.sh"), "--run", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    rows = [json.loads(line) for line in (folder / "validation/2.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    return rows


def expected(row: dict) -> float:
    return 0.9 * row["acc"] + 0.1 * row["format"] + 0.1 * row["repetition"] + 1.0 * row["overlong"]


def test_a_stock_job_is_rewarded_part_by_part(judge: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = judge
    rows = validated(tmp_path, "--judge", url, "even")
    # Two steps of 4 prompts with 4 rollouts, and a validation on 8: random text is nearly always an answer, and all different.
    assert len(asked) >= 30
    for row in rows:
        assert row["score"] == pytest.approx(expected(row), abs=1e-5)
    assert {row["acc"] for row in rows} <= {0.0, 1.0} and any(row["overlong"] < 0 for row in rows)


def test_group_rewards_attach_by_one_key_and_add_nothing_to_a_text_model(tmp_path: Path) -> None:
    for row in validated(tmp_path, "--group-rewards"):
        assert row["score"] == pytest.approx(expected(row), abs=1e-5)
        assert (row["contrastive"], row["contrastive_defined"], row["diversity_defined"]) == (0.0, 0.0, 0.0)
