#!/bin/bash
# Makes ntfs.img.zst, the seed of the NTFS targets: a volume of 3 MiB with everything that the reader reads. Needs root.
# A new seed is no better than the committed one; the recipe says what is in it.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'umount -q "$work/m" || true; rm -rf "$work"' EXIT
image=$work/ntfs.img
truncate -s 3M "$image"
# Clusters of 512 bytes: the smallest structures, and compression units of 8 KiB.
mkntfs -q -F -L seed -c 512 "$image" 2>/dev/null
mkdir "$work/m"
mount_it() { ntfs-3g -o streams_interface=windows,compression,permissions,special_files="$1" "$image" "$work/m"; }

# le N BYTES: a little-endian number as hexadecimal digits
le() { local n=$1 i; for ((i = 0; i < $2; i++)); do printf %02x $((n >> 8 * i & 255)); done; }
utf16() { printf %s "$1" | iconv -t UTF-16LE | od -An -v -tx1 | tr -d ' \n'; }
# reparse FILE TAG DATA: sets a reparse point of a Microsoft tag; DATA is hexadecimal
reparse() { setfattr -h -n system.ntfs_reparse_data -v "0x$(le "$2" 4)$(le $((${#3} / 2)) 2)0000$3" "$1"; }

# wof FILE ALGORITHM METHOD CHUNK: a system-compressed file. The chunks are those of a WIM, which stores them in the same way.
wof() {
    local in=$work/in length blob
    rm -rf "$in" && mkdir "$in" && cp "$work/text" "$in/text"
    wimlib-imagex capture "$in" "$work/w.wim" --compress="$3" --chunk-size="$4" >/dev/null 2>&1
    blob=($(wimlib-imagex info "$work/w.wim" --blobs | awk -F'= ' -v RS= -v FS='\n' '
        /COMPRESSED/ && !/METADATA/ { split($3, a, "= "); split($4, b, "= "); print a[2] + 0, b[2] + 0 }'))
    length=${blob[0]}
    tail -c +$((blob[1] + 1)) "$work/w.wim" | head -c "$length" >"$work/blob"
    rm "$work/w.wim"
    truncate -s "$(stat -c %s "$work/text")" "$1"
    cat "$work/blob" >"$1:WofCompressedData"
    reparse "$1" $((0x80000017)) "$(le 1 4)$(le 2 4)$(le 1 4)$(le "$2" 4)"
}

mount_it interix
for n in $(seq 900); do echo "line $n of a text, call 0x$(printf %x $((n * 7919)))"; done >"$work/text"
cd "$work/m"
mkdir many && for n in $(seq 150); do echo $n >"many/a name of some length $n"; done
rm many/*7
mkdir packed && setfattr -h -v 0x00000800 -n system.ntfs_attrib_be packed
cp "$work/text" packed/text
head -c 10000 /dev/urandom >packed/random && truncate -s 30000 packed/random
truncate -s 1M sparse && printf data | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
# Two streams in some 200 pieces each: the file needs an attribute list.
for n in $(seq 200); do
    for f in pieces pieces:second; do
        printf %512d $n | dd of=$f bs=512 seek=$((n * 2)) conv=notrunc status=none
    done
done
echo small >resident && echo stream >resident:small && head -c 3000 /dev/urandom >resident:large
ln resident many/hard
ln -s many/hard link-interix
echo a >case && echo A >CASE && echo u >$'\u00fcn\u00ef \u65e5\U1f600'
mknod device c 5 1
echo long >"a long name" && setfattr -n system.ntfs_dos_name -v LONG~1 "a long name"
setfattr -n system.ntfs_object_id -v 0x00112233445566778899aabbccddeeff resident
mkdir junction && target=$(utf16 '\??\C:\many')
reparse junction $((0xa0000003)) "$(le 0 2)$(le $((${#target} / 2)) 2)$(le $((${#target} / 2 + 2)) 2)$(le 0 2)${target}00000000"
touch symlink && target=$(utf16 'many\hard')
reparse symlink $((0xa000000c)) "$(le 0 2)$(le $((${#target} / 2)) 2)$(le 0 2)$(le $((${#target} / 2)) 2)$(le 1 4)$target"
wof xpress4k 0 XPRESS 4096
wof lzx 1 LZX 32768
wof xpress8k 2 XPRESS 8192
wof xpress16k 3 XPRESS 16384
cd - >/dev/null
umount "$work/m"
mount_it wsl
cd "$work/m"
ln -s many/hard link-wsl && mknod fifo-wsl p && mknod device-wsl b 8 1
cd - >/dev/null
umount "$work/m"
zstd -q -19 -f "$image" -o ntfs.img.zst
ls -l ntfs.img.zst
