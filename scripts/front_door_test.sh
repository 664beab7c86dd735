# Front door, test: unit tests (again for 64-bit Arm, emulated), tests of the Python package, front door tests, end-to-end tests;
# closes with one line that counts. Sourced by ./kvarn.

# Programs of the unmodified llama.cpp that the end-to-end tests run.
readonly test_engine_targets="llama-server llama-completion llama-perplexity llama-bench llama-batched-bench llama-quantize
  llama-batched llama-parallel llama-passkey llama-speculative-simple ggml-rpc-server
  test-backend-ops test-save-load-state test-state-restore-fragmented test-llama-archs test-thread-safety test-recurrent-state-rollback"

readonly arm_build=$KVARN_ROOT/build/aarch64
readonly python_build=$KVARN_ROOT/build/python

passed=0
failed=0

# On 64-bit Arm the unit tests themselves run what is emulated elsewhere.
arm_is_emulated() { [[ $(uname -m) != aarch64 ]]; }

# test_groups: the groups of packages in pins.txt that the tests need.
test_groups() { if arm_is_emulated; then echo "fetch build test cross"; else echo "fetch build test"; fi; }

# What a tier consists of, in this order. One part after another can be asked for by name: the long tier takes hours.
readonly fast_parts="units arm python vllm front-door e2e"
readonly long_parts="units arm sanitizers python vllm front-door e2e hosts"

command_test() {
  local tier=fast part
  case ${1:-} in
    hosts)
      test_hosts "${@:2}"
      close_tests
      ;;
    engines)
      test_engines
      close_tests
      ;;
    --long)
      tier=long
      shift
      ;;
  esac
  for part in "$@"; do
    [[ " $long_parts " == *" ${part%%:?*} "* && ($part != *:* || $part == e2e:?*) ]] ||
      fail "unknown part '$part' of the tests" "./kvarn test [--long] [PART...] with parts $long_parts, e2e:NAME for some of them; hosts [VERSION...]; engines"
  done
  if (($# == 0)); then
    local parts=$fast_parts
    [[ $tier == fast ]] || parts=$long_parts
    # Word splitting wanted: one argument a part.
    # shellcheck disable=SC2086
    set -- $parts
  fi
  prepare_tests
  run_test_parts "$tier" "$@"
  close_tests
}

# run_test_parts TIER PART...: what is emulated runs beside what follows it.
run_test_parts() {
  local tier=$1 part emulated=false start
  for part in "${@:2}"; do
    start=$SECONDS
    case $part in
      units) run_unit_tests "$project_build" ;;
      arm)
        if ! arm_is_emulated; then continue; fi
        start_emulated_tests "$tier"
        emulated=true
        ;;
      sanitizers)
        run_sanitized_tests
        run_thread_sanitized_tests
        ;;
      python) run_python_tests "$tier" ;;
      vllm) run_vllm_tests "$tier" ;;
      front-door) run_pytest front_door "$tier" ;;
      e2e) run_pytest e2e "$tier" ;;
      e2e:*) run_pytest e2e "$tier" "${part#e2e:}" ;;
      hosts) test_hosts ;;
    esac
    [[ $part == arm ]] || note "$part: done in $((SECONDS - start)) s"
  done
  ! $emulated || finish_emulated_tests
}

# close_tests: how long it all took, and the line that counts; exits with its verdict.
close_tests() {
  note "tests: $((SECONDS / 60)) min $((SECONDS % 60)) s with all set-up"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  if ((failed > 0 || passed == 0)); then exit 1; fi
  exit 0
}

prepare_tests() {
  make_cache_dir
  need_packages "$(test_groups)"
  engine_paths
  # Word splitting wanted: one argument a target.
  # shellcheck disable=SC2086
  need_engine llama $test_engine_targets
  need_project ON all
  need_model smollm2
  need_model gemma3-270m
  export KVARN_MODEL_GEMMA=$model_path
  need_model smollm2
  export KVARN_MODEL=$model_path
  need_text
  release_lock
  export KVARN_ROOT KVARN_TEXT=$text_path KVARN_ENGINE_BIN=$engine_build/bin
  export KVARN_PROGRAM KVARN_PLUGIN
  KVARN_PROGRAM=$(program_path)
  KVARN_PLUGIN=$(plugin_path)
}

