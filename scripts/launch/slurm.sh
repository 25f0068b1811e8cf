#!/usr/bin/env bash
# A process for each GPU; JAX finds the others by SLURM's variables:
#   sbatch --nodes=2 scripts/launch/slurm.sh lenet5-mnist --workdir /shared/runs/lenet5
#SBATCH --job-name=jaxcnn
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
# Submit from the repository, its environment active, the data prepared (--data-dir). --signal: all
# save the same step two minutes before the time is up; submit again to go on. --requeue: a run that
# lost a node starts again by itself, from its last checkpoint.
set -euo pipefail

# A task that ends in an error takes the others along.
srun --kill-on-bad-exit=1 python scripts/train.py "$@"
