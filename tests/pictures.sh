#!/bin/sh
# The main screens of the real program on a virtual display, as artefacts/picture-*.png. `make pictures` builds and calls this.
# TERTULIA_BIN names another binary; README=1 renews the picture of the README, too.
set -eu
cd "$(dirname "$0")/.."
bin=${TERTULIA_BIN:-target/debug/tertulia}
missing=""
for need in Xvfb:xvfb openbox:openbox xdotool:xdotool import:imagemagick xclip:xclip; do
  command -v "${need%%:*}" >/dev/null 2>&1 || missing="$missing ${need##*:}"
done
[ -z "$missing" ] || { echo "missing packages:$missing; make deps-test installs them" >&2; exit 1; }
mkdir -p artefacts
work=$(mktemp -d)
pids=""
# Newest first; the display goes last.
finish() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

Xvfb -displayfd 3 -screen 0 1300x860x24 -nolisten tcp 3>"$work/display" >/dev/null 2>&1 &
pids="$!"
tries=0
until [ -s "$work/display" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 100 ] || { echo "Xvfb did not start" >&2; exit 1; }
  sleep 0.1
done
DISPLAY=:$(cat "$work/display")
export DISPLAY
unset WAYLAND_DISPLAY
openbox >/dev/null 2>&1 &
pids="$! $pids"

mkdir "$work/config"
settings() {
  cat >"$work/config/settings.toml" <<CONF
name = "Ines"
theme = "$1"
language = "en"
[devices]
camera = "pattern:4:640x360@30"
microphone = "tone"
speaker = "null"
CONF
}
# Starts the program with these arguments; window id in $window, process in $running.
open() {
  "$bin" "$@" --config "$work/config" >"$work/out" 2>"$work/err" &
  running=$!
  pids="$running $pids"
  window=""
  tries=0
  while [ -z "$window" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { echo "no window appeared:" >&2; cat "$work/err" >&2; exit 1; }
    sleep 0.1
    window=$(xdotool search --onlyvisible --pid "$running" 2>/dev/null | tail -n 1) || true
  done
  # No tooltip in the pictures.
  xdotool mousemove --window "$window" 640 10
  sleep 1.5
}
close() { kill "$running" 2>/dev/null || true; wait "$running" 2>/dev/null || true; }
shot() { import -window "$window" "png24:artefacts/picture-$1.png"; echo "artefacts/picture-$1.png"; }
click() { xdotool mousemove --window "$window" "$1" "$2"; sleep 0.2; xdotool click 1; sleep "${3:-1}"; }

for theme in dark light; do
  settings "$theme"
  open
  shot "home-$theme"
  click 848 391 2.5
  shot "lobby-$theme"
  click 1040 533 3
  shot "alone-$theme"
  xdotool key m v
  sleep 1
  shot "muted-$theme"
  xdotool key ctrl+shift+l
  sleep 1.5
  shot "left-$theme"
  close
done

settings dark
open demo --participants 4 --size 640x360@30
sleep 6
shot call-4
if [ -n "${README:-}" ]; then
  convert artefacts/picture-call-4.png -resize 1000x -colors 128 -strip png8:assets/readme.png
  echo assets/readme.png
fi
xdotool windowsize "$window" 480 700
sleep 1.5
shot narrow-call
close
