# Sourced by the checks in this folder that start programs, after requirements.sh and `fail`.

# work_folder [--in-memory]: sets `work` to a new folder. When the check ends, the processes in `pids`
# are stopped, the last lines of the logs in the folder are printed if it failed, and the folder is
# removed.
work_folder() {
  if [ "${1:-}" = --in-memory ] && [ -w /dev/shm ]; then
    work=$(mktemp --directory --tmpdir=/dev/shm)
  else
    work=$(mktemp --directory)
  fi
  pids=()
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

finish() {
  local status=$? pid log
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do
    for _ in {1..100}; do
      kill -0 "$pid" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
  if [ "$status" -ne 0 ]; then
    for log in "$work"/*.log; do
      [ -e "$log" ] || continue
      echo "--- last lines of $(basename "$log")"
      grep --text --invert-match '^TOKEN=' "$log" | tail -n 30
    done >&2
  fi
  rm -rf "$work"
  exit "$status"
}

# in_background COMMAND...: runs a program that starts others, and waits for it. A signal to the check
# ends it at once, and it ends the others.
in_background() {
  local status=0
  "$@" &
  pids+=($!)
  wait $! || status=$?
  unset 'pids[-1]'
  return "$status"
}

# await URL PID NAME: waits for a 200 from URL, at most 30 seconds and while PID is running.
await() {
  for _ in {1..150}; do
    kill -0 "$2" 2>/dev/null || fail "$3 stopped before it responded to $1"
    node -e 'fetch(process.argv[1]).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))' "$1" && return
    sleep 0.2
  done
  fail "$3 does not respond to $1"
}

# free_ports COUNT: prints as many free ports. They differ, because all sockets are open at once.
free_ports() {
  node -e '
    const { createServer } = require("node:net");
    const listen = () => new Promise((resolve) => {
      const server = createServer().listen(0, "127.0.0.1", () => resolve(server));
    });
    Promise.all(Array.from({ length: Number(process.argv[1]) }, listen)).then((servers) => {
      console.log(servers.map((server) => server.address().port).join(" "));
      for (const server of servers) server.close();
    });
  ' "$1"
}

# node_for_oidc_provider: ends the check if Node.js is too old. Below Node.js 22, oidc-provider only
# warns, but it needs these two functions. Node.js 20.20 has them.
node_for_oidc_provider() {
  node -e 'process.exit(URL.parse && crypto.hash ? 0 : 1)' ||
    fail "Node.js $(node --version) is too old for oidc-provider: install 22 or later (https://nodejs.org)."
}
