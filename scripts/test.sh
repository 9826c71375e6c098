#!/usr/bin/env bash
# Sets up what is missing, then formatter, linter and all tests: scripts/test.sh [arguments of pytest].
# With TFDS_DATA_DIR set to prepared data, the tests on real IMDB run as well.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt tests/requirements.txt scripts/requirements.txt

ruff format --check .
ruff check .
exec python -m pytest -n 2 --dist=worksteal "$@"
