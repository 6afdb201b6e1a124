#!/bin/bash
# Makes iso9660.img.zst, the seed of the ISO 9660 target: Rock Ridge with a deep folder that was moved, links, a device and long names that
# need continuations, and Joliet. Needs root. A new seed is no better than the committed one; the recipe says what is in it.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/t/a/b/c/d/e/f/g/h/i/j"
echo deep >"$work/t/a/b/c/d/e/f/g/h/i/j/deep"
for n in $(seq 12); do seq "$n" 300 >"$work/t/a rather long name $n"; done
echo x >"$work/t/$(printf 'n%.0s' $(seq 200))"
ln -s ../a/./b "$work/t/link"
ln -s "/$(printf 'long/%.0s' $(seq 30))x" "$work/t/far"
mknod "$work/t/null" c 1 3
genisoimage -quiet -R -J -V SEED -o "$work/iso9660.img" "$work/t"
# The 150 sectors of padding at the end are left out.
truncate -s -300K "$work/iso9660.img"
zstd -q -f -19 "$work/iso9660.img" -o iso9660.img.zst
