# Sourced by the checks in this folder: finds the tools that they need, and the programs under test.

# require CHECK TOOL...: finds the tools, which are commands, or one of the names in `find_tool`. As
# root on Debian, installs those that are missing; otherwise prints how to install them and ends the
# check. Sets `browser` to the path of Chromium, if that is asked for.
require() {
  local check=$1 tool missing=()
  shift
  for tool in "$@"; do
    find_tool "$tool" >/dev/null || missing+=("$tool")
  done
  if [ "${#missing[@]}" -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    install_packages "${missing[@]}" >/dev/null || true
  fi
  for tool in "$@"; do
    find_tool "$tool" >/dev/null || {
      echo "$check: $tool is missing: $(how_to_install "$tool")" >&2
      exit 1
    }
  done
  # Read by the check that sources this file.
  # shellcheck disable=SC2034
  browser=$(find_tool chromium || true)
}

# install_packages TOOL...: installs the packages that have these tools. In a subshell, for its trap.
install_packages() (
  # On Debian, a package of a server starts it on all interfaces, unless a policy forbids it.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get update || return 1
  packages=()
  for tool; do
    case $tool in
      c++) packages+=(g++) ;;
      node) packages+=(nodejs) ;;
      openssl-headers) packages+=(pkg-config libssl-dev) ;;
      redis-server)
        # Not every release of Debian has both.
        apt-cache show redis-server >/dev/null 2>&1 || tool=valkey-server
        packages+=("$tool")
        ;;
      venv) packages+=(python3 python3-venv) ;;
      *) packages+=("$tool") ;;
    esac
  done
  apt-get install --yes --no-install-recommends "${packages[@]}"
)

find_tool() {
  case $1 in
    chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    openssl-headers) command -v pkg-config >/dev/null && pkg-config --exists openssl ;;
    redis-server) command -v redis-server || command -v valkey-server ;;
    # Debian has it in a package of its own; without that, the module is there, but fails.
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *) command -v "$1" ;;
  esac
}

how_to_install() {
  case $1 in
    c++) echo "install a C++ compiler, such as the package g++." ;;
    npm) echo "install Node.js 22 or later, which brings it (https://nodejs.org, or the packages nodejs and npm)." ;;
    node) echo "install Node.js 22 or later (https://nodejs.org, or the package nodejs)." ;;
    chromium) echo "install a package named chromium, or Google Chrome." ;;
    openssl-headers) echo "install packages named pkg-config and libssl-dev (or openssl-devel)." ;;
    redis-server) echo "install a package named redis-server or valkey-server." ;;
    venv) echo "install packages named python3 and python3-venv, or Python 3.11 or later (https://python.org)." ;;
    *) echo "install a package named $1." ;;
  esac
}

# build_examples NAME...: builds these examples, and sets `programs` to the folder that they are in.
# EXAMPLES names a folder with built ones to check instead.
build_examples() {
  programs=${EXAMPLES:-}
  if [ -z "$programs" ]; then
    cargo build --locked --quiet "${@/#/--example=}"
    programs=${CARGO_TARGET_DIR:-target}/debug/examples
  fi
}
