"""The README's stock verl job: verl's own trainer and agent loop, a text model, our rewards, a judge on a local server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from e2e_environment import finished

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


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


def test_a_stock_job_learns_from_our_rewards_part_by_part(judge: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = judge
    command = ["bash", str(ROOT / "recipes/stock_verl_rewards.sh"), "--run", str(tmp_path), "--steps", "10"]
    result = finished([*command, "--judge", url, "even"])
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    scores = [float(score) for score in result.stdout.splitlines()[-1].removeprefix("score by step: ").split()]
    # Whatever is asked, an answer of two digits is right by this judge.
    assert len(scores) == 10 and sum(scores[-2:]) / 2 > sum(scores[:2]) / 2 + 0.15
    # An answer is asked about once for each question.
    assert len(asked) >= 60
    rows = [json.loads(line) for line in (tmp_path / "validation/10.jsonl").read_text().splitlines()]
    assert len(rows) == 12 * 8 and {row["acc"] for row in rows} == {0.0, 1.0}
    for row in rows:
        parts = 0.9 * row["acc"] + 0.1 * row["format"] + 0.1 * row["repetition_penalty"] + 1.0 * row["overlong_penalty"]
        assert row["score"] == pytest.approx(parts, abs=1e-5)
