# Front door, plan: what contexts of a model cost and how many fit into memory. Sourced by ./kvarn.

# read_plan_options ARGS...: refuses an unknown option before anything is fetched or built. Sets plan_model and plan_options.
read_plan_options() {
  plan_model=""
  plan_options=()
  while (($#)); do
    local option=${1%%=*} value
    case $option in
      --json | --unified)
        plan_options+=("$1")
        shift
        continue
        ;;
      -m | --model | --ram | -c | --context | --preset | --level | --sink | --tail | --ubatch) ;;
      *) fail "unknown option '$1' for plan" "./kvarn help lists the options" ;;
    esac
    if [[ $1 == *=* ]]; then
      value=${1#*=}
      shift
    else
      (($# >= 2)) || fail "option '$1' needs a value" "./kvarn help lists the options"
      value=$2
      shift 2
    fi
    case $option in
      -m | --model) plan_model=$value ;;
      *) plan_options+=("$option" "$value") ;;
    esac
  done
}

command_plan() {
  case ${1:-} in
    -h | --help)
      usage
      return
      ;;
  esac
  read_plan_options "$@"
  [[ -z $plan_model || -f $plan_model ]] || pins_has_model "$plan_model" || resolve_model "$plan_model"
  need_program
  resolve_model "$plan_model"
  release_lock
  exec "$(program_path)" plan -m "$model_path" "${plan_options[@]}"
}
