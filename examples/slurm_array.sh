#!/bin/sh
#SBATCH --array=0-3
#SBATCH --time=00:05:00
# An array job in two phases: each task sums up its part of the numbers below LIMIT; behind a barrier, when all parts
# are there, each works with the whole. Submit it with `sbatch`, or run it as it is: then it plays the array itself.
#
#     sbatch examples/slurm_array.sh /a/directory/that/all/nodes/see        sh examples/slurm_array.sh
set -eu
LIMIT=100000

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    tasks=''
    for id in 0 1 2 3; do
        SLURM_ARRAY_JOB_ID=$$ SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_ID=$id sh "$0" "$scratch/shared" &
        tasks="$tasks $!"
    done
    for task in $tasks; do
        wait "$task" # and fail if it did
    done
    exit
fi

shared=$1
job=$SLURM_ARRAY_JOB_ID # in every name, so that the next job may use the same directory
me=$SLURM_ARRAY_TASK_ID
all=$SLURM_ARRAY_TASK_COUNT

# Phase one: every all-th number, beginning with mine.
part=$(seq "$me" "$all" $((LIMIT - 1)) | awk '{ sum += $1 } END { printf "%d", sum }')
psync set "$shared" "job$job/part$me" "$part"

# SLURM starts the tasks when it likes; if one of them dies, the others end here, too, and say who it was.
psync barrier "$shared" "job$job" --parties "$all" --timeout 3600 > /dev/null

# Phase two: all parts are there.
sum=0
for id in $(seq 0 $((all - 1))); do
    sum=$((sum + $(psync get "$shared" "job$job/part$id")))
done
share=$(awk "BEGIN { printf \"%.1f\", 100 * $part / $sum }")
echo "task $me of $all: my part is $part, $share % of $sum"

expected=$((LIMIT * (LIMIT - 1) / 2))
if [ "$sum" -ne "$expected" ]; then
    echo "task $me: that should be $expected" >&2
    exit 1
fi
