# Front door, project: configures and builds this repository into ./build. Sourced by ./kvarn.

readonly project_build=$KVARN_ROOT/build/release

program_path() { echo "$project_build/bin/kvarn"; }
plugin_path() { echo "$project_build/bin/libggml-kvarn.so"; }

# need_program [ENGINE_TARGETS...]: the engine's libraries and these programs of it, our program and our plugin.
need_program() {
  make_cache_dir
  need_packages build
  engine_paths
  need_engine llama "$@"
  need_project OFF kvarn ggml-kvarn
}

# need_project TESTS TARGETS...: configures if the settings changed, then lets ninja decide what to compile.
need_project() {
  local tests=$1 settings stamp=$project_build/kvarn-settings log=$cache_dir/logs/project-build.log
  shift
  # A tree that was configured with the tests keeps them: going back and forth would rebuild it.
  [[ ! -f $stamp ]] || ! grep -q 'KVARN_BUILD_TESTS=ON' "$stamp" || tests=ON
  settings=$(printf '%s\n' "-DKVARN_LLAMA_CPP_SOURCE=$engine_source" "-DKVARN_LLAMA_CPP_BUILD=$engine_build" \
    "-DKVARN_BUILD_TESTS=$tests" "-DCMAKE_CXX_COMPILER=$(command -v "${CXX:-c++}")")
  if [[ ! -f $project_build/build.ninja || ! -f $stamp || $(<"$stamp") != "$settings" ]]; then
    take_lock
    run_step "configuring kvarn" "$cache_dir/logs/project-configure.log" configure_project "$settings" ||
      explain_failure "configuring kvarn" "$cache_dir/logs/project-configure.log"
    printf '%s\n' "$settings" >"$stamp"
  fi
  project_is_current "$@" && return 0
  take_lock
  run_step "building kvarn" "$log" ninja_build "$project_build" "$@" || explain_failure "building kvarn" "$log"
}

# A dry run costs milliseconds and says whether there is work.
project_is_current() { ninja -n -C "$project_build" "$@" 2>/dev/null | grep -q 'no work to do'; }

configure_project() {
  local arguments
  mapfile -t arguments <<<"$1"
  cd "$KVARN_ROOT" || return
  rm -f "$project_build/CMakeCache.txt"
  cmake --preset release "${arguments[@]}"
}

# take_cache_options ARGS...: moves --preset, --level, --sink, --tail and --cache-limit into the plugin's environment; the others
# stay in rest.
take_cache_options() {
  rest=()
  while (($#)); do
    case $1 in
      --preset | --level | --sink | --tail | --cache-limit)
        (($# >= 2)) || fail "option '$1' needs a value" "./kvarn help lists the options"
        set_cache_option "${1#--}" "$2"
        shift 2
        ;;
      --preset=* | --level=* | --sink=* | --tail=* | --cache-limit=*)
        set_cache_option "$(sed -E 's/^--([a-z-]+)=.*/\1/' <<<"$1")" "${1#*=}"
        shift
        ;;
      *)
        rest+=("$1")
        shift
        ;;
    esac
  done
}

# keep_layers_here: llama.cpp's --fit may still shorten a context, but takes no layer off the device: in its own memory, which is
# the same memory, the cache would not be compressed. An -ngl on the command line wins.
keep_layers_here() { export LLAMA_ARG_N_GPU_LAYERS=${LLAMA_ARG_N_GPU_LAYERS:-999}; }

# wait_briefly: threads of OpenMP that wait for each other go to sleep after some 0.1 ms instead of 14. With another program on one of the
# processors, every one of the hundreds of meetings a token would else take a time slice of the scheduler. What the user has set stays.
wait_briefly() { [[ -n ${GOMP_SPINCOUNT:-}${OMP_WAIT_POLICY:-} ]] || export GOMP_SPINCOUNT=2000; }

set_cache_option() {
  local name=${1#cache-}
  export "KVARN_${name^^}=$2"
}
