#!/bin/bash
# desktop.sh DIR PROGRAM…: a Wayland desktop without a display, in a runtime directory of its own, for the tests of the desktop's screen picker.
#
# Starts dbus-daemon, pipewire, wireplumber, a headless sway with one monitor of 1280x720 in one colour, and the portal with its wlroots back end.
# Whoever is asked what to share answers by the file DIR/answer: the name of a monitor, or nothing for a closed dialog; DIR/asked counts the questions,
# and DIR/capturing has the process that gives the pictures.
# Runs PROGRAM in it, and ends with its exit code; 3 says that a package is missing. sway does not run as root: root becomes somebody else in a
# user namespace, to whom the same files belong.
set -u
if [ "$(id -u)" = 0 ]; then
    exec unshare --user --map-user=1000 --map-group=1000 bash "$0" "$@"
fi
dir=$1
shift
need=()
for program in dbus-daemon:dbus pipewire:pipewire wireplumber:wireplumber sway:sway swaybg:swaybg swaymsg:sway; do
    command -v "${program%%:*}" >/dev/null 2>&1 || need+=("${program##*:}")
done
portal= wlr=
for place in /usr/libexec /usr/lib /usr/lib/xdg-desktop-portal; do
    [ -x "$place/xdg-desktop-portal" ] && portal=$place/xdg-desktop-portal
    [ -x "$place/xdg-desktop-portal-wlr" ] && wlr=$place/xdg-desktop-portal-wlr
done
[ -n "$portal" ] || need+=(xdg-desktop-portal)
[ -n "$wlr" ] || need+=(xdg-desktop-portal-wlr)
if [ ${#need[@]} -gt 0 ]; then
    echo "missing packages: ${need[*]}"
    exit 3
fi
export XDG_RUNTIME_DIR=$dir/run XDG_CONFIG_HOME=$dir/config XDG_STATE_HOME=$dir/state XDG_DATA_HOME=$dir/data XDG_CACHE_HOME=$dir/cache HOME=$dir
export XDG_CURRENT_DESKTOP=sway XDG_SESSION_TYPE=wayland
export WLR_BACKENDS=headless WLR_RENDERER=pixman WLR_LIBINPUT_NO_DEVICES=1 WLR_HEADLESS_OUTPUTS=1
unset DISPLAY WAYLAND_DISPLAY PIPEWIRE_REMOTE SWAYSOCK
mkdir -p "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME" "$XDG_DATA_HOME" "$XDG_CACHE_HOME" "$XDG_CONFIG_HOME/sway" "$XDG_CONFIG_HOME/xdg-desktop-portal-wlr" "$dir/log"
chmod 700 "$XDG_RUNTIME_DIR"
printf 'HEADLESS-1' >"$dir/answer"
: >"$dir/asked"
cat >"$dir/choose" <<CHOOSE
#!/bin/sh
echo asked >>"$dir/asked"
cat "$dir/answer"
CHOOSE
chmod +x "$dir/choose"
cat >"$XDG_CONFIG_HOME/sway/config" <<'CONF'
xwayland disable
output HEADLESS-1 resolution 1280x720 position 0,0 bg #c04020 solid_color
default_border none
CONF
cat >"$XDG_CONFIG_HOME/xdg-desktop-portal-wlr/config" <<CONF
[screencast]
max_fps=30
chooser_type=simple
chooser_cmd=$dir/choose
CONF
pids=()
finish() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null; done
    wait 2>/dev/null
    exit "${1:-0}"
}
trap 'finish 1' TERM INT HUP
appears() { for ((i = 0; i < 200; i++)); do compgen -G "$1" >/dev/null && return 0; sleep 0.05; done; return 1; }
give_up() { echo "$1; see $dir/log"; tail -n 5 "$dir"/log/*; finish 4; }
dbus-daemon --session --nofork --nopidfile --address="unix:path=$XDG_RUNTIME_DIR/bus" >"$dir/log/dbus" 2>&1 &
pids+=($!)
export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus
appears "$XDG_RUNTIME_DIR/bus" || give_up "no message bus"
pipewire >"$dir/log/pipewire" 2>&1 &
pids+=($!)
appears "$XDG_RUNTIME_DIR/pipewire-0" || give_up "no PipeWire"
wireplumber >"$dir/log/wireplumber" 2>&1 &
pids+=($!)
sway >"$dir/log/sway" 2>&1 &
pids+=($!)
appears "$XDG_RUNTIME_DIR/sway-ipc.*.sock" && appears "$XDG_RUNTIME_DIR/wayland-[0-9]" || give_up "no desktop"
for socket in "$XDG_RUNTIME_DIR"/wayland-[0-9]; do WAYLAND_DISPLAY=${socket##*/}; done
for socket in "$XDG_RUNTIME_DIR"/sway-ipc.*.sock; do SWAYSOCK=$socket; done
export WAYLAND_DISPLAY SWAYSOCK
cc -shared -fPIC -O1 -o "$dir/shm_only.so" "$(dirname "$0")/shm_only.c" || give_up "no compiler"
LD_PRELOAD=$dir/shm_only.so "$wlr" -l DEBUG >"$dir/log/portal-wlr" 2>&1 &
pids+=($!)
echo $! >"$dir/capturing"
sleep 0.5
"$portal" --verbose >"$dir/log/portal" 2>&1 &
pids+=($!)
for ((i = 0; i < 200; i++)); do
    names=$(dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames 2>/dev/null)
    case "$names" in *org.freedesktop.portal.Desktop*) break ;; esac
    sleep 0.05
done
case "$names" in *org.freedesktop.portal.Desktop*) ;; *) give_up "no portal" ;; esac
export PORTAL_TEST_DIR=$dir
"$@"
finish $?
