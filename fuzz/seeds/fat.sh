#!/bin/bash
# Makes fat12, fat16, fat32 and exfat.img.zst, the seeds of the FAT and exFAT targets: small volumes with chains in fragments,
# deep folders, long names, deleted entries and page files. Needs root (for exfat-fuse). A new seed is no better than the
# committed one; the recipe says what is in it.
set -euo pipefail
export LC_ALL=C.UTF-8 MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'umount -q "$work/m" || true; [ -z "${device:-}" ] || losetup -d "$device"; rm -rf "$work"' EXIT
mkdir -p "$work/t/deep/er/still" "$work/m"
seq 3000 >"$work/t/numbers of many lines.txt"
for n in $(seq 24); do seq "$n" $((n + 400)) >"$work/t/a rather long name $n.text"; done
printf hibr >"$work/t/hiberfil.sys"
seq 900 >>"$work/t/hiberfil.sys"
seq 500 >"$work/t/PAGEFILE.SYS"
echo deep >"$work/t/deep/er/still/file"
: >"$work/t/empty"
echo x >"$work/t/Füße 日本 😀"

pack() { zstd -q -f -19 "$work/$1.img" -o "$1.img.zst"; }

for kind in 12:320K:1 16:2400K:1 32:34M:1; do
    IFS=: read -r bits size cluster <<<"$kind"
    image=$work/fat$bits.img
    truncate -s "$size" "$image"
    mkfs.vfat -F "$bits" -s "$cluster" -n SEED -i 1234abcd "$image" >/dev/null
    mcopy -s -i "$image" "$work"/t/* ::
    for n in $(seq 1 2 23); do mdel -i "$image" "::a rather long name $n.text"; done
    mcopy -i "$image" "$work/t/numbers of many lines.txt" "::in many fragments"
    if [ "$bits" = 32 ]; then
        # mtools goes by the count of clusters; once it is done, all behind the first 1100 KiB is cut off (2200 sectors).
        for at in 0 3072; do printf '\x98\x08\0\0' | dd of="$image" bs=1 seek=$((at + 32)) conv=notrunc status=none; done
        truncate -s 1100K "$image"
    fi
    pack "fat$bits"
done

image=$work/exfat.img
truncate -s 512K "$image"
mkfs.exfat -c 512 -b 4K -L seed "$image" >/dev/null
device=$(losetup --show -f "$image")
mount.exfat-fuse "$device" "$work/m" >/dev/null
cp -r "$work"/t/* "$work/m"
rm "$work"/m/a*[13579].text
for n in $(seq 12); do seq 300 >>"$work/m/one"; seq 400 >>"$work/m/two"; done
truncate -s 20K "$work/m/two" "$work/m/empty"
umount "$work/m"
losetup -d "$device"
device=
pack exfat
