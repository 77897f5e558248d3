#!/usr/bin/env bash
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300 --requeue --open-mode=append
# Bits to a generator: srun starts the processes of all machines, which save and end together on the warning signal.
set -eu
# shellcheck disable=SC2086 # several options in one variable
exec ./requeue.sh grn train-gen "$RECIPE" "$OUT/bits.zarr" --out "$OUT/generator" --tokenizer "$TOKENIZER" $TRAINING
