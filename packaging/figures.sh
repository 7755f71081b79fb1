#!/bin/sh
# Runs the benches on a quiet machine and writes docs/figures.md with the machine's line, the raw samples and the commands.
set -eu
cd "$(dirname "$0")/.."
tertulia=target/release/tertulia
out=docs/figures.md
mkdir -p docs artefacts
run() { echo "running: $*" >&2; "$@" >/dev/null 2>artefacts/figures.log || { cat artefacts/figures.log >&2; exit 1; }; }
run $tertulia demo --participants 4 --size 640x360@30 --seconds 15 --headless --stats-json artefacts/f-demo.json
run $tertulia bench join --json artefacts/f-join.json
run $tertulia bench sfu --json artefacts/f-sfu.json
run $tertulia bench latency --json artefacts/f-latency.json
run $tertulia bench network --json artefacts/f-network.json
python3 packaging/figures.py artefacts "$tertulia" > "$out"
echo "$out"
