# Sourced by the checks that need npm, Chromium or OpenSSL; defines `require`.

# require CHECK TOOL...: finds the tools, of npm, openssl and chromium. As root on Debian, installs
# those that are missing; otherwise prints how to install them and ends the check. Sets `browser` to
# the path of Chromium.
require() {
  local check=$1 tool packages=()
  shift
  for tool in "$@"; do
    find_tool "$tool" >/dev/null || packages+=("$tool")
  done
  if [ "${#packages[@]}" -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    { apt-get update && apt-get install --yes --no-install-recommends "${packages[@]}"; } >/dev/null || true
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

find_tool() {
  case $1 in
    chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    *) command -v "$1" ;;
  esac
}

how_to_install() {
  case $1 in
    npm) echo "install Node.js 20 or later, which brings it (https://nodejs.org, or the packages nodejs and npm)." ;;
    chromium) echo "install a package named chromium, or Google Chrome." ;;
    *) echo "install a package named $1." ;;
  esac
}
