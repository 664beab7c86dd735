# Front door, serve: llama-server with the compressed cache, with slots and memory picked for a number of agents. Sourced by ./kvarn.

# take_serve_options ARGS...: moves --agents, --context-per-agent and --ram to serve_options, --sessions to serve_sessions; the
# others stay in rest. Sets serve_model to the value of -m.
take_serve_options() {
  serve_options=()
  serve_model=""
  serve_sessions=""
  rest=()
  while (($#)); do
    case $1 in
      --agents | --context-per-agent | --ram)
        (($# >= 2)) || fail "option '$1' needs a value" "./kvarn help lists the options"
        serve_options+=("$1" "$2")
        shift 2
        ;;
      --sessions)
        (($# >= 2)) || fail "option '$1' needs a folder" "./kvarn help lists the options"
        serve_sessions=$2
        shift 2
        ;;
      --sessions=*)
        serve_sessions=${1#*=}
        shift
        ;;
      --agents=* | --context-per-agent=* | --ram=*)
        serve_options+=("${1%%=*}" "${1#*=}")
        shift
        ;;
      *)
        [[ $1 != -m && $1 != --model ]] || serve_model=${2:-}
        rest+=("$1")
        shift
        ;;
    esac
  done
}

# serve_purpose ARGS...: file (a model given with -m), none (no model given), or other (a model that is not a file here yet, or
# no model at all: --help).
serve_purpose() {
  local argument
  for argument in "$@"; do
    case $argument in
      -hf | -hfr | --hf-repo | -mu | --model-url | -dr | --docker-repo | --models-dir | --models-preset | --help | -h | --version | \
        --list-devices | --cache-list | -cl)
        echo other
        return
        ;;
    esac
  done
  if [[ -n $serve_model ]]; then echo file; else echo none; fi
}

# add_serve_choices: appends what the program picks to rest; it says itself what and why.
add_serve_choices() {
  local picked word
  picked=$("$(program_path)" serve-choices -m "$serve_model" "${serve_options[@]}" -- "${rest[@]}") || exit 1
  while IFS= read -r word; do
    case $word in
      KVARN_LIMIT=*) export KVARN_LIMIT=${word#*=} ;;
      *) rest+=("$word") ;;
    esac
  done <<<"$picked"
}

command_serve() {
  local purpose
  take_cache_options "$@"
  take_serve_options "${rest[@]}"
  purpose=$(serve_purpose "${rest[@]}")
  [[ $purpose != other || ${#serve_options[@]} -eq 0 ]] ||
    fail "${serve_options[0]} needs a model file to plan with" "give -m FILE, or the options of llama-server instead"
  need_program llama-server
  if [[ $purpose == none ]]; then
    resolve_model ""
    serve_model=$model_path
    rest=(-m "$model_path" "${rest[@]}")
  fi
  release_lock
  keep_layers_here
  export GGML_BACKEND_PATH
  GGML_BACKEND_PATH=$(plugin_path)
  [[ $purpose == other || ! -f $serve_model ]] || add_serve_choices
  [[ -n $serve_sessions ]] || exec "$engine_build/bin/llama-server" "${rest[@]}"
  exec "$python" -B "$KVARN_ROOT/hosts/llama_server/session_proxy.py" --sessions "$serve_sessions" -- \
    "$engine_build/bin/llama-server" "${rest[@]}"
}
