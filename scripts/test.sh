#!/usr/bin/env bash
# Sets up what is missing, then formatter, linter, types, tests: scripts/test.sh [--fast] [arguments of pytest].
# --fast leaves out slow tests, and those that start the trainer in a second process or train a run.
# With TFDS_DATA_DIR set to prepared data, the tests on real IMDB run as well.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt tests/requirements.txt scripts/requirements.txt

tier=()
if [ "${1:-}" = --fast ]; then
  tier=(-m "not slow")
  shift
fi

ruff format --check .
ruff check .
mypy &
types=$!
status=0
python -m pytest -n 3 --dist=worksteal "${tier[@]}" "$@" || status=$?
wait "$types" || { echo "The types are wrong: see what mypy said above." >&2; status=1; }
exit "$status"
