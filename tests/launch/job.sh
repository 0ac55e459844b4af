#!/usr/bin/env bash
#SBATCH --job-name=base
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:a100:8
#SBATCH --cpus-per-task=12
#SBATCH --mem=500G
#SBATCH --time=2-00:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --array=0-3%2
#SBATCH --output=/r/slurm-%j.out
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@180
#SBATCH --exclusive

cd /home/me || exit 1
module load cuda
set -u
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
MASTER_PORT=$((29500 + SLURM_JOB_ID % 1000))
OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS
export NCCL_SOCKET_IFNAME='eth 0'
export PYTHONPATH=/r/code
srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} python -m foreloom train chronos2-base training.steps=5
code=$?
if [ "$code" -eq 138 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"; fi
exit "$code"
