#!/usr/bin/env bash
# Start one process for each GPU; JAX connects them by SLURM's variables:
#   sbatch --nodes=2 scripts/launch/slurm.sh lenet5-mnist --workdir /shared/runs/lenet5
#SBATCH --job-name=jaxcnn
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
# Submit from the repository, with its environment active and the data prepared (--data-dir).
# --signal: all processes save the same step two minutes before the time limit; submit again to
# resume. --requeue: after the loss of a node, the run restarts from its last checkpoint.
set -euo pipefail

# If one task fails, srun ends the others.
srun --kill-on-bad-exit=1 python scripts/train.py "$@"
