#!/bin/sh
# Installs what is missing of Debian's packages: "build" to compile, "test" to run every test.
# Nothing is done where everything is there, so that it costs nothing to call it again.
set -eu

build="build-essential pkg-config clang libclang-dev cmake nasm libasound2-dev libvpx-dev libdbus-1-dev libxkbcommon-dev libwayland-dev libxcb1-dev"
test="chromium nodejs xvfb xauth xdotool xclip openbox imagemagick x11-utils libgl1 libegl1 libgles2 libgl1-mesa-dri mesa-vulkan-drivers libxkbcommon-x11-0 libxcursor1 libxi6 libxrandr2
 libpipewire-0.3-dev sway swaybg xdg-desktop-portal xdg-desktop-portal-wlr
 pipewire pipewire-pulse wireplumber pulseaudio-utils dbus coturn tcpdump iproute2 desktop-file-utils appstream"

wanted=""
for group in "$@"; do
  case "$group" in
    build) wanted="$wanted $build" ;;
    test) wanted="$wanted $test" ;;
    *) echo "deps.sh: build or test, not $group" >&2; exit 2 ;;
  esac
done

command -v dpkg-query >/dev/null 2>&1 || { echo "Not a Debian system: install the counterparts of:$wanted" >&2; exit 0; }
missing=""
for package in $wanted; do
  # A Node from elsewhere is as good as Debian's.
  [ "$package" = nodejs ] && command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 && continue
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
case "$missing" in *nodejs*) missing="$missing npm" ;; esac

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
echo "Installing:$missing"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
