# Front door, hosts: other versions of llama.cpp that the plugin is built for and tested in. Sourced by ./kvarn.
# A host is named by the version of its ggml: "host" in pins.txt, or the pinned engine. The pinned one is there a second time, built
# without OpenMP: ggml then keeps a pool of threads of its own.

command_hosts() {
  case ${1:-} in
    "") list_hosts ;;
    add) add_host "${@:2}" ;;
    *) fail "unknown option '$1' for hosts" "./kvarn hosts, or ./kvarn hosts add PACKAGE VERSION" ;;
  esac
}

pinned_ggml() { pin engine llama.cpp | cut -d ' ' -f 2; }

# threads_host: the name of the pinned engine without OpenMP.
threads_host() { echo "$(pinned_ggml)-threads"; }

# ggml_versions, host_versions: all whose source is known, and all hosts that are tested, in one line.
ggml_versions() { (pinned_ggml; pins host | cut -d ' ' -f 1) | sort -V | paste -sd ' '; }
host_versions() { (ggml_versions | tr ' ' '\n'; threads_host) | sort -V | paste -sd ' '; }

# host_origin VERSION: where this host comes from, for people.
host_origin() {
  local sdist sdist_version wheel wheel_version
  if [[ ${1%-threads} == "$(pinned_ggml)" ]]; then
    sdist=$(pin engine llama.cpp | cut -d ' ' -f 3)
    echo "source in $sdist $(pin pip "$sdist" | cut -d ' ' -f 1), pinned$([[ $1 != *-threads ]] || echo ", without OpenMP")"
    return
  fi
  read -r sdist sdist_version _ wheel wheel_version _ <<<"$(pin host "$1")"
  if [[ -n $wheel ]]; then
    echo "prebuilt in $wheel $wheel_version, headers of $sdist $sdist_version"
  else
    echo "source in $sdist $sdist_version"
  fi
}

list_hosts() {
  local version
  for version in $(host_versions); do printf 'ggml %-14s %s\n' "$version" "$(host_origin "$version")"; done
}

# need_host_source VERSION: sets source to the llama.cpp tree of this host.
need_host_source() {
  local sdist sdist_version sha
  read -r sdist sdist_version sha _ <<<"$(pin host "$1")"
  source=$cache_dir/engine/source-ggml-$1-${sha:0:12}
  [[ ! -f $source/CMakeLists.txt ]] || return 0
  take_lock
  need_pip_file "$sdist" "$sdist_version" "$sha" sdist
  unpack_llama_cpp "$pip_path" "$source"
}

# need_host VERSION: sets source and host_build (its bin/ holds the libraries), and host_launcher to what programs of that
# host are started with.
need_host() {
  local wheel wheel_version sha
  local host_flags=""
  host_launcher=""
  engine_is_ours=yes
  [[ $1 != "$(threads_host)" ]] || host_flags=-DGGML_OPENMP=OFF
  if [[ ${1%-threads} == "$(pinned_ggml)" ]]; then
    local KVARN_LLAMA_CPP_SOURCE="" KVARN_LLAMA_CPP_BUILD=""
    engine_paths
    need_engine_source
    source=$engine_source
  else
    need_host_source "$1"
    read -r _ _ sha wheel wheel_version _ <<<"$(pin host "$1")"
    engine_source=$source
    engine_build=$cache_dir/engine/build-ggml-$1-$( (engine_flags; compiler_version; echo "${CC:-}" "$sha") | sha256sum | cut -c 1-12)
  fi
  if [[ -z ${wheel:-} ]]; then
    need_engine llama
    host_build=$engine_build
  else
    need_prebuilt_host "$1"
  fi
}

