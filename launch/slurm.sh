#!/usr/bin/env bash
# Trains on the nodes of a SLURM cluster, one process on each, and goes on after every preemption.
#
#   sbatch launch/slurm.sh
#   CONFIG=configs/glober_ucf101.py WORKDIR=/shared/runs/ucf101 sbatch --nodes=8 launch/slurm.sh
#
# What follows the script's name goes to the command: sbatch launch/slurm.sh --config.mesh.fsdp=8
#
#SBATCH --job-name=videodiff
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# The processes get SIGTERM five minutes before the time is over, and at once when preempted.
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -uo pipefail

# Parameters: environment variables of the same names replace these values.
CHECKOUT=${CHECKOUT:-${SLURM_SUBMIT_DIR:-$PWD}}
PYTHON=${PYTHON:-python}
CONFIG=${CONFIG:-configs/glober_sky.py}
DATA=${DATA:-/shared/store}
WORKDIR=${WORKDIR:-/shared/runs/glober_sky} # on a disk that all nodes share

cd "$CHECKOUT" || exit 1
# A process that ends does not take the others with it: they end by themselves, after saving.
srun --kill-on-bad-exit=0 --wait=600 --label \
  "$PYTHON" -m experiments.main --config="$CONFIG" --config.data.dir="$DATA" \
  --workdir="$WORKDIR" "$@"
status=$?

# 143: SIGTERM ended it, its state is saved. Any other error would come again.
if [[ $status -eq 143 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
