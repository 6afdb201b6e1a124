#!/bin/bash
# Makes ext2.img.zst, ext4.img.zst and ext4-journal.img.zst, the seeds of the ext targets, with everything that the reader reads. Needs root.
# A new seed is no better than the committed one; the recipe says what is in it.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'umount -q "$work/m" || true; rm -rf "$work"' EXIT
mkdir "$work/m"

# fill: what both have
fill() {
    mkdir many && for n in $(seq 120); do echo $n >"many/a name of some length $n"; done
    rm many/*7
    # Every second block of a file: as many pieces as blocks.
    for n in $(seq 0 2 "$1"); do echo $n | dd of=comb bs=1k seek=$n conv=notrunc status=none; done
    # One block below each level of a block map.
    for n in 0 11 20 300 70000; do echo $n | dd of=levels bs=1k seek=$n conv=notrunc status=none; done
    head -c 30000 /dev/zero | tr '\0' x >plain && ln plain many/hard
    ln -s many/hard fast && ln -s "$(head -c 200 /dev/zero | tr '\0' l)" slow
    mknod character c 5 1 && mknod block b 259 65537 && mkfifo pipe
    setfattr -n user.small -v x plain
    setfattr -n user.large -v "$(head -c 500 /dev/zero | tr '\0' v)" plain
    setfacl -m u:7:rw,g:8:r,m:rw plain && setfacl -d -m u:7:rwx many
    echo gone >gone && rm gone
}

# Without checksums, so that what a mutation changes is read.
truncate -s 1M "$work/ext2.img"
mke2fs -q -F -t ext2 -b 1024 -N 160 -I 128 "$work/ext2.img"
mount -t ext2 -o loop "$work/ext2.img" "$work/m"
(cd "$work/m" && fill 40)
umount "$work/m"

truncate -s 5M "$work/ext4.img"
mke2fs -q -F -t ext4 -b 1024 -g 2048 -G 2 -N 384 -J size=1 \
    -O ^metadata_csum,64bit,uninit_bg,inline_data,ea_inode,large_dir "$work/ext4.img"
mount -t ext4 -o loop "$work/ext4.img" "$work/m"
(
    cd "$work/m"
    fill 900
    fallocate -l 20k unwritten && printf data | dd of=unwritten bs=1k seek=7 conv=notrunc status=none
    echo inline >inline && head -c 140 /dev/zero | tr '\0' i >inline-long && mkdir inline-folder && touch inline-folder/{a,b,c}
    python3 -c "import os; os.setxattr('inline', 'user.value in an inode', b'w' * 3000)"
)
umount "$work/m"

# The copy of a mounted filesystem: what changed last is in its journal alone, escaped blocks among it.
truncate -s 3M "$work/journal.img"
mke2fs -q -F -t ext4 -b 1024 -N 64 -J size=1 -O ^metadata_csum "$work/journal.img"
mount -t ext4 -o loop "$work/journal.img" "$work/m"
umount "$work/m"
mount -t ext4 -o loop,data=journal "$work/journal.img" "$work/m"
python3 - "$work/m" <<'END'
import os, shutil, sys
os.chdir(sys.argv[1])
os.mkdir('many'); os.mkdir('gone')
for n in range(30): open(f'gone/a name of some length {n}', 'wb').close()
os.fsync(os.open('gone', os.O_RDONLY))
for n in range(20): open(f'many/{n}', 'wb').write(b'%d' % n)
shutil.rmtree('gone')
for n in range(8): open(f'taken{n}', 'wb').write(b'content' * 200)
open('magic', 'wb').write((b'\xc0\x3b\x39\x98' + b'm' * 1020) * 3)
for name in ['many/0', 'magic']: os.fsync(os.open(name, os.O_RDONLY))
END
cp "$work/journal.img" "$work/ext4-journal.img"
umount "$work/m"
zstd -q -19 -f "$work/ext4-journal.img" -o ext4-journal.img.zst

for image in ext2 ext4; do
    e2fsck -fn "$work/$image.img" >/dev/null
    zstd -q -19 -f "$work/$image.img" -o $image.img.zst
done
ls -l ext2.img.zst ext4.img.zst ext4-journal.img.zst
