#!/usr/bin/env bash
# A server with one GPU, behind a proxy with a certificate on the same machine.
# Set PERSONA_DRIFT_PASSWORD first, and name a model and its axis: bash examples/gpu-server.sh --model M --axis A
# All visitors come from the proxy's address, so limits for one address hold for all of them together.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PERSONA_DRIFT_PASSWORD:?set it to the password that visitors enter}"

export PERSONA_DRIFT_HOST=127.0.0.1 # only the proxy reaches it
export PERSONA_DRIFT_PORT=7860
export PERSONA_DRIFT_DEVICE=${PERSONA_DRIFT_DEVICE:-cuda} # cpu to try this file without a GPU
export PERSONA_DRIFT_PAIRS=32
export PERSONA_DRIFT_KV_BUDGET=16 # GiB beside the weights, on the GPU
export PERSONA_DRIFT_MOST_WAITING=200
export PERSONA_DRIFT_MOST_PER_MINUTE=600
export PERSONA_DRIFT_MOST_AT_ONCE=200
export PERSONA_DRIFT_MOST_CHARACTERS=20000

exec python app.py "$@"
