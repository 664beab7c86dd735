# Front door, lmcache: the Python environment with LMCache that the serde's tests run in, beside vLLM's, whose packages it sees: torch
# alone is gigabytes. Sourced by ./kvarn.
# $cache_dir/lmcache/KEY/env is whole if $cache_dir/lmcache/KEY/ready is there; KEY is the hash of both lists of packages.

readonly lmcache_packages=$KVARN_ROOT/hosts/lmcache/environment.txt

# lmcache_env_folder: where the environment of these packages is, or will be.
lmcache_env_folder() { echo "$cache_dir/lmcache/$(grep -hv '^#' "$vllm_packages" "$lmcache_packages" | sha256sum | cut -c 1-12)"; }

# need_lmcache_env: sets lmcache_env to a folder whose bin/python has LMCache, and vllm_env as need_vllm_env does.
need_lmcache_env() {
  local folder log=$cache_dir/logs/lmcache-env.log
  need_vllm_env
  folder=$(lmcache_env_folder)
  lmcache_env=$folder/env
  [[ ! -f $folder/ready ]] || return 0
  take_lock
  [[ ! -f $folder/ready ]] || return 0
  need_space 500 "LMCache's environment"
  run_step "downloading LMCache and what it needs (20 MB)" "$log" download_wheels "$lmcache_packages" "$folder/wheels" ||
    explain_pip_failure "LMCache's packages" "$log"
  run_step "installing LMCache" "$log" install_lmcache_packages "$folder" || explain_failure "installing LMCache" "$log"
  run_step "importing LMCache" "$log" "$lmcache_env/bin/python" -c 'import lmcache.v1.distributed.serde' ||
    explain_failure "importing LMCache" "$log"
  rm -rf "$folder/wheels"
  : >"$folder/ready"
}

# install_lmcache_packages FOLDER: as install_wheels; what is not there is looked for in vLLM's environment.
install_lmcache_packages() {
  install_wheels "$lmcache_packages" "$1" &&
    "$vllm_env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$("$1/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm.pth"
}
