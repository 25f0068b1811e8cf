#!/usr/bin/env bash
# Train the runs of a study as the tasks of a SLURM array, a line of a file each:
#   python scripts/study.py shift --plan > jobs
#   sbatch --array=1-$(wc -l < jobs) scripts/launch/study_array.sh jobs
#SBATCH --job-name=jaxcnn-study
#SBATCH --ntasks=1
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# A Kubernetes Job with completionMode: Indexed sets JOB_COMPLETION_INDEX, counted from 0.
# Submit from the repository, with its environment active; all tasks share the folder runs/.
set -euo pipefail

line=${SLURM_ARRAY_TASK_ID:-$((JOB_COMPLETION_INDEX + 1))}
exec bash -c "exec $(sed -n "${line}p" "$1")"
