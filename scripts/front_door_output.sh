# Front door, output: one-line failures, steps with progress, the lock. Sourced by ./kvarn; knows nothing of what is built.

readonly cache_dir=${KVARN_CACHE:-${HOME:-/root}/.cache/kvarn}
running_pid=""
background_pid=""
lock_held=no

# fail WHAT WHAT_TO_DO: one line, exit 1.
fail() {
  printf 'kvarn: %s; %s\n' "$1" "$2" >&2
  exit 1
}

note() { printf 'kvarn: %s\n' "$*" >&2; }

# No silent end: a command that fails where no failure was expected says where.
trap 'note "unexpected failure (status $?) in ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND"' ERR

# A step that is cut off must not leave its children behind: it is a process group of its own.
stop_running_steps() {
  local pid
  for pid in $running_pid $background_pid; do kill -TERM -- "-$pid" 2>/dev/null || true; done
}
trap stop_running_steps EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# make_cache_dir: the cache exists and can be written.
make_cache_dir() {
  mkdir -p "$cache_dir/logs" 2>/dev/null && [[ -w $cache_dir ]] ||
    fail "cannot write to the cache $cache_dir" "set KVARN_CACHE to a directory of yours"
}

# take_lock: one run at a time prepares; a second one waits and says so. Held until release_lock or exit.
take_lock() {
  [[ $lock_held == no ]] || return 0
  make_cache_dir
  exec 9>"$cache_dir/lock"
  if ! flock -n 9; then
    note "another run is downloading or building; waiting for it"
    flock 9
  fi
  lock_held=yes
}

release_lock() {
  [[ $lock_held == no ]] || exec 9>&-
  lock_held=no
}

# need_space MIB WHAT: refuses to start what cannot fit.
need_space() {
  local free
  free=$(df -Pm "$cache_dir" | awk 'NR == 2 { print $4 }')
  ((free >= $1)) || fail "disk full: $cache_dir has $free MiB free and $2 needs about $1 MiB" \
    "free some space or set KVARN_CACHE to another disk"
}

# progress_text LABEL LOG SECONDS: the label with the build's own count, if its log has one.
progress_text() {
  local count
  count=$(tail -c 4096 "$2" 2>/dev/null | tr '\r' '\n' | grep -aoE '^\[[0-9]+/[0-9]+\]' | tail -n 1) || count=""
  printf '%s %s %d s' "$1" "$count" "$3"
}

# run_step LABEL LOG COMMAND...: runs it with its output in LOG; on a terminal a line that moves, elsewhere one line near the
# start, one a minute, and one at the end; of a step that takes no time, none. Returns the command's status.
run_step() {
  local label=$1 log=$2 status=0 start=$SECONDS shown=0 spent=0 takes_long=no
  shift 2
  set -m
  "$@" >"$log" 2>&1 </dev/null 9>&- &
  running_pid=$!
  set +m
  while kill -0 "$running_pid" 2>/dev/null; do
    sleep 0.2
    spent=$((SECONDS - start))
    if [[ $takes_long == no ]] && ((spent >= 2)); then
      takes_long=yes
      [[ -t 2 ]] || note "$label ..."
    fi
    if [[ -t 2 ]]; then
      printf '\r\033[Kkvarn: %s' "$(progress_text "$label" "$log" "$spent")" >&2
    elif ((spent >= shown + 60)); then
      shown=$spent
      note "$(progress_text "$label" "$log" "$spent")"
    fi
  done
  wait "$running_pid" || status=$?
  running_pid=""
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
  [[ $status != 0 || $takes_long == no ]] || note "$label: done in $((SECONDS - start)) s"
  return "$status"
}

# start_background LOG COMMAND...: runs it beside what follows, where that leaves a processor free.
start_background() {
  local log=$1
  shift
  set -m
  (renice -n 19 -p "$BASHPID" >/dev/null 2>&1 || true; "$@") >"$log" 2>&1 </dev/null 9>&- &
  background_pid=$!
  set +m
}

# finish_background: waits for it; its status.
finish_background() {
  local status=0
  wait "$background_pid" || status=$?
  background_pid=""
  return "$status"
}

# explain_failure LABEL LOG: turns a failed step into one line with the reason found in its log.
explain_failure() {
  local reason
  if grep -aqiE 'No space left on device|Disk quota exceeded' "$2"; then
    fail "disk full while $1" "free some space or set KVARN_CACHE to another disk (log: $2)"
  elif grep -aqE 'Killed (signal|terminated)|cc1plus: out of memory|virtual memory exhausted' "$2"; then
    fail "out of memory while $1" "try again with KVARN_JOBS=1 (log: $2)"
  fi
  reason=$(grep -aE '(^|[ :])(fatal )?([Ee]rror|ERROR|E):' "$2" | head -n 1 | cut -c 1-200) || reason=""
  fail "$1 failed${reason:+: $reason}" "the whole log is $2"
}
