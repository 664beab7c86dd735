# Front door, clean: removes what the front door made. Sourced by ./kvarn.

command_clean() {
  local with_cache=no
  case ${1:-} in
    "") ;;
    --cache) with_cache=yes ;;
    *) fail "unknown option '$1' for clean" "./kvarn clean [--cache]" ;;
  esac
  rm -rf "$KVARN_ROOT/build"
  note "removed $KVARN_ROOT/build"
  [[ $with_cache == yes && -d $cache_dir ]] || return 0
  take_lock
  # Only folders of ours: KVARN_CACHE may point to a directory with other things in it.
  local folder
  for folder in downloads models engine text logs ccache vllm lmcache; do rm -rf "${cache_dir:?}/$folder"; done
  rm -f "$cache_dir/lock"
  rmdir "$cache_dir" 2>/dev/null || true
  note "removed the downloads and engine builds in $cache_dir"
}
