#!/usr/bin/env bash
# A class on one laptop: about twenty people open the page at once, through one network address.
# Set PERSONA_DRIFT_PASSWORD to a password of 8 characters or more first. Further flags are passed on.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PERSONA_DRIFT_PASSWORD:?set it to the password that the class enters}"

export PERSONA_DRIFT_HOST=0.0.0.0 # reachable from the classroom's network, which has no TLS
export PERSONA_DRIFT_PORT=7860
export PERSONA_DRIFT_PAIRS=8              # side-by-side replies at once; the others see how many are ahead
export PERSONA_DRIFT_KV_BUDGET=2          # GiB for all conversations together
export PERSONA_DRIFT_MOST_WAITING=40      # turns that may wait
export PERSONA_DRIFT_MOST_PER_MINUTE=120  # for one address, and the class may share one
export PERSONA_DRIFT_MOST_AT_ONCE=40
export PERSONA_DRIFT_MOST_CHARACTERS=20000

exec python app.py "$@"
