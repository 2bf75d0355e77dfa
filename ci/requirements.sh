# Sourced by the checks that need npm, Chromium, OpenSSL or Redis; defines `require`.

# require CHECK TOOL...: finds the tools, of node, npm, openssl, chromium and redis-server. As root
# on Debian, installs those that are missing; otherwise prints how to install them and ends the
# check. Sets `browser` to the path of Chromium.
require() {
  local check=$1 tool missing=()
  shift
  for tool in "$@"; do
    find_tool "$tool" >/dev/null || missing+=("$tool")
  done
  if [ "${#missing[@]}" -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    { apt-get update && install_packages "${missing[@]}"; } >/dev/null || true
  fi
  for tool in "$@"; do
    find_tool "$tool" >/dev/null || {
      echo "$check check: $tool is missing: $(how_to_install "$tool")" >&2
      exit 1
    }
  done
  # Read by the check that sources this file.
  # shellcheck disable=SC2034
  browser=$(find_tool chromium || true)
}

# install_packages TOOL...: installs the packages that have these tools.
install_packages() {
  local tool packages=()
  for tool in "$@"; do
    case $tool in
      node) packages+=(nodejs) ;;
      redis-server)
        # Not every release of Debian has both.
        apt-cache show redis-server >/dev/null 2>&1 || tool=valkey-server
        packages+=("$tool")
        ;;
      *) packages+=("$tool") ;;
    esac
  done
  apt-get install --yes --no-install-recommends "${packages[@]}"
}

find_tool() {
  case $1 in
    chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    redis-server) command -v redis-server || command -v valkey-server ;;
    *) command -v "$1" ;;
  esac
}

how_to_install() {
  case $1 in
    npm) echo "install Node.js 20 or later, which brings it (https://nodejs.org, or the packages nodejs and npm)." ;;
    node) echo "install Node.js 20 or later (https://nodejs.org, or the package nodejs)." ;;
    chromium) echo "install a package named chromium, or Google Chrome." ;;
    redis-server) echo "install a package named redis-server or valkey-server." ;;
    *) echo "install a package named $1." ;;
  esac
}
