#!/usr/bin/env bash
#SBATCH --time=4:00:00
#SBATCH --signal=USR1@120 --requeue --open-mode=append
# Figures of all samples, in evaluation.json once they are complete.
set -eu
# shellcheck disable=SC2086 # several options in one variable
./requeue.sh grn eval gen "$OUT/samples.zarr" --tokenizer "$TOKENIZER" --reference "$REFERENCE" --json $EVALUATION \
    >"$OUT/evaluation.json.partial"
mv "$OUT/evaluation.json.partial" "$OUT/evaluation.json"
