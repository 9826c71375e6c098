#!/usr/bin/env bash
# Sets up what is missing and trains: scripts/train.sh [flags].
# Without flags it trains the quick start, which needs no network except for the package index.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt

if [ $# -eq 0 ]; then
  set -- --flagfile=trainer/configs/quickstart.flags
fi
exec python -m trainer.main "$@"
