# Front door, pins: reads pins.txt and installs missing Debian packages. Sourced by ./kvarn.

readonly pins_file=${KVARN_PINS:-$KVARN_ROOT/pins.txt}

# The Python that Debian's packages belong to, if there is one.
if [[ -x /usr/bin/python3 ]]; then python=/usr/bin/python3; else python=python3; fi

# pins KIND: its lines without the kind.
pins() { sed -n -E "s/[[:space:]]*#.*//; s/^$1[[:space:]]+//p" "$pins_file"; }

# pin KIND NAME: the fields after the name; nothing if there is no such line.
pin() { pins "$1" | awk -v name="$2" '$1 == name { $1 = ""; sub(/^ /, ""); print; exit }'; }

pins_has_model() { [[ -n $(pin model "$1") ]]; }
pins_model_names() { pins model | awk '{ printf "%s%s", separator, $1; separator = ", " }'; }

# probe_holds PROBE: whether what a package is for is already there.
probe_holds() {
  case $1 in
    cmd:c++) command -v "${CXX:-c++}" >/dev/null ;;
    cmd:*) command -v "${1#cmd:}" >/dev/null ;;
    file:*) [[ -e ${1#file:} ]] ;;
    py:*) "$python" -c "import ${1#py:}" 2>/dev/null ;;
  esac
}

# missing_packages GROUPS: names of the packages whose probe fails.
missing_packages() {
  local name version group probe
  while read -r name version group probe; do
    [[ " $1 " != *" $group "* ]] || probe_holds "$probe" || printf '%s ' "$name"
  done < <(pins apt)
}

# need_packages GROUPS: installs what is missing of these groups, or says in one line how to. What is compiled after it goes through the
# compiler cache.
need_packages() {
  local missing
  [[ -z ${CXX:-} ]] || command -v "$CXX" >/dev/null || fail "no compiler '$CXX'" "set CXX to one that is installed, or unset it"
  missing=$(missing_packages "$1")
  missing=${missing% }
  if [[ -n $missing ]]; then
    install_missing "$missing"
    missing=$(missing_packages "$1")
    [[ -z $missing ]] || fail "still missing after installing: $missing" "look at $cache_dir/logs/apt.log"
  fi
  use_compiler_cache
}

# install_missing PACKAGES
install_missing() {
  local missing=$1 sudo="" log=$cache_dir/logs/apt.log
  command -v apt-get >/dev/null || fail "missing: $missing" "install these with your system's package manager (no apt-get here)"
  if ((EUID != 0)); then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null && sudo="sudo -n"
    [[ -n $sudo ]] || fail "missing packages: $missing" "run once: sudo apt-get install $missing"
  fi
  take_lock
  run_step "installing $missing" "$log" install_packages "$sudo" "$missing" || explain_package_failure "$missing" "$log"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  # A list that cannot be refreshed is no failure if the old one serves. $1 and $2 are split on purpose.
  # shellcheck disable=SC2086
  $1 apt-get -q update || true
  # shellcheck disable=SC2086
  $1 apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $2
}

explain_package_failure() {
  if grep -qE 'Temporary failure resolving|Could not resolve|Could not connect|Network is unreachable|Unable to fetch' "$2"; then
    fail "no network: cannot fetch the packages $1" "connect and try again, or install them by hand (log: $2)"
  fi
  explain_failure "installing $1" "$2"
}
