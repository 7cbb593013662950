#!/usr/bin/env bash
# Runs a command on a worker of a TPU slice: launch/tpu_worker.sh python3 -m experiments.main ...
# The workers' addresses and this one's number come from Google Cloud's metadata server.
set -euo pipefail

PORT=${PORT:-8476}

metadata() {
  curl --silent --fail --header "Metadata-Flavor: Google" \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# Either hosts or name:number:address, joined by commas.
IFS=, read -ra workers <<< "$(metadata worker-network-endpoints)"
number=$(metadata agent-worker-number)
export JAX_COORDINATOR_ADDRESS="${workers[0]##*:}:$PORT"
export JAX_NUM_PROCESSES="${#workers[@]}" JAX_PROCESS_ID="$number"
exec "$@"
