#!/bin/sh
# Words in many files, in a shell: `put` hands them out, two `run` share them, `results` gathers what they said.
#
#     sh examples/pipeline.sh FOLDER
set -eu
folder=${1:-/usr/share/common-licenses}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

find "$folder" -type f | psync put "$scratch/shared" words > "$scratch/ids"

# These could be on two hosts. Killed and started again, they would go on where they were.
for _ in 1 2; do
    psync run "$scratch/shared" --queue words -j 2 --retries 1 -- 'wc -w < {}' < /dev/null > "$scratch/log" &
done
wait

psync results "$scratch/shared" words --wait --timeout 60 --json |
    sed -n 's/.*"stdout": " *\([0-9]*\).*/\1/p' > "$scratch/counts"

found=$(awk '{ sum += $1 } END { print sum + 0 }' "$scratch/counts")
expected=$(find "$folder" -type f -exec wc -w {} \; | awk '{ sum += $1 } END { print sum + 0 }')
echo "$found words in $(wc -l < "$scratch/counts") files under $folder"
if [ "$found" -ne "$expected" ]; then
    echo "there are $expected" >&2
    exit 1
fi
echo "the counts agree"