# run_unit_tests BUILD [SELECTION...]: ctest over one build tree, or over what its options select of it. All of its output goes to a log;
# of what passed, every hundredth line is shown.
run_unit_tests() {
  local log=$cache_dir/logs/ctest-${1##*/}.log line
  ctest --test-dir "$1" --output-on-failure -j "$(nproc)" "${@:2}" 2>&1 | tee "$log" |
    sed -uE -e '/^ +Start +[0-9]+: /d' -e '/^ *[0-9]*00\/[0-9]+ Test /b' -e '/ Passed +[0-9.]+ sec *$/d' || true
  line=$(grep -E 'tests passed, [0-9]+ tests failed out of [0-9]+' "$log" | tail -n 1) || line=""
  if [[ -z $line ]]; then
    note "ctest found no tests in $1"
    failed=$((failed + 1))
    return
  fi
  local bad total
  bad=$(sed -E 's/.*, ([0-9]+) tests failed out of ([0-9]+).*/\1/' <<<"$line")
  total=$(sed -E 's/.*, ([0-9]+) tests failed out of ([0-9]+).*/\2/' <<<"$line")
  passed=$((passed + total - bad))
  failed=$((failed + bad))
}

# start_emulated_tests TIER: the library and its unit tests, cross-compiled for 64-bit Arm, under qemu, beside the tests that follow: those
# leave processors free while they start programs and wait for answers.
start_emulated_tests() {
  local selection=()
  build_emulated_tests
  if [[ $1 == fast ]]; then
    selection=(-LE long_emulated)
    note "64-bit Arm, emulated, beside what follows: kernels, codec, attention, golden records (--long adds the cache and the encoder's reference)"
  else
    note "64-bit Arm, emulated, beside what follows: all unit tests of the library"
  fi
  start_background "$cache_dir/logs/emulated.log" count_emulated_tests "${selection[@]}"
}

# Closes its output with the two totals.
count_emulated_tests() {
  passed=0 failed=0
  run_unit_tests "$arm_build" "$@"
  compare_digests
  echo "$passed $failed"
}

# finish_emulated_tests: adds their totals; a run that did not end is one failure.
finish_emulated_tests() {
  local log=$cache_dir/logs/emulated.log good=0 bad=1
  ! finish_background || read -r good bad < <(tail -n 1 "$log")
  note "64-bit Arm, emulated: $good passed, $bad failed"
  ((bad == 0)) || cat "$log"
  passed=$((passed + good))
  failed=$((failed + bad))
}

build_emulated_tests() {
  local log=$cache_dir/logs/aarch64-build.log
  take_lock
  if [[ ! -f $arm_build/build.ninja ]]; then
    run_step "configuring for 64-bit Arm" "$log" configure_emulated_tests || explain_failure "configuring for 64-bit Arm" "$log"
  fi
  if ! ninja -n -C "$arm_build" 2>/dev/null | grep -q 'no work to do'; then
    run_step "building for 64-bit Arm" "$log" ninja_build "$arm_build" || explain_failure "building for 64-bit Arm" "$log"
  fi
  release_lock
}

# Flags in the environment are meant for this machine's compiler.
configure_emulated_tests() {
  cd "$KVARN_ROOT" || return
  rm -f "$arm_build/CMakeCache.txt"
  env -u CFLAGS -u CXXFLAGS -u LDFLAGS cmake --preset aarch64
}

# Attention gives the same bits on this machine and on 64-bit Arm.
compare_digests() {
  local here=$cache_dir/logs/digests-here.txt arm=$cache_dir/logs/digests-aarch64.txt program=tests/kernels/attention_digests
  if "$project_build/$program" >"$here" && qemu-aarch64 -L /usr/aarch64-linux-gnu "$arm_build/$program" >"$arm" &&
    [[ -s $here ]] && cmp "$here" "$arm" >&2; then
    passed=$((passed + 1))
  else
    note "attention gives other bits on 64-bit Arm than here: $here, $arm"
    failed=$((failed + 1))
  fi
}

# What computes on several threads, under the thread sanitizer. Not the plugin: that sanitizer does not know the host's OpenMP teams.
run_thread_sanitized_tests() {
  local folder=$KVARN_ROOT/build/tsan log=$cache_dir/logs/tsan-build.log
  take_lock
  [[ -f $folder/build.ninja ]] || (cd "$KVARN_ROOT" && cmake --preset tsan >"$log" 2>&1) ||
    explain_failure "configuring with the thread sanitizer" "$log"
  run_step "building with the thread sanitizer" "$log" ninja_build "$folder" cache_threads_test attention_test ||
    explain_failure "building with the thread sanitizer" "$log"
  release_lock
  run_unit_tests "$folder" -L threads
}

# Everything of ours again under the address and undefined behaviour sanitizers: unit tests, then one generation and random
# schedules of cache operations in the real host, with tiles so small that they are sealed.
run_sanitized_tests() {
  local folder=$KVARN_ROOT/build/asan log=$cache_dir/logs/asan-build.log preset layout
  take_lock
  [[ -f $folder/build.ninja ]] || (cd "$KVARN_ROOT" && cmake --preset asan "-DKVARN_LLAMA_CPP_SOURCE=$engine_source" \
    "-DKVARN_LLAMA_CPP_BUILD=$engine_build" >"$log" 2>&1) ||
    explain_failure "configuring with sanitizers" "$log"
  run_step "building with sanitizers" "$log" ninja_build "$folder" || explain_failure "building with sanitizers" "$log"
  release_lock
  run_unit_tests "$folder"
  run_sanitized_generation "$folder"
  for preset in f16 k8v8 k4v4 k2v2; do
    for layout in unified separate; do
      run_sanitized_schedule "$folder" "$preset" "$layout"
    done
  done
}

run_sanitized_generation() {
  local log=$cache_dir/logs/asan-generation.log prompt=$KVARN_ROOT/examples/the_lighthouse.txt
  if KVARN_PRESET=k4v4 KVARN_TILE=16 KVARN_SINK=16 KVARN_TAIL=16 GGML_BACKEND_PATH=$1/bin/libggml-kvarn.so \
    "$1/bin/greedy_text" "$KVARN_MODEL" "$prompt" 40 4096 128 2 alone >"$log" 2>&1 && ! grep -qE 'runtime error|Sanitizer' "$log"; then
    passed=$((passed + 1))
  else
    note "one generation under the sanitizers failed: $log"
    failed=$((failed + 1))
  fi
}

# run_sanitized_schedule BUILD PRESET LAYOUT: as tests/e2e/host_schedule_test.py does.
run_sanitized_schedule() {
  local log=$cache_dir/logs/asan-schedule-$2-$3.log
  if KVARN_PRESET=$2 KVARN_TILE=16 KVARN_SINK=16 KVARN_TAIL=16 GGML_BACKEND_PATH=$1/bin/libggml-kvarn.so \
    "$1/bin/host_schedule" --model window --layout "$3" --seed 5 --steps 3000 >"$log" 2>&1 &&
    ! grep -qE 'runtime error|Sanitizer' "$log"; then
    passed=$((passed + 1))
  else
    note "a random schedule under the sanitizers failed: $log"
    failed=$((failed + 1))
  fi
}

# run_python_tests TIER: the Python package, as a wheel that is installed into a folder of the build tree, and its tests; then those of
# what is made of it for engines, without the engines.
run_python_tests() {
  need_python_package
  PYTHONPATH=$python_build/package run_pytest python "$1"
  build_lmcache_package
  PYTHONPATH=$lmcache_package run_pytest lmcache "$1"
}

# build_lmcache_package: sets lmcache_package to what PYTHONPATH must name for the serde of LMCache; the Python package is there.
build_lmcache_package() {
  local log=$cache_dir/logs/lmcache-build.log
  lmcache_package=$python_build/package:$KVARN_ROOT/build/lmcache/package
  take_lock
  run_step "building the serde of LMCache" "$log" build_wheel "$KVARN_ROOT/hosts/lmcache" "$KVARN_ROOT/build/lmcache" ||
    explain_failure "building the serde of LMCache" "$log"
  release_lock
}

need_python_package() {
  local log=$cache_dir/logs/python-build.log
  take_lock
  run_step "building the Python package" "$log" build_python_package || explain_failure "building the Python package" "$log"
  release_lock
}

# With what is on this machine: nothing is downloaded. setup.py keeps what it compiled; setuptools would also keep files of the
# package that are no more (build/lib.*).
build_python_package() {
  rm -rf "$KVARN_ROOT"/build/lib.*
  build_wheel "$KVARN_ROOT" "$python_build"
}

# run_vllm_tests TIER: the vLLM plugin without vLLM: its book-keeping against a model of the engine's scheduler, and its compiled part.
run_vllm_tests() {
  build_vllm_plugin
  PYTHONPATH=$vllm_plugin run_pytest vllm "$1"
}

# build_vllm_plugin: sets vllm_plugin to a folder with the installed package, for PYTHONPATH.
build_vllm_plugin() {
  local log=$cache_dir/logs/vllm-build.log
  vllm_plugin=$KVARN_ROOT/build/vllm/package
  take_lock
  run_step "building the vLLM plugin" "$log" build_wheel "$KVARN_ROOT/hosts/vllm" "$KVARN_ROOT/build/vllm" ||
    explain_failure "building the vLLM plugin" "$log"
  release_lock
}

# build_wheel SOURCE FOLDER: a wheel in FOLDER/wheel, installed in FOLDER/package, with what is on this machine.
build_wheel() {
  local options=(--quiet --disable-pip-version-check --no-index --no-deps --no-cache-dir)
  export CMAKE_BUILD_PARALLEL_LEVEL=${KVARN_JOBS:-$(nproc)}
  rm -rf "$2"
  "$python" -m pip wheel "${options[@]}" --no-build-isolation --wheel-dir "$2/wheel" "$1" &&
    "$python" -m pip install "${options[@]}" --root-user-action=ignore --no-compile --target "$2/package" "$2"/wheel/*.whl
}

# test_engines: the plugins in the real server engines; minutes to run, and about 6 GB of packages before the first run.
test_engines() {
  make_cache_dir
  need_packages "$(test_groups)"
  need_model smollm2
  export KVARN_ROOT KVARN_MODEL=$model_path
  build_vllm_plugin
  need_python_package
  build_lmcache_package
  need_lmcache_env
  release_lock
  export KVARN_VLLM_PYTHON=$vllm_env/bin/python KVARN_VLLM_PLUGIN=$vllm_plugin KVARN_ENGINE_CACHE=$cache_dir/models/engines
  export KVARN_LMCACHE_PYTHON=$lmcache_env/bin/python KVARN_LMCACHE_PACKAGES=$lmcache_package
  run_pytest engines long
}

# run_pytest FOLDER TIER [NAME]: the Python tests of one folder, or those whose name or file has NAME in it; the fast tier leaves out what
# is marked long.
run_pytest() {
  local folder=$KVARN_ROOT/tests/$1 report=$cache_dir/logs/pytest-$1.xml selection=()
  [[ -d $folder ]] || return 0
  [[ $2 == long ]] || selection=(-m "not long")
  [[ -z ${3:-} ]] || selection+=(-k "$3")
  rm -f "$report"
  "$python" -B -m pytest -q -r fEs -p no:cacheprovider -o junit_logging=no "${selection[@]}" --junit-xml "$report" "$folder" </dev/null || true
  count_pytest "$report"
}

# count_pytest REPORT: adds its totals; a run without a report is one failure.
count_pytest() {
  local good bad
  read -r good bad < <("$python" - "$1" <<'PY'
import sys, xml.etree.ElementTree as tree
try:
    suites = list(tree.parse(sys.argv[1]).getroot().iter("testsuite"))
    count = lambda name: sum(int(suite.get(name, 0)) for suite in suites)
    bad = count("failures") + count("errors")
    print(count("tests") - bad - count("skipped"), bad)
except (OSError, tree.ParseError):
    print(0, 1)
PY
  )
  passed=$((passed + good))
  failed=$((failed + bad))
}
