#!/bin/sh
# Checks the types for other systems, without the codecs in C: as far as their standard libraries are installed (`rustup target add SYSTEM`).
# Where one is missing, at least the crates for that system are found and agree with the lock file.
# DOCS_RS keeps the crates for macOS from calling Apple's Swift compiler, which exists on a Mac only; nothing is linked here.
set -eu
cargo=${CARGO:-cargo}
libraries="$(rustc --print sysroot)/lib/rustlib"
missing=""
for system in x86_64-pc-windows-msvc x86_64-pc-windows-gnu aarch64-apple-darwin x86_64-apple-darwin; do
  $cargo metadata --locked --format-version 1 --filter-platform "$system" >/dev/null
  if [ -d "$libraries/$system/lib" ]; then
    DOCS_RS=1 $cargo check --locked --no-default-features --target "$system"
    echo "$system: checked"
  else
    missing="$missing $system"
  fi
done
[ -z "$missing" ] || echo "not checked, since their standard library is not installed:$missing"
