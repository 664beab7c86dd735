# Front door, doctor: says what is here without fetching or building anything. Sourced by ./kvarn.

command_doctor() {
  (($# == 0)) || fail "unknown option '$1' for doctor" "./kvarn doctor takes none"
  engine_paths
  doctor_system
  doctor_packages
  doctor_engine
  doctor_models
  if [[ -x $(program_path) ]]; then
    exec_program_doctor
  fi
  doctor_line program "not built" "./kvarn run builds it"
}

# doctor_line SUBJECT FINDING [ADVICE]
doctor_line() { printf '%-10s %s%s\n' "$1" "$2" "${3:+ ($3)}"; }

doctor_system() {
  local name
  name=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2>/dev/null) || name=""
  doctor_line system "${name:-unknown system}, $(uname -m), $(nproc) cores, llama.cpp is built for $(isa_name)"
  if [[ -n $(compiler_version) ]]; then
    doctor_line compiler "$(compiler_version)"
  else
    doctor_line compiler "none" "./kvarn run installs g++, or set CXX"
  fi
  doctor_line cache "$cache_dir" "$(free_space) free"
}

free_space() {
  local folder=$cache_dir
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  df -Ph "$folder" | awk 'NR == 2 { print $4 }'
}

doctor_packages() {
  local missing
  missing=$(missing_packages "$(test_groups)")
  if [[ -z $missing ]]; then
    doctor_line packages "all there"
  else
    doctor_line packages "missing: ${missing% }" "the command that needs them installs them"
  fi
}

doctor_engine() {
  local version ggml_version sdist state
  read -r version ggml_version sdist <<<"$(pin engine llama.cpp)"
  if [[ $engine_is_ours == no ]]; then
    doctor_line engine "yours: $engine_build"
    return
  elif engine_target_ready llama; then
    state="built in $engine_build"
  elif [[ -f $engine_source/CMakeLists.txt ]]; then
    state="unpacked, not built"
  else
    state="not downloaded"
  fi
  doctor_line engine "llama.cpp $version with ggml $ggml_version, $state"
}

doctor_models() {
  local name file bytes sha wheels path
  while read -r name file bytes sha wheels; do
    path=$cache_dir/models/${sha:0:12}/$file
    if [[ -f $path ]]; then
      doctor_line model "$name: $path"
    else
      doctor_line model "$name: not downloaded" "./kvarn run -m $name fetches it"
    fi
  done < <(pins model)
}

# The program reports on what it was built with, and on the default model if that is here.
exec_program_doctor() {
  local file bytes sha wheels path arguments=()
  read -r file bytes sha wheels <<<"$(pin model smollm2)"
  path=$cache_dir/models/${sha:0:12}/$file
  [[ ! -f $path ]] || arguments=(-m "$path")
  exec "$(program_path)" doctor "${arguments[@]}"
}
