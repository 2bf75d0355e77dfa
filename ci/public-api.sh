#!/usr/bin/env bash
# Compares the public API with the reviewed list in ci/public-api.txt, so that each change of it
# shows in a diff. `ci/public-api.sh --update` writes the list anew.
#
# Needs cargo-public-api, which it installs if it is missing. That tool reads rustdoc's JSON, which
# is an unstable output: RUSTC_BOOTSTRAP=1 allows it for this tool alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

list=ci/public-api.txt
command -v cargo-public-api >/dev/null || cargo install --locked --quiet --debug cargo-public-api || {
  echo "public API: cargo-public-api is missing and could not be installed; run" >&2
  echo "  cargo install --locked cargo-public-api" >&2
  exit 1
}
current=$(mktemp)
trap 'rm -f "$current"' EXIT
# Without trait implementations that every type has, or that follow from its fields. Sorted, so that
# moving an item between files changes nothing. The guides exist in the documentation only.
RUSTC_BOOTSTRAP=1 cargo public-api --all-features -sss 2>/dev/null | LC_ALL=C sort --unique |
  grep --invert-match '^pub mod portcullis::guide' >"$current" || {
  echo "public API: cargo-public-api failed; this shows why:" >&2
  echo "  RUSTC_BOOTSTRAP=1 cargo public-api --all-features -sss" >&2
  exit 1
}
if [ "${1:-}" = --update ]; then
  cp "$current" "$list"
  echo "wrote $list: $(wc -l <"$list") items"
  exit
fi
diff --unified "$list" "$current" || {
  echo "the public API differs from $list (above); if that is meant, run ci/public-api.sh --update" >&2
  exit 1
}
echo "The public API is the reviewed one: $(wc -l <"$list") items."
