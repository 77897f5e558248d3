#!/usr/bin/env bash
# Run a command as a step of this job. Where it was stopped early with everything saved (exit code 75), the job is queued
# again, at most ATTEMPTS times, and resumes there. Without Slurm the command just runs.
set -uo pipefail
[ -n "${SLURM_JOB_ID:-}" ] || exec "$@"
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # since Slurm 22.05 srun does not take it from sbatch any more
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}
srun "$@"
code=$?
[ "$code" -eq 75 ] || exit "$code"
if [ "${SLURM_RESTART_COUNT:-0}" -ge "${ATTEMPTS:-50}" ]; then
    echo "requeue.sh: stopped early once more after ${ATTEMPTS:-50} attempts; raise ATTEMPTS or --time" >&2
    exit "$code"
fi
job=$SLURM_JOB_ID
# The number of the last task of an array is that of the array too, whose tasks would all begin again.
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
scontrol requeue "$job"
exit "$code"
