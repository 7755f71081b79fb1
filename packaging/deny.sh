#!/bin/sh
# cargo-deny on licences, bans and sources. Advisories need a database from the network: they are checked where it can be had.
set -eu
command -v cargo-deny >/dev/null 2>&1 || cargo install --locked cargo-deny --version '^0.20' --quiet
cargo deny --log-level error check licenses bans sources
cargo deny --log-level error check advisories || echo "advisories: not checked or not clean, see above" >&2
