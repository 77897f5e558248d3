#!/usr/bin/env bash
# Submit the job NAME.sh, unless what it makes is there: submit.sh AFTER NAME MADE SBATCH-OPTIONS...
# It waits for the job AFTER, where that is not complete yet. Without Slurm it runs here, one task after the other.
set -euo pipefail
after=$1 name=$2 made=$3
shift 3
mkdir -p "$OUT/jobs"
[ -e "$made" ] && { echo "$name: $made is there"; rm -f "$OUT/jobs/$name"; exit; }

if ! command -v sbatch >/dev/null; then
    last=0
    for option in "$@"; do [[ $option != --array=0-* ]] || last=${option#--array=0-}; done
    for task in $(seq 0 "$last"); do
        SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=$last \
            SLURM_ARRAY_TASK_COUNT=$((last + 1)) bash "$name.sh"
    done
    exit
fi

job() { cat "$OUT/jobs/$1" 2>/dev/null; } # the number it was submitted as; none once it is complete
if number=$(job "$name") && [ -n "$(squeue --noheader --jobs="$number" 2>/dev/null)" ]; then
    echo "$name: job $number is queued or runs"
    exit
fi
if [ -n "$after" ] && number=$(job "$after"); then
    # A job that waits for one that failed is removed from the queue.
    set -- "$@" --dependency="afterok:$number" --kill-on-invalid-dep=yes
fi
log=%j
[[ $* != *--array=* ]] || log=%A_%a
number=$(sbatch --parsable --job-name="grn-$name" --output="$OUT/jobs/$name-$log.log" "$@" "$name.sh")
echo "${number%%;*}" >"$OUT/jobs/$name"
echo "$name: submitted as job ${number%%;*}"
