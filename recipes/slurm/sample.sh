#!/usr/bin/env bash
#SBATCH --time=4:00:00
#SBATCH --signal=USR1@120 --requeue --open-mode=append
# Samples of every class: each task of the array makes one part of the store.
set -eu
# shellcheck disable=SC2086 # several options in one variable
exec ./requeue.sh grn sample "$OUT/generator" "$OUT/samples.zarr" --per-class "$PER_CLASS" --part auto $SAMPLING
