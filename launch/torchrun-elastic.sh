#!/usr/bin/env bash
# A run that machines may join and leave: when one comes or goes, all processes save, start anew with those that are
# there, and go on from the saved state (the global batch stays the same, whatever their number).
# Give the command on every machine; HOST is one that stays.
#   launch/torchrun-elastic.sh HOST:29500 1:4 --backbone B --dataset D --output DIR
# 1:4 is the least and the largest number of machines; DIR must be on a file system that they share.
set -euo pipefail

endpoint=$1
machines=$2
shift 2
exec torchrun --nnodes "$machines" --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 100 \
  --rdzv-backend c10d --rdzv-endpoint "$endpoint" --rdzv-id msekit \
  -m msekit train --resume "$@"
