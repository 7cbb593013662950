#!/usr/bin/env bash
# Trains on a TPU slice of Google Cloud, obtained as a queued resource, until training has finished.
# Where the slice is preempted it asks for another one and goes on from the last checkpoint.
#
#   BUCKET=gs://my-bucket launch/tpu_queued_resource.sh
#   ACCELERATOR=v5p-64 RUNTIME=v2-alpha-tpuv5 BUCKET=gs://my-bucket launch/tpu_queued_resource.sh
#
# It runs on any machine with gcloud and stays connected as long as training lasts: start it in tmux.
# What follows the script's name goes to the command, such as --config.mesh.fsdp=8.
set -uo pipefail

# Parameters: environment variables of the same names replace these values.
NAME=${NAME:-videodiff}
ZONE=${ZONE:-us-central1-a}
ACCELERATOR=${ACCELERATOR:-v5litepod-64}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
TIER=${TIER:---spot} # or --reserved, --guaranteed
CONFIG=${CONFIG:-configs/glober_sky.py}
BUCKET=${BUCKET:?the gs:// address that holds the data and the runs}
DATA=${DATA:-$BUCKET/store}
WORKDIR=${WORKDIR:-$BUCKET/runs/glober_sky}
REPOSITORY=${REPOSITORY:-$(git remote get-url origin 2> /dev/null)}
INSTALL=${INSTALL:-"git clone --quiet '$REPOSITORY' videodiff_jax &&
  cd videodiff_jax && python3 -m pip install --quiet -e '.[tpu]'"}
POLL=${POLL:-60} # seconds between two looks at the slice

queued() { gcloud compute tpus queued-resources "$@" --zone="$ZONE" --quiet; }
state() { queued describe "$NAME" --format="value(state.state)"; }
on_all_workers() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

printf -v arguments '%q ' --config="$CONFIG" --config.data.dir="$DATA" --workdir="$WORKDIR" "$@"
TRAIN="cd videodiff_jax && exec launch/tpu_worker.sh python3 -m experiments.main $arguments"

while true; do
  queued create "$NAME" --node-id="$NAME" --accelerator-type="$ACCELERATOR" \
    --runtime-version="$RUNTIME" "$TIER" || exit 1
  until now=$(state) && [[ $now == ACTIVE || $now == SUSPEND* ]]; do
    [[ $now == FAILED ]] && queued describe "$NAME" && exit 1
    sleep "$POLL"
  done

  status=1
  [[ $now == ACTIVE ]] && on_all_workers "$INSTALL" && on_all_workers "$TRAIN" && status=0

  # gcloud does not tell how the workers ended. A preempted slice is soon no longer ACTIVE; any other
  # error would come again.
  if [[ $status -ne 0 ]]; then
    for _ in 1 2 3; do
      now=$(state)
      [[ $now != ACTIVE ]] && break
      sleep "$POLL"
    done
  fi
  queued delete "$NAME" --force
  [[ $status -eq 0 || $now == ACTIVE ]] && exit "$status"
  echo "The slice was preempted ($now): asking for another one." >&2
done
