#!/usr/bin/env bash
#SBATCH --time=4:00:00
#SBATCH --signal=USR1@120 --requeue --open-mode=append
# Pictures to bits: each task of the array makes one part of the store.
set -eu
# shellcheck disable=SC2086 # several options in one variable
exec ./requeue.sh grn tokenize "$MEDIA" "$OUT/bits.zarr" --tokenizer "$TOKENIZER" --part auto $TOKENIZING
