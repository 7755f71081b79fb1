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
run $tertulia bench screen --json artefacts/f-screen.json
run $tertulia bench network --json artefacts/f-network.json
# Mouth to ear needs two speakers that are not real: PipeWire's, in a folder of their own. Without it the row is left out.
sound=$(mktemp -d)
mkfifo "$sound/stop"
bash tests/audio_support/pipewire.sh "$sound" <"$sound/stop" >"$sound/ready" 2>/dev/null &
exec 4>"$sound/stop"
tries=0
until grep -q . "$sound/ready" || [ "$tries" -ge 200 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
if grep -q "^ready" "$sound/ready"; then
  (
    export XDG_RUNTIME_DIR="$sound/run" PULSE_SERVER="unix:$sound/run/pulse/native"
    for name in tertulia-mouth tertulia-ear; do
      pactl load-module module-null-sink "sink_name=$name" channels=2 rate=48000 >/dev/null
    done
    run $tertulia bench audio --json artefacts/f-audio.json
  )
else
  echo "no PipeWire (make deps-test installs it): mouth to ear is left out" >&2
  run $tertulia bench audio --json artefacts/f-audio.json
fi
exec 4>&-
wait
rm -rf "$sound"
# The window's figures need a display; a virtual one, drawn by the processor, is what they are asked for on.
rm -f artefacts/f-start.json artefacts/f-tiles.json artefacts/f-client.json
if command -v Xvfb >/dev/null 2>&1; then
  screen=$(mktemp)
  Xvfb -displayfd 3 -screen 0 1280x800x24 -nolisten tcp 3>"$screen" >/dev/null 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null || true; rm -f "$screen"' EXIT
  trap 'exit 1' INT TERM
  tries=0
  until [ -s "$screen" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "Xvfb did not start" >&2; exit 1; }
    sleep 0.1
  done
  DISPLAY=:$(cat "$screen")
  export DISPLAY
  unset WAYLAND_DISPLAY
  run $tertulia bench start --json artefacts/f-start.json
  run $tertulia bench tiles --json artefacts/f-tiles.json --config artefacts/f-settings
  # Chromium is measured beside it where it is there, with the library in the version that the browser tests name.
  if command -v chromium >/dev/null 2>&1 && [ ! -d tests/browser/node_modules ]; then
    (cd tests/browser && npm ci --no-audit --no-fund --ignore-scripts >/dev/null)
  fi
  run $tertulia bench client --json artefacts/f-client.json
else
  echo "no Xvfb (make deps-test installs it): the window's figures are left out" >&2
fi
python3 packaging/figures.py artefacts "$tertulia" > "$out"
echo "$out"
