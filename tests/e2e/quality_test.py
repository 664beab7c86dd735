"""KL divergence against the host's own f16 cache on 4096 tokens of real text, with the published encoder and exact sink and tail."""

import json
import os
import subprocess
import sys

import pytest

BOUNDS = {"k4v4": 0.0062, "k3v3": 0.0130, "k2v2": 0.100}


@pytest.mark.long
def test_published_encoder_stays_within_its_bounds(paths, tmp_path):
    results = tmp_path / "quality.json"
    command = [sys.executable, paths.root / "bench" / "quality.py", "--level", "official", "--presets", ",".join(BOUNDS), "--host-caches", "",
               "--json", results]
    environment = dict(os.environ, KVARN_ENGINE_BIN=str(paths.engine_bin), KVARN_PLUGIN=str(paths.plugin), KVARN_MODEL=str(paths.smollm2),
                       KVARN_TEXT=str(paths.text), KVARN_BENCH=str(paths.program.parent / "kvarn-bench"))
    subprocess.run([str(part) for part in command], env=environment, check=True, timeout=3000)
    measured = {result["codec"]: result["mean_kld"] for result in json.loads(results.read_text())["results"]}
    assert measured["host f16"] < 1e-5
    assert {codec: measured[codec] for codec, bound in BOUNDS.items() if measured[codec] > bound} == {}
