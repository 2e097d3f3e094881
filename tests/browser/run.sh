#!/bin/sh
# Runs the browser tests where Chromium, Node and playwright-core are there; says what is missing otherwise.
cd "$(dirname "$0")" || exit 1
missing() {
  if [ "$HOLT_BROWSER_TESTS" = required ]; then
    echo "browser tests cannot run: $1" >&2
    exit 1
  fi
  echo "browser tests are skipped: $1"
  exit 0
}
command -v node >/dev/null || missing "no node"
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser)}
[ -n "$CHROMIUM" ] || missing "no chromium (Debian: apt-get install chromium)"
[ -d node_modules/playwright-core ] && [ -d node_modules/axe-core ] || missing "no playwright-core or axe-core (run: npm install in tests/browser)"
export CHROMIUM
HOLT_BIN=${HOLT_BIN:-$(cd ../.. && pwd)/target/debug/holt}
export HOLT_BIN
exec node run.mjs
