# Front door, vllm: the Python environment with vLLM that the plugin's tests run in. Sourced by ./kvarn.
# $cache_dir/vllm/KEY/env is whole if $cache_dir/vllm/KEY/ready is there; KEY is the hash of the list of packages.

readonly vllm_packages=$KVARN_ROOT/hosts/vllm/environment.txt

command_vllm_env() {
  (($# == 0)) || fail "unknown option '$1' for vllm-env" "./kvarn vllm-env takes none"
  need_vllm_env
  release_lock
  echo "$vllm_env"
}

# vllm_env_folder: where the environment of these packages is, or will be.
vllm_env_folder() { echo "$cache_dir/vllm/$(grep -v '^#' "$vllm_packages" | sha256sum | cut -c 1-12)"; }

# need_vllm_env: sets vllm_env to a folder whose bin/python has vLLM.
need_vllm_env() {
  local folder log=$cache_dir/logs/vllm-env.log
  folder=$(vllm_env_folder)
  vllm_env=$folder/env
  [[ ! -f $folder/ready ]] || return 0
  take_lock
  [[ ! -f $folder/ready ]] || return 0
  need_packages fetch
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' && [[ $(uname -m) == x86_64 ]] ||
    fail "vLLM's packages are pinned for Python 3.11 on 64-bit x86" "run this on Debian 12, or make an environment by hand (docs/guide/vllm.md)"
  need_space 11000 "vLLM's environment"
  run_step "downloading vLLM and what it needs (about 3 GB)" "$log" download_wheels "$vllm_packages" "$folder/wheels" ||
    explain_pip_failure "vLLM's packages" "$log"
  run_step "installing vLLM" "$log" install_wheels "$vllm_packages" "$folder" || explain_failure "installing vLLM" "$log"
  run_step "importing vLLM" "$log" import_vllm || explain_failure "importing vLLM" "$log"
  rm -rf "$folder/wheels"
  : >"$folder/ready"
}

# download_wheels LIST FOLDER: one package after the other; those that an earlier run has fetched stay.
download_wheels() {
  local line name count=0 total
  total=$(grep -c '^[a-z]' "$1")
  mkdir -p "$2/fetched"
  while read -r line; do
    name=${line%% *}
    count=$((count + 1))
    echo "[$count/$total] $name"
    [[ ! -f $2/fetched/$name ]] || continue
    echo "$line" >"$2/fetched/wanted.txt"
    "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary ":all:" \
      -r "$2/fetched/wanted.txt" -d "$2" || return
    : >"$2/fetched/$name"
  done < <(grep '^[a-z]' "$1")
}

# install_wheels LIST FOLDER: into a new environment; one that a run was cut off in is thrown away.
install_wheels() {
  rm -rf "$2/env"
  grep '^[a-z]' "$1" | cut -d ' ' -f 1 >"$2/wanted.txt"
  "$python" -m venv --without-pip "$2/env" &&
    "$python" -m pip --python "$2/env/bin/python" install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
      --root-user-action=ignore --find-links "$2/wheels" -r "$2/wanted.txt"
}

import_vllm() { "$vllm_env/bin/python" -c 'import vllm, vllm.v1.attention.backends.cpu_attn'; }
