"""The serde in LMCache itself: chunks go to its disk adapter, the process ends, another one loads them. ./kvarn test engines runs this,
with KVARN_LMCACHE_PYTHON, a Python that has LMCache, and KVARN_LMCACHE_PACKAGES, what PYTHONPATH must name for the serde."""

import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

PROGRAM = pathlib.Path(__file__).with_name("lmcache_chunks.py")
ROWS_BYTES = 2 * 4 * 256 * 2 * 64 * 2  # what PROGRAM stores, in 16 bits


@pytest.fixture(name="lmcache", scope="module")
def fixture_lmcache():
    """Arguments and environment of a Python with LMCache and the serde."""
    if "KVARN_LMCACHE_PYTHON" not in os.environ:
        pytest.skip("./kvarn test engines makes the environment")
    env = os.environ | {"PYTHONPATH": os.environ["KVARN_LMCACHE_PACKAGES"], "LMCACHE_DISABLE_BANNER": "1",
                        "LMCACHE_TRACK_USAGE": "false"}
    return [os.environ["KVARN_LMCACHE_PYTHON"], "-B"], env


def fs_adapter(folder, way, serde):
    """The JSON of an adapter that keeps files, with the serde, for a registered serde or through the plugin."""
    inner = {"type": "fs", "base_path": str(folder)}
    if way == "plugin":
        inner = {"type": "plugin", "module_path": "kvarn_lmcache.plugin", "class_name": "KvarnAdapter", "adapter_params": inner}
    return json.dumps(inner | {"serde": {"type": "kvarn", "head_dim": 64} | serde})


def run(lmcache, way, job, adapter, dtype, *seeds):
    python, env = lmcache
    done = subprocess.run([*python, PROGRAM, way, job, adapter, dtype, *map(str, seeds)], env=env, capture_output=True, text=True,
                          timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1 if done.stdout.splitlines()[-1].startswith("{") else -2]), done.stdout + done.stderr


# (least and most relative square error, most bytes of 16 bits at head_dim 64 and 256 tokens)
PRESETS = {"k4v4": (0.006, 0.0105, 0.2875), "k4v2": (0.04, 0.075, 0.2250), "k8v8": (1e-5, 6e-5, 0.5375), "f16": (0, 0, 1.001)}


@pytest.mark.parametrize("way, preset, dtype", [("command", "k4v4", "bfloat16"), ("plugin", "k4v2", "float16"),
                                                ("command", "k8v8", "float32"), ("plugin", "f16", "bfloat16")])
def test_chunks_outlive_the_process_that_stored_them(lmcache, tmp_path, way, preset, dtype):
    adapter = fs_adapter(tmp_path, way, {"preset": preset, "threads": 2})
    stored, log = run(lmcache, way, "store", adapter, dtype, 1, 2, 3)
    assert stored == {"stored": 3} and "kvarn: [2, 4, 256, 128]" in log
    least, most, share = PRESETS[preset]
    sizes = {file.stat().st_size for file in tmp_path.glob("*.data")}
    assert len(sizes) == 1 and sizes.pop() <= share * ROWS_BYTES
    loaded, _ = run(lmcache, way, "load", adapter, dtype, 1, 2, 3, 4)
    assert loaded["errors"][3] is None  # never stored
    rounding = 3e-6 if dtype == "bfloat16" and most else 0  # bfloat16 once more: a step of 2**-8, squared, over 12
    assert all(least <= error <= most + rounding for error in loaded["errors"][:3]), loaded


def test_damaged_files_are_not_loaded_and_the_others_are(lmcache, tmp_path):
    adapter = fs_adapter(tmp_path, "command", {})
    run(lmcache, "command", "store", adapter, "bfloat16", 1, 2, 3, 4)
    files = sorted(tmp_path.glob("*.data"))
    turned = bytearray(files[0].read_bytes())
    turned[len(turned) // 2] ^= 4
    files[0].write_bytes(turned)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].write_bytes(bytes(files[2].stat().st_size))
    loaded, log = run(lmcache, "command", "load", adapter, "bfloat16", 1, 2, 3, 4)
    assert loaded["errors"][:3] == [None] * 3 and loaded["errors"][3] is not None
    assert "the checksum is not that of the bytes" in log and "not a chunk of kvarn-lmcache" in log


def test_a_wrong_configuration_stops_the_start(lmcache, tmp_path):
    python, env = lmcache
    for serde, reason in (({"head_dim": 100}, "multiple of 16"), ({"preset": "k4v9"}, "preset"), ({"colour": 1}, "colour")):
        adapter = fs_adapter(tmp_path, "command", serde)
        done = subprocess.run([*python, PROGRAM, "command", "load", adapter, "float16", "1"], env=env, capture_output=True, text=True,
                              timeout=240, check=False)
        assert done.returncode != 0 and reason in done.stderr


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_the_command_starts_lmcaches_server_with_the_serde(lmcache, tmp_path):
    python, env = lmcache
    port, http_port = free_ports(2)
    arguments = ["server", "--host", "127.0.0.1", "--port", port, "--http-host", "127.0.0.1", "--http-port", http_port, "--l1-size-gb", 0.1,
                 "--no-l1-use-lazy", "--eviction-policy", "LRU", "--l2-adapter", fs_adapter(tmp_path / "kv", "command", {})]
    log = tmp_path / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen([*python, "-m", "kvarn_lmcache", *map(str, arguments)], env=env, stdout=out, stderr=out)
    try:
        text, deadline = "", time.monotonic() + 180
        while "serde_wrapped" not in text and time.monotonic() < deadline and server.poll() is None:
            time.sleep(1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/status", timeout=5) as answer:
                    text = answer.read().decode()
            except (urllib.error.URLError, OSError):
                continue
        assert '"serde_wrapped":true' in text.replace(" ", ""), log.read_text()
    finally:
        server.terminate()
        server.wait(timeout=30)