# need_prebuilt_host VERSION: the wheel, unpacked; bin/ is its folder of libraries, under the names too that linkers look for.
need_prebuilt_host() {
  local wheel version sha library name
  read -r _ _ _ wheel version sha <<<"$(pin host "$1")"
  host_build=$cache_dir/engine/prebuilt-ggml-$1-${sha:0:12}
  if [[ ! -d $host_build/bin ]]; then
    take_lock
    need_pip_file "$wheel" "$version" "$sha" wheel
    rm -rf "$host_build"
    mkdir -p "$host_build"
    "$python" -m zipfile -e "$pip_path" "$host_build/wheel"
    for name in libggml-base libggml libllama; do
      library=$(find "$host_build/wheel" -name "$name.so*" | sort | head -n 1)
      [[ -n $library ]] || fail "no shared $name in $wheel $version" "take a wheel that holds it as a file of its own"
      [[ $library == *.so ]] || ln -s "$(basename "$library")" "${library%.so*}.so"
    done
    ln -s "$(dirname "$library")" "$host_build/bin"
  fi
  need_launcher "$host_build/bin/libllama.so"
}

# need_launcher LIBRARY: sets host_launcher if the library needs a newer C library than this system's.
need_launcher() {
  local folder=$cache_dir/engine/libc-$(pin suite libc6) system loader
  ! "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null || return 0
  need_later_libc "$folder"
  system=$(dirname "$("${CXX:-c++}" -print-file-name=libstdc++.so.6 | xargs readlink -f)")
  loader=$(find "$folder/" -name 'ld-linux*.so*' | head -n 1)
  host_launcher="$loader --library-path $(dirname "$(find "$folder/" -name libc.so.6 | head -n 1)"):$system"
  # Word splitting wanted: a command and its options.
  # shellcheck disable=SC2086
  $host_launcher --list "$1" >/dev/null || fail "$1 does not load with the C library of $(pin suite libc6)" "take another wheel"
}

# need_later_libc FOLDER: the C library of a later Debian, unpacked beside the system's.
need_later_libc() {
  [[ ! -d $1/usr ]] || return 0
  local log=$cache_dir/logs/libc.log
  take_lock
  need_packages fetch
  command -v apt-get >/dev/null || fail "a prebuilt host needs a newer C library" "run this on a system that has one"
  rm -rf "$1"
  mkdir -p "$1"
  run_step "downloading the C library of Debian $(pin suite libc6)" "$log" fetch_suite libc6 "$1" ||
    explain_package_failure libc6 "$log"
  dpkg-deb -x "$(find "$1" -maxdepth 1 -name '*.deb')" "$1"
}

# fetch_suite PACKAGE FOLDER: a package of another release, from the mirror that this system uses, with lists of its own.
fetch_suite() {
  local mirror lists=$2/lists
  # Words of apt's own, not variables of this shell.
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
  mkdir -p "$lists/partial" "$2/cache/archives/partial"
  echo "deb $mirror $(pin suite "$1") main" >"$2/sources.list"
  local options=(-q -o "Dir::Etc::sourcelist=$2/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$lists"
    -o "Dir::Cache=$2/cache" -o APT::Sandbox::User=)
  apt-get "${options[@]}" update
  (cd "$2" && apt-get "${options[@]}" download "$1")
  rm -rf "$lists" "$2/cache"
}

# need_host_tests VERSION: sets host_project: plugin and test programs, built for the host that need_host found.
need_host_tests() {
  local log=$cache_dir/logs/host-tests-$1.log key linker=""
  [[ -z $host_launcher ]] || linker=-Wl,--allow-shlib-undefined
  key=$(printf '%s\n' "$source" "$host_build" "$(compiler_version)" | sha256sum)
  host_project=$KVARN_ROOT/build/host-$1-${key:0:8}
  take_lock
  if [[ ! -f $host_project/build.ninja ]]; then
    run_step "configuring the tests for ggml $1" "$log" cmake -G Ninja -S "$KVARN_ROOT" -B "$host_project" \
      -DCMAKE_BUILD_TYPE=Release "-DKVARN_LLAMA_CPP_SOURCE=$source" "-DKVARN_LLAMA_CPP_BUILD=$host_build" \
      "-DCMAKE_EXE_LINKER_FLAGS=$linker" || explain_failure "configuring the tests for ggml $1" "$log"
  fi
  run_step "building the plugin and the tests for ggml $1" "$log" ninja_build "$host_project" ggml-kvarn greedy_text f32_model ||
    explain_failure "building the plugin and the tests for ggml $1" "$log"
}

