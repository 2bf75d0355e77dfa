#!/usr/bin/env bash
# A guard for the language of comments and guides: words that CONTRIBUTING.md's glossary replaces,
# and lines over 100 columns. It cannot tell good prose; it keeps habits from coming back.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

words='whoever|nobody|strangers?|somebody|at hand|look-ups?|looked-up|riddles?|is none|behaviours?|neighbours?|licences?'
failed=0

# Comments of sources, and whole guides. CONTRIBUTING.md names the words that it replaces.
mapfile -t sources < <(git ls-files '*.rs')
mapfile -t guides < <(git ls-files '*.md' | grep -v -e '^CONTRIBUTING.md$')
if grep --line-number --ignore-case --word-regexp --extended-regexp "//.*($words)" "${sources[@]}"; then failed=1; fi
if grep --line-number --ignore-case --word-regexp --extended-regexp "($words)" "${guides[@]}"; then failed=1; fi

# Tables, links and code in examples may be longer.
long=$(LC_ALL=C.UTF-8 grep --line-number --extended-regexp '^ *//' "${sources[@]}" |
  LC_ALL=C.UTF-8 grep --extended-regexp ':[0-9]+:.{101,}' |
  grep --invert-match --extended-regexp '\||https?:|//[/!] +(let|use|#|fn|assert|pub|\.)' || true)
if [ -n "$long" ]; then
  echo "$long"
  failed=1
fi

[ "$failed" -eq 0 ] || {
  echo "prose: words or lines above; CONTRIBUTING.md says what to write instead" >&2
  exit 1
}
echo "No replaced words, no comment over 100 columns."
