import json

import pyarrow.parquet as pq
import pytest

from data_prep.curation import scores
from data_prep.curation.estimate import EstimateError, Measured, as_table, estimate, read, run
from future_l1_verl import cli
from future_l1_verl.statistics import bootstrap_interval


def shard(candidates=10, engine_start_s=0.0, generate_s=50.0, file_bytes=4000, **other):
    given = {
        "decode_s": 20.0, "judge_s": 5.0, "prompt_tokens": 9000, "generated_tokens": 16000, "rollouts": 160,
        "judge_calls": 40, "bytes": 70_000,
    }  # fmt: skip
    return Measured(
        candidates=candidates, generate_s=generate_s, engine_start_s=engine_start_s, file_bytes=file_bytes, **given | other
    )


def test_equal_shards_give_the_figures_of_the_formula():
    # 10 candidates: decode 2 s, generate 5 s, judge 0.5 s, 4 calls each; 1,000 candidates on 4 replicas, 2 cores.
    result = estimate([shard(engine_start_s=30), shard(engine_start_s=50), shard()], 1000, 4, cpus=2)
    assert result.decode_s == pytest.approx((1000, 1000, 1000))
    assert result.generate_s == pytest.approx((1250, 1250, 1250))
    assert result.judge_s == pytest.approx((500, 500, 500))
    assert result.wall_s == pytest.approx((1290, 1290, 1290))  # starts in (30 + 50) / 2
    assert result.gpu_hours.mean == pytest.approx(4 * 1290 / 3600)
    assert (result.rollouts.mean, result.judge_calls.mean) == pytest.approx((16_000, 4_000))
    assert (result.prompt_tokens.mean, result.generated_tokens.mean) == pytest.approx((900_000, 1_600_000))
    assert (result.stored_bytes.mean, result.sent_bytes.mean) == pytest.approx((400_000, 7_000_000))
    assert result.bottleneck == "generate"


@pytest.mark.parametrize(
    ("replicas", "cpus", "judge_rate", "stage", "seconds"),
    [
        (4, 8, None, "generate", 1250),
        (4, 1, None, "decode", 2000),
        (40, 8, None, "judge", 500),  # one process judges, whatever the replicas
        (40, 8, 2.0, "judge", 2000),
        (4, 8, 100.0, "generate", 1250),
    ],
)
def test_the_slowest_stage_sets_the_pace(replicas, cpus, judge_rate, stage, seconds):
    result = estimate([shard(), shard()], 1000, replicas, cpus, judge_rate)
    assert (result.bottleneck, result.wall_s.mean) == (stage, pytest.approx(seconds))


def test_intervals_are_those_of_the_bootstrap_over_shards():
    seconds = [40.0, 50.0, 75.0, 55.0]
    result = estimate([shard(generate_s=value, engine_start_s=12) for value in seconds], 600, 3, cpus=64)
    low, high = bootstrap_interval([value / 10 for value in seconds])
    assert result.generate_s == pytest.approx((5.5 * 200, low * 200, high * 200))
    assert result.wall_s == pytest.approx((5.5 * 200 + 12, low * 200 + 12, high * 200 + 12))
    assert low < 5.5 < high


def test_a_smaller_last_shard_is_left_out_but_its_engine_start_counts():
    result = estimate([shard(), shard(), shard(candidates=1, generate_s=40.0, engine_start_s=9)], 100, 1, cpus=64)
    assert result.wall_s.mean == pytest.approx(100 * 5 + 9)
    assert "20 of the sample's 2 full shards (1 smaller left out)" in result.assumptions[0]


@pytest.mark.parametrize(
    ("measured", "settings", "message"),
    [
        ([shard()], (10, 1, 1), "1 full shards were measured, 2 are needed"),
        ([], (10, 1, 1), "0 full shards"),
        ([shard(), shard()], (0, 1, 1), "candidates"),
        ([shard(), shard()], (1, 0, 1), "replicas"),
        ([shard(), shard()], (1, 1, 0), "cpus"),
        ([shard(), shard()], (1, 1, 1, 0.0), "judge rate"),
    ],
)
def test_what_cannot_be_estimated_is_refused(measured, settings, message):
    with pytest.raises(EstimateError, match=message):
        estimate(measured, *settings)


def write(folder, measured):
    (folder / "scores").mkdir(exist_ok=True)
    for number, content in enumerate(measured):
        metadata = None if content is None else {b"measured": json.dumps(content).encode()}
        table = scores.SCHEMA.with_metadata(metadata).empty_table()
        pq.write_table(table, folder / "scores" / f"shard-{number:05d}.parquet")


def stored(number):
    content = vars(shard(generate_s=40.0 + number))
    return {key: value for key, value in content.items() if key != "file_bytes"}


def test_shards_are_read_with_their_sizes(tmp_path):
    write(tmp_path, [stored(0), stored(1)])
    sizes = [path.stat().st_size for path in sorted((tmp_path / "scores").iterdir())]
    assert read(tmp_path) == [shard(generate_s=40.0 + n, file_bytes=size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("content", [None, {"candidates": 3}, {**stored(0), "unknown": 1}])
def test_a_shard_without_its_measurements_is_named(tmp_path, content):
    write(tmp_path, [stored(0), content])
    with pytest.raises(EstimateError, match=r"shard-00001.parquet: metadata 'measured' cannot be read"):
        read(tmp_path)


def test_a_broken_shard_is_named(tmp_path):
    write(tmp_path, [stored(0), stored(1)])
    (tmp_path / "scores" / "shard-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(EstimateError, match="shard-00001"):
        read(tmp_path)


def test_the_command_prints_the_assumptions_and_writes_the_figures(tmp_path, capsys):
    write(tmp_path, [stored(0), stored(20)])  # 5 s a candidate on average
    parser = cli.parser("curate estimate")
    out = tmp_path / "estimate.json"
    run(parser.parse_args(f"--scores {tmp_path} --candidates 3600 --replicas 5 --cpus 7 --json {out}".split()))
    written = json.loads(out.read_text())
    assert written["gpu_hours"]["mean"] == pytest.approx(5.0)
    assert written["bottleneck"] == "generate"
    printed = " ".join(capsys.readouterr().out.split())
    assert "3,600 candidates on 5 replicas; generate sets the pace" in printed
    assert "GPU time 5.0 h 4.0 h .. 6.0 h" in printed
    assert all(" ".join(line.split()) in printed for line in written["assumptions"])
    assert any("decoding on 7 cores in all" in line for line in written["assumptions"])


def test_small_figures_are_told_in_small_units():
    result = estimate([shard(engine_start_s=30), shard()], 20, 2, cpus=4)
    table = as_table(result, "small")
    shown = dict(zip(*(list(column.cells) for column in table.columns[:2]), strict=True))
    assert (shown["decode"], shown["wall"], shown["GPU time"]) == ("10.0 s", "1.3 min", "2.7 min")
    assert (shown["stored"], shown["sent"]) == ("8.0 kB", "140.0 kB")
    assert shown["judge calls"] == "80"


def test_the_cores_are_to_be_named(tmp_path, capsys):
    parser = cli.parser("curate estimate")
    with pytest.raises(SystemExit):
        parser.parse_args(["--scores", str(tmp_path), "--candidates", "1", "--replicas", "1"])
    assert "--cpus" in capsys.readouterr().err
