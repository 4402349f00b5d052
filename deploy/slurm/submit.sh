#!/usr/bin/env bash
# An evaluation by a Slurm array, a shard a task, and its files put together behind it:
#
#   SHARDS=8 OUT=run.jsonl deploy/slurm/submit.sh --model MODEL --data DATA [what else memo eval takes]
#
# A task that is preempted, whose node fails, or whose time is over is queued again and goes on where it was. What sbatch is to
# be told beside this (partition, account, --gres=gpu:1, --time) goes into SBATCH_OPTIONS, one string; MEMO is the program.
# What there is of the shards lies in OUT.shards; run.jsonl is there when all have ended.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${SHARDS:?how many tasks}" "${OUT:?the file of the whole run}"
MEMO=$(command -v "${MEMO:-memo}") || { echo "error: no program ${MEMO:-memo}: set MEMO to it" >&2; exit 1; }
export MEMO
mkdir -p "$OUT.shards"
read -ra options <<< "${SBATCH_OPTIONS:-}"
array=$(sbatch --parsable --array="0-$((SHARDS - 1))" "${options[@]}" "$here/shard.sbatch" "$OUT" "$@")
merge=$(sbatch --parsable --dependency="afterok:$array" "${options[@]}" "$here/merge.sbatch" "$OUT" "$SHARDS")
echo "shards: job $array; merge: job $merge; logs and shards in $OUT.shards"