# test_hosts [VERSIONS...]: the end-to-end test of tests/host_versions in each of them.
test_hosts() {
  local versions=("$@") version rows=() tested_version="" tested_plugin=""
  ((${#versions[@]})) || read -r -a versions <<<"$(host_versions)"
  for version in "${versions[@]}"; do
    [[ " $(host_versions) " == *" $version "* ]] ||
      fail "no host '$version'" "take one of: $(host_versions); ./kvarn hosts add adds one"
  done
  make_cache_dir
  need_packages "fetch build test"
  need_model smollm2
  need_text
  release_lock
  export KVARN_ROOT KVARN_MODEL=$model_path KVARN_TEXT=$text_path KVARN_OTHER_PLUGIN=""
  for version in $(printf '%s\n' "${versions[@]}" | sort -V); do test_host "$version"; done
  printf '%s\n' "${rows[@]}"
}

# test_host VERSION: adds to passed and failed, and a line to rows.
test_host() {
  local passed_before=$passed failed_before=$failed source host_build host_launcher host_project
  need_host "$1"
  need_host_tests "$1"
  release_lock
  note "ggml $1: $(host_origin "$1")"
  export KVARN_PLUGIN=$host_project/bin/libggml-kvarn.so KVARN_PROGRAM=$host_project/bin/kvarn KVARN_ENGINE_BIN=$host_build/bin
  export KVARN_HOST_LAUNCHER=$host_launcher KVARN_HOST_VERSION=${1%-threads}
  [[ $KVARN_HOST_VERSION == "$tested_version" ]] || KVARN_OTHER_PLUGIN=$tested_plugin
  run_pytest host_versions long
  tested_version=$KVARN_HOST_VERSION tested_plugin=$KVARN_PLUGIN
  rows+=("$(printf 'ggml %-14s %3d passed, %d failed   %s' "$1" $((passed - passed_before)) $((failed - failed_before)) \
    "$(host_origin "$1")")")
}

# add_host PACKAGE VERSION: trusts the file that the registry gives now, and pins it.
add_host() {
  (($# == 2)) || fail "hosts add takes a package of PyPI and its version" "for example: ./kvarn hosts add llama-cpp-python 0.3.35"
  local folder=$cache_dir/downloads/partial-host log=$cache_dir/logs/pip-$1.log file sha ggml_version last
  make_cache_dir
  need_packages fetch
  take_lock
  rm -rf "$folder"
  mkdir -p "$folder"
  run_step "downloading $1 $2" "$log" "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --no-binary "$1" "$1==$2" -d "$folder/files" || explain_pip_failure "$1 $2" "$log"
  file=$(find "$folder/files" -type f)
  sha=$(sha256sum "$file" | cut -d ' ' -f 1)
  unpack_llama_cpp "$file" "$folder/source"
  ggml_version=$(source_version "$folder/source")
  [[ " $(host_versions) " != *" $ggml_version "* ]] || fail "ggml $ggml_version is there already" "./kvarn hosts lists what is there"
  rm -rf "$cache_dir/downloads/$sha"
  mv "$folder/files" "$cache_dir/downloads/$sha"
  rm -rf "$folder"
  last=$(grep -nE '^(host|engine) ' "$pins_file" | tail -n 1 | cut -d : -f 1)
  sed -i "${last}a host $ggml_version $1 $2 $sha" "$pins_file"
  note "added ggml $ggml_version to $pins_file; ./kvarn test hosts $ggml_version tests it"
}
