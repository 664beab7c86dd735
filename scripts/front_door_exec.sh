# Front door, exec: runs any llama.cpp program with a plugin built for exactly its ggml. Sourced by ./kvarn.

command_exec() {
  local options=() program
  while (($#)) && [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  (($# >= 2)) || fail "exec needs a program after --" "for example: ./kvarn exec -- llama-bench -m model.gguf"
  take_cache_options "${options[@]}"
  ((${#rest[@]} == 0)) || fail "unknown option '${rest[0]}' for exec" "options of the program go after --"
  shift
  program=$1
  shift
  if [[ $program != */* ]] && ! command -v "$program" >/dev/null; then
    exec_pinned "$program" "$@"
  else
    exec_foreign "$(command -v "$program" || echo "$program")" "$@"
  fi
}

# exec_pinned NAME ARGS...: a program of the pinned llama.cpp, built when first asked for.
exec_pinned() {
  local name=$1
  shift
  [[ $name == llama-* || $name == test-* || $name == ggml-* ]] ||
    fail "no program '$name'" "give a path, a program on PATH, or a llama.cpp program such as llama-bench"
  need_program "$name"
  release_lock
  keep_layers_here
  GGML_BACKEND_PATH=$(plugin_path) exec "$engine_build/bin/$name" "$@"
}

# exec_foreign PATH ARGS...: a program of somebody else's build.
exec_foreign() {
  local program=$1 plugin library version source
  shift
  [[ -x $program ]] || fail "no program '$program'" "check the path after --"
  make_cache_dir
  find_ggml_library "$program"
  engine_paths
  if [[ $(readlink -f "$library") == "$(readlink -f "$engine_build/bin/libggml-base.so")" ]]; then
    need_program
    plugin=$(plugin_path)
  else
    need_packages "fetch build"
    find_ggml_version "$program"
    find_ggml_source "$program"
    build_foreign_plugin
  fi
  release_lock
  GGML_BACKEND_PATH=$plugin exec "$program" "$@"
}

# find_ggml_library PROGRAM: sets library to the libggml-base that the program will load.
find_ggml_library() {
  local line
  library=${KVARN_GGML_BASE:-}
  if [[ -z $library ]]; then
    line=$(ldd "$1" 2>/dev/null | grep -F 'libggml-base' | head -n 1) || line=""
    library=$(awk '{ print $3 }' <<<"$line")
    [[ $line != *"not found"* ]] || fail "$1 does not find its libggml-base" "set LD_LIBRARY_PATH as you do to run it"
  fi
  [[ -n $library ]] || fail "$1 is not linked to a shared libggml-base, so no plugin can be loaded into it" \
    "build llama.cpp with -DBUILD_SHARED_LIBS=ON, or set KVARN_GGML_BASE to the library it loads later"
  [[ -f $library ]] || fail "no library '$library'" "check KVARN_GGML_BASE"
}

# find_ggml_version PROGRAM: sets version to what the library itself reports.
find_ggml_version() {
  version=$("$python" - "$library" 2>/dev/null <<'PY'
import ctypes, sys
report = ctypes.CDLL(sys.argv[1]).ggml_version
report.restype = ctypes.c_char_p
print(report().decode())
PY
  ) || version=""
  [[ -n $version ]] || fail "the ggml of $1 does not tell its version (too old)" "use a llama.cpp of ggml 0.9 or later"
}

# source_version FOLDER: the ggml version of a llama.cpp source tree.
source_version() {
  sed -n -E 's/^set\(GGML_VERSION_(MAJOR|MINOR|PATCH) +([0-9]+)\).*/\2/p' "$1/ggml/CMakeLists.txt" 2>/dev/null | paste -sd .
}

# find_ggml_source PROGRAM: sets source to a tree of exactly this version: the one named by the user, the one that the build
# directory around the library was made from, or a pinned one.
find_ggml_source() {
  local folder pinned_ggml pinned_version sdist
  folder=$(dirname "$(readlink -f "$library")")
  for source in "${KVARN_LLAMA_CPP_SOURCE:-}" "$(cmake_home "$folder/..")" "$(cmake_home "$folder")"; do
    [[ -z $source || $(source_version "$source") != "$version" ]] || return 0
  done
  read -r pinned_version pinned_ggml sdist <<<"$(pin engine llama.cpp)"
  if [[ $pinned_ggml != "$version" && -n $(pin host "$version") ]]; then
    need_host_source "$version"
    return 0
  fi
  [[ $pinned_ggml == "$version" ]] || fail "$1 uses ggml $version and its source is not here (pinned: $(ggml_versions))" \
    "set KVARN_LLAMA_CPP_SOURCE to the llama.cpp source it was built from"
  local KVARN_LLAMA_CPP_BUILD=""
  engine_paths
  need_engine_source
  source=$engine_source
}

# source_commit: the commit of the source, if it is a checkout of its own.
source_commit() { [[ ! -e $source/.git ]] || git -C "$source" rev-parse HEAD 2>/dev/null || true; }

cmake_home() { sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$1/CMakeCache.txt" 2>/dev/null || true; }

# find_sibling_library: the libggml beside the libggml-base, whatever its version suffix.
find_sibling_library() {
  local sibling
  for sibling in "$(dirname "$library")"/libggml.so "$(dirname "$library")"/libggml.so.[0-9]*; do
    [[ ! -f $sibling ]] || { readlink -f "$sibling"; return 0; }
  done
  fail "no libggml.so beside $library" "install the whole ggml of that program"
}

# build_foreign_plugin: sets plugin; a build tree of its own for every library and source.
build_foreign_plugin() {
  local key folder sibling log=$cache_dir/logs/plugin-build.log
  sibling=$(find_sibling_library)
  key=$(printf '%s\n' "$(readlink -f "$library")" "$source" "$version" "$(source_commit)" "$(compiler_version)" | sha256sum)
  folder=$KVARN_ROOT/build/plugin-$version-${key:0:8}
  plugin=$folder/bin/libggml-kvarn.so
  take_lock
  mkdir -p "$folder/host/bin"
  ln -sfn "$(readlink -f "$library")" "$folder/host/bin/libggml-base.so"
  ln -sfn "$sibling" "$folder/host/bin/libggml.so"
  if [[ ! -f $folder/build.ninja ]]; then
    run_step "configuring the plugin for ggml $version" "$log" cmake -G Ninja -S "$KVARN_ROOT" -B "$folder" \
      -DCMAKE_BUILD_TYPE=Release -DKVARN_BUILD_TESTS=OFF "-DKVARN_LLAMA_CPP_SOURCE=$source" \
      "-DKVARN_LLAMA_CPP_BUILD=$folder/host" || explain_failure "configuring the plugin" "$log"
  fi
  ! ninja -n -C "$folder" ggml-kvarn 2>/dev/null | grep -q 'no work to do' || return 0
  run_step "building the plugin for ggml $version" "$log" ninja_build "$folder" ggml-kvarn ||
    explain_failure "building the plugin for ggml $version" "$log"
}
