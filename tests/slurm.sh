#!/usr/bin/env bash
# deploy/slurm on a real Slurm of one machine: eight tasks, one requeued as by preemption and one at the end of its time, the
# merged file equal to the byte to one machine's. Outside `make test`: it wants root, and Debian's slurm-wlm and munge.
#
#   make test-slurm        its log stays in target/slurm
set -euo pipefail
cd "$(dirname "$0")/.."
memo=$PWD/target/${PROFILE:-release}/memo
for program in slurmctld slurmd munged; do
  command -v $program > /dev/null || { echo "error: no $program: apt-get install slurm-wlm munge" >&2; exit 1; }
done
place=$PWD/target/slurm
rm -rf "$place" && mkdir -p "$place"/{state,spool}
export SLURM_CONF=$place/slurm.conf
host=$(hostname -s)
cat > "$SLURM_CONF" <<CONF
ClusterName=memo
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$place/munge.socket,cred_expire=3
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=2
KillWait=1
ReturnToService=2
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
head -c 1024 /dev/urandom > "$place/munge.key" && chmod 400 "$place/munge.key"
stop() {
  for name in slurmd slurmctld munged; do [ ! -e "$place/$name.pid" ] || kill "$(cat "$place/$name.pid")" || true; done
}
trap stop EXIT
munged --force --key-file="$place/munge.key" --socket="$place/munge.socket" --pid-file="$place/munged.pid" \
  --log-file="$place/munged.log" --seed-file="$place/munged.seed"
slurmctld && slurmd
until [ "$(sinfo --noheader --format %T 2> /dev/null)" = idle ]; do sleep 1; done

eval=(--model "$PWD/assets/demo-model" --data "$PWD/assets/demo-images.safetensors#noise" --policy mild --views 32 --lr 3e-3
  --device virtual --batch 1)
"$memo" eval "${eval[@]}" --out "$place/whole.jsonl" | tee "$place/whole.txt"

lines() { cat "$place/run.jsonl.shards/$1.jsonl" 2> /dev/null | wc -l; }
answer=$(cd "$place" && MEMO=$memo SHARDS=8 OUT=$place/run.jsonl SBATCH_OPTIONS="--output=$place/jobs.log" \
  "$OLDPWD/deploy/slurm/submit.sh" "${eval[@]}")
echo "$answer"
array=$(sed 's/shards: job \([0-9]*\).*/\1/' <<< "$answer")
for task in 2 5; do
  until [ "$(lines $task)" -gt 0 ]; do sleep 0.1; done
  echo "task $task has $(lines $task) of its images: $([ $task = 2 ] && echo preempted || echo its time is over)"
  if [ $task = 2 ]; then scontrol requeue "${array}_2"; else scancel --batch --signal=USR1 "${array}_5"; fi
done
for ((second = 0; ; second++)); do
  left=$(squeue --noheader | wc -l)
  [ "$left" -gt 0 ] || break
  [ $second -lt 600 ] || { echo "error: $left jobs are still there" >&2; squeue >&2; exit 1; }
  sleep 1
done
for task in 2 5; do
  scontrol --oneliner show job "${array}_$task" | grep -o 'Restarts=[0-9]*' | sed "s/^/task $task: /"
  scontrol --oneliner show job "${array}_$task" | grep -q 'Restarts=1 ' || { echo "error: it was not requeued" >&2; exit 1; }
done
cat "$place/run.jsonl.txt"
cmp "$place/run.jsonl" "$place/whole.jsonl"
cmp "$place/run.jsonl.run.json" "$place/whole.jsonl.run.json"
cmp <(grep -v images/s "$place/whole.txt") "$place/run.jsonl.txt"
echo "slurm: eight shards, two requeued: the files equal one machine's"
