#!/bin/bash
# Makes the seeds of the startup, hive and core_image targets: a FAT12 volume that holds a configuration of every kind, a hive, and a list of modules as GRUB has it, packed with
# LZMA. Needs dosfstools, mtools, libhivex-bin, xz. A new seed is no better than the committed one; the recipe says what is in it.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
device=00000000000000000000000000000000060000000000000048000000000000000000100000000000000000000000000000000000010000001234567800000000000000000000000000000000000000000000000000000000
../../samples/make-hive "$work/hive" <<J
[["Objects","{9dea862c-5cdd-4e70-acc1-f32b344d4795}","Elements","23000003"],"Element",1,"sz:{a}"]
[["Objects","{9dea862c-5cdd-4e70-acc1-f32b344d4795}","Elements","24000001"],"Element",7,"multi:{a}|{b}"]
[["Objects","{a}","Elements","11000001"],"Element",3,"$device"]
[["Objects","{a}","Elements","12000002"],"Element",1,"sz:\\\\Windows\\\\winload.exe"]
[["Objects","{a}","Elements","21000001"],"Element",3,"$device"]
[["Objects","{a}","Elements","22000002"],"Element",1,"sz:\\\\Windows"]
[["Select"],"Current",4,"01000000"]
[["MountedDevices"],"\\\\DosDevices\\\\C:",3,"123456780000100000000000"]
[["MountedDevices"],"\\\\DosDevices\\\\D:",3,"444d494f3a49443a000102030405060708090a0b0c0d0e0f"]
[["ControlSet001","Control","Session Manager","Memory Management"],"PagingFiles",7,"multi:C:\\\\pagefile.sys 2 2"]
J
cat >"$work/grub.cfg" <<'C'
set default=0
menuentry 'L' --id l { search --no-floppy --fs-uuid --set=root 1234-ABCD
 linux ($root)/k root=UUID=1234-ABCD ro; initrd /i }
submenu 'S' { menuentry 'B' { blscfg; chainloader /bootmgr; configfile ${prefix}/grub.cfg } }
C
printf '[boot loader]\r\ndefault=signature(78563412)disk(0)rdisk(0)partition(1)\\W\r\n[operating systems]\r\nmulti(0)disk(0)rdisk(0)partition(1)\\W="x"\r\n' >"$work/boot.ini"
printf 'UUID=1234-ABCD / vfat defaults 0 1\nPARTUUID=78563412-01 /x ext4 nofail 0 2\n' >"$work/fstab"
printf 'DEFAULT l\nLABEL l\n KERNEL k\n APPEND root=/dev/sda1 initrd=i\n' >"$work/syslinux.cfg"
printf 'title T\nlinux /k\noptions root=PARTUUID=78563412-01\n' >"$work/t.conf"
for file in k i; do echo $file >"$work/$file"; done
truncate -s 160K "$work/disk"
mkfs.vfat -F 12 -n SEED -i 1234abcd "$work/disk" >/dev/null
export MTOOLS_SKIP_CHECK=1
mmd -i "$work/disk" ::/boot ::/boot/grub ::/etc ::/loader ::/loader/entries ::/Windows ::/Windows/System32 ::/Windows/System32/config ::/EFI ::/EFI/BOOT
mcopy -i "$work/disk" "$work/grub.cfg" ::/boot/grub/
mcopy -i "$work/disk" "$work/hive" ::/boot/BCD
mcopy -i "$work/disk" "$work/hive" ::/Windows/System32/config/SYSTEM
mcopy -i "$work/disk" "$work/k" ::/Windows/System32/ntoskrnl.exe
mcopy -i "$work/disk" "$work/k" ::/Windows/winload.exe
mcopy -i "$work/disk" "$work/fstab" ::/etc/
mcopy -i "$work/disk" "$work/t.conf" ::/loader/entries/
mcopy -i "$work/disk" "$work/boot.ini" "$work/syslinux.cfg" "$work/k" "$work/i" ::
for name in ntldr ntdetect.com bootmgr ldlinux.sys; do mcopy -i "$work/disk" "$work/k" ::/$name; done
{ printf 'MZ'; head -c 58 /dev/zero; printf '\100\0\0\0PE\0\0\144\206\001\0'; head -c 12 /dev/zero; printf '\002\0\0\0\013\002'
  printf 'mods\0\0\0\0\200\0\0\0\0\0\0\0\200\0\0\0\0\001\0\0'; head -c 22 /dev/zero; } >"$work/efi"
truncate -s 256 "$work/efi"
module() { printf "$(printf '\\x%02x\\x00\\x00\\x00\\x%02x\\x00\\x00\\x00' "$1" $((${#2} + 9)))%s\\0" "$2"; }
{ module 3 '(,msdos1)/boot/grub'; module 2 'search.fs_uuid 1234-ABCD root'; } >"$work/modules"
len=$(stat -c%s "$work/modules")
{ printf 'mimg\0\0\0\0\030\0\0\0\0\0\0\0'; printf "\\x$(printf %02x $((len + 24)))\\0\\0\\0\\0\\0\\0\\0"; cat "$work/modules"; } >>"$work/efi"
truncate -s 384 "$work/efi"
mcopy -i "$work/disk" "$work/efi" ::/EFI/BOOT/BOOTX64.EFI
zstd -q -f -19 "$work/disk" -o startup.img.zst
zstd -q -f -19 "$work/hive" -o bcd.hive.zst
{ head -c 3000 /dev/urandom | base64 -w0 | head -c 500; printf 'mimg\014\0\0\0'; printf "\\x$(printf %02x $((len + 12)))\\0\\0\\0"; cat "$work/modules"; seq 200; } >"$work/core"
xz --format=lzma --lzma1=preset=6,lc=3,lp=0,pb=2 -c "$work/core" | tail -c +14 >core.lzma
