#!/usr/bin/env bash
# Start one process on each host of a TPU slice; JAX connects them by the slice's metadata:
#   export ZONE=us-west4-a REPOSITORY=https://...
#   scripts/launch/tpu_slice.sh NAME lenet5-mnist --workdir /mnt/shared/runs/lenet5
# Create the slice first (gcloud compute tpus tpu-vm create NAME --accelerator-type=v5litepod-16 ...).
# /mnt/shared is a file system that all hosts mount; `python` on the hosts is 3.11 or newer.
set -euo pipefail

name=$1
shift

on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all --command="$1"
}

on_all_hosts "test -d jaxcnn || git clone $REPOSITORY jaxcnn && pip install -e './jaxcnn[tpu]'"
on_all_hosts "cd jaxcnn && python scripts/train.py $(printf '%q ' "$@") --multihost"
