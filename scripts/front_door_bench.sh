# Front door, bench and eval: measurements against the unmodified host, made by kvarn-bench and the programs in bench/. Sourced by
# ./kvarn.

command_bench() {
  local what=${1:-}
  (($# == 0)) || shift
  case $what in
    attention) measure_attention "$@" ;;
    encode | steps) measure_part "$what" "$@" ;;
    e2e) run_measurement e2e.py "llama-bench llama-batched-bench" "$@" ;;
    memory) run_measurement memory.py "" "$@" ;;
    park) run_measurement park.py llama-server "$@" ;;
    serve) run_measurement serve.py llama-server "$@" ;;
    *) fail "unknown measurement '$what'" \
      "./kvarn bench attention, encode, steps, e2e, memory, park or serve; --help after it lists the options" ;;
  esac
}

# command_eval ARGS...: kvarn-eval; -m may name a pinned model; --report FILE makes a page of what it wrote.
command_eval() {
  local report json arguments has_model
  take_outputs eval report "$@"
  [[ -z $report || $report == *.html ]] || fail "'$report' is no page" "give --report a name that ends in .html"
  [[ -z $report || -w $(dirname -- "$report") ]] || fail "cannot write '$report'" "give --report a folder that can be written"
  prepare_eval "${arguments[@]}"
  [[ -z $report ]] || need_packages plot
  release_lock
  if [[ -z $report ]]; then
    exec "$(eval_path)" "${arguments[@]}" ${json:+--json "$json"}
  fi
  [[ -n $json ]] || json=$cache_dir/logs/eval.json
  "$(eval_path)" "${arguments[@]}" --json "$json"
  exec "$python" -B "$KVARN_ROOT/bench/quality_report.py" "$json" -o "$report"
}

# take_outputs COMMAND NAME ARGS...: sets the variable NAME to the value of --NAME, json to that of --json, arguments to the rest.
take_outputs() {
  local command=$1 name=$2 option value
  shift 2
  printf -v "$name" ''
  json=""
  arguments=()
  while (($#)); do
    option=${1%%=*}
    if [[ $option != "--$name" && $option != --json ]]; then
      arguments+=("$1")
      shift
      continue
    fi
    if [[ $1 == *=* ]]; then
      value=${1#*=}
      shift
    else
      (($# >= 2)) || fail "option '$1' needs a value" "./kvarn $command --help lists the options"
      value=$2
      shift 2
    fi
    printf -v "${option#--}" '%s' "$value"
  done
}

# prepare_eval ARGS...: builds the program; adds the model and the text that were not named to arguments.
prepare_eval() {
  local argument has_text=no
  take_model "$@"
  need_program
  need_project OFF kvarn-eval
  for argument in "$@"; do
    case $argument in
      -h | --help) return ;;
      -f | --text | --text=*) has_text=yes ;;
    esac
  done
  if [[ $has_model == no ]]; then
    resolve_model smollm2
    arguments+=(-m "$model_path")
  fi
  if [[ $has_text == no ]]; then
    need_text
    arguments+=(--text "$text_path")
  fi
  export KVARN_CACHE=$cache_dir
}

eval_path() { echo "$project_build/bin/kvarn-eval"; }

bench_path() { echo "$project_build/bin/kvarn-bench"; }

# need_bench [ENGINE_TARGETS...]: what need_program prepares, and the measuring program.
need_bench() {
  need_program "$@"
  need_project OFF kvarn-bench
}

# measure_attention ARGS...: kvarn-bench attention; --plot FILE draws what it wrote.
measure_attention() {
  local plot json arguments
  take_outputs "bench attention" plot "$@"
  [[ -z $plot || $plot == *.svg || $plot == *.png ]] || fail "'$plot' is no picture" "give --plot a name that ends in .svg or .png"
  [[ -z $plot || -w $(dirname -- "$plot") ]] || fail "cannot write '$plot'" "give --plot a folder that can be written"
  need_bench
  [[ -z $plot ]] || need_packages plot
  release_lock
  if [[ -z $plot ]]; then
    exec "$(bench_path)" attention "${arguments[@]}" ${json:+--json "$json"}
  fi
  [[ -n $json ]] || json=$cache_dir/logs/attention.json
  "$(bench_path)" attention "${arguments[@]}" --json "$json"
  exec "$python" -B "$KVARN_ROOT/bench/depth_plot.py" "$json" "$plot"
}

# measure_part NAME ARGS...: another subcommand of kvarn-bench; -m may name a pinned model.
measure_part() {
  local name=$1 arguments has_model
  shift
  take_model "$@"
  need_bench
  if [[ $name == steps && $has_model == no ]]; then
    resolve_model smollm2
    arguments+=(-m "$model_path")
  fi
  release_lock
  exec "$(bench_path)" "$name" "${arguments[@]}"
}

# take_model ARGS...: sets arguments, with the file of a pinned model in place of its name, and has_model.
take_model() {
  arguments=()
  has_model=no
  while (($#)); do
    if [[ $1 == -m || $1 == --model ]] && (($# >= 2)); then
      has_model=yes
      resolve_model "$2"
      arguments+=("$1" "$model_path")
      shift 2
    else
      arguments+=("$1")
      shift
    fi
  done
}

# run_measurement FILE TARGETS ARGS...: prepares the host's programs, the models and the text, then runs bench/FILE.
run_measurement() {
  local file=$1 targets=$2 arguments has_model
  shift 2
  take_model "$@"
  # Word splitting wanted: one argument a target, no target is no argument.
  # shellcheck disable=SC2086
  need_bench $targets
  resolve_model smollm2
  need_text
  release_lock
  export KVARN_ROOT KVARN_MODEL=$model_path KVARN_TEXT=$text_path KVARN_ENGINE_BIN=$engine_build/bin
  export KVARN_PROGRAM KVARN_PLUGIN KVARN_BENCH
  KVARN_PROGRAM=$(program_path)
  KVARN_PLUGIN=$(plugin_path)
  KVARN_BENCH=$(bench_path)
  exec "$python" -B "$KVARN_ROOT/bench/$file" "${arguments[@]}"
}
