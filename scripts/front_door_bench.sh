# Front door, bench and eval: measurements against the unmodified host, made by the programs in bench/. Sourced by ./kvarn.

command_bench() {
  local what=${1:-}
  (($# == 0)) || shift
  case $what in
    e2e) run_measurement e2e.py llama-bench "$@" ;;
    memory) run_measurement memory.py "" "$@" ;;
    *) fail "unknown measurement '$what'" "./kvarn bench e2e or ./kvarn bench memory; --help after it lists the options" ;;
  esac
}

command_eval() {
  run_measurement quality.py llama-perplexity "$@"
}

# run_measurement FILE TARGET ARGS...: prepares the host's program, the models and the text, then runs bench/FILE.
run_measurement() {
  local file=$1 target=$2 arguments=()
  shift 2
  # -m may name a pinned model instead of a file.
  while (($#)); do
    if [[ $1 == -m || $1 == --model ]] && (($# >= 2)) && [[ ! -f $2 ]]; then
      resolve_model "$2"
      arguments+=("$1" "$model_path")
      shift 2
    else
      arguments+=("$1")
      shift
    fi
  done
  # Word splitting wanted: no target is no argument.
  # shellcheck disable=SC2086
  need_program $target
  resolve_model smollm2
  need_text
  release_lock
  export KVARN_ROOT KVARN_MODEL=$model_path KVARN_TEXT=$text_path KVARN_ENGINE_BIN=$engine_build/bin
  export KVARN_PROGRAM KVARN_PLUGIN
  KVARN_PROGRAM=$(program_path)
  KVARN_PLUGIN=$(plugin_path)
  exec "$python" -B "$KVARN_ROOT/bench/$file" "${arguments[@]}"
}
