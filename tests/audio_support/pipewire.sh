#!/bin/bash
# pipewire.sh DIR: virtual sound devices in a runtime directory of their own, for the device tests.
#
# Starts dbus-daemon, pipewire, wireplumber and pipewire-pulse with everything they read and write under DIR. Devices:
#   vspeaker  a null sink, the default speaker; its monitor gives back what it plays
#   vmic      a null sink whose monitor stands in for the cable to a microphone
# Prints "ready" when both are there, then stays until its standard input ends, and ends what it started.
set -u
dir=$1
need=()
for program in dbus-daemon:dbus pipewire:pipewire wireplumber:wireplumber pipewire-pulse:pipewire-pulse pactl:pulseaudio-utils; do
    command -v "${program%%:*}" >/dev/null 2>&1 || need+=("${program##*:}")
done
if [ ${#need[@]} -gt 0 ]; then
    echo "missing packages: ${need[*]}"
    exit 3
fi
export XDG_RUNTIME_DIR=$dir/run XDG_CONFIG_HOME=$dir/config XDG_STATE_HOME=$dir/state HOME=$dir
export PIPEWIRE_RUNTIME_DIR=$XDG_RUNTIME_DIR PULSE_SERVER=unix:$XDG_RUNTIME_DIR/pulse/native
unset PULSE_RUNTIME_PATH PULSE_SINK PULSE_SOURCE PIPEWIRE_REMOTE DISPLAY WAYLAND_DISPLAY
mkdir -p "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME" "$XDG_CONFIG_HOME/pipewire/pipewire.conf.d" "$dir/log"
chmod 700 "$XDG_RUNTIME_DIR"
cat >"$XDG_CONFIG_HOME/pipewire/pipewire.conf.d/10-virtual.conf" <<'CONF'
context.objects = [
  { factory = adapter args = { factory.name = support.null-audio-sink node.name = vspeaker node.description = "Virtual speaker"
      media.class = Audio/Sink audio.position = "FL,FR" priority.session = 2000 object.linger = true } }
  { factory = adapter args = { factory.name = support.null-audio-sink node.name = vmic node.description = "Virtual microphone"
      media.class = Audio/Source/Virtual audio.position = "FL,FR" priority.session = 2000 object.linger = true } }
]
CONF
pids=()
finish() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null; done
    wait 2>/dev/null
    exit "${1:-0}"
}
trap 'finish 1' TERM INT HUP
dbus-daemon --session --nofork --nopidfile --address="unix:path=$XDG_RUNTIME_DIR/bus" >"$dir/log/dbus" 2>&1 &
pids+=($!)
export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus
for ((i = 0; i < 100; i++)); do [ -S "$XDG_RUNTIME_DIR/bus" ] && break; sleep 0.05; done
for program in pipewire wireplumber pipewire-pulse; do
    "$program" >"$dir/log/$program" 2>&1 &
    pids+=($!)
    # The two others look for pipewire's socket once.
    [ "$program" = pipewire ] && for ((i = 0; i < 100; i++)); do [ -S "$XDG_RUNTIME_DIR/pipewire-0" ] && break; sleep 0.05; done
done
for ((i = 0; i < 200; i++)); do
    if pactl list short sinks 2>/dev/null | grep -q vspeaker && pactl list short sources 2>/dev/null | grep -qw vmic; then
        pactl set-default-sink vspeaker && pactl set-default-source vmic
        # The session manager takes its time to agree.
        for ((k = 0; k < 100; k++)); do
            pactl info | grep -q "Default Sink: vspeaker" && pactl info | grep -q "Default Source: vmic" && break
            sleep 0.1
        done
        # PIDs for a test that pulls the plug: dbus pipewire wireplumber pipewire-pulse.
        echo "ready ${pids[*]}"
        cat >/dev/null
        finish 0
    fi
    sleep 0.1
done
echo "the virtual devices did not appear; see $dir/log"
tail -n 5 "$dir"/log/*
finish 4
