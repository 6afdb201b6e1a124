//! Disks of Windows as far as they can be made without Windows: real filesystems and real hives (by hivex), with files that only have the right names.

use std::path::Path;

use crate::machine::{Mounted, shell, text};

/// Makes hives.
pub(crate) const MAKE_HIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/make-hive");
/// The disk signature of the disks with an MBR, and its bytes.
pub(crate) const SIGNATURE: &str = "8b467c12";
const SIGNATURE_BYTES: &str = "127c468b";
/// The GUIDs of the disk with a GPT, as text and as bytes.
pub(crate) const DISK_GUID: &str = "D15C0000-1122-3344-5566-77889900AABB";
pub(crate) const WINDOWS_GUID: &str = "D15C0003-1122-3344-5566-77889900AABB";
const DISK_GUID_BYTES: &str = "00005cd122114433556677889900aabb";
const WINDOWS_GUID_BYTES: &str = "03005cd122114433556677889900aabb";
const MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
pub(crate) const SYSTEM: &str = "{c66dfa6e-8332-11e3-a0d2-000c2994873a}";

/// A device element that names a partition.
fn device(partition: &str, kind: &str, disk: &str) -> String {
    let hex = format!("{:032}06000000000000004800000000000000{partition:0<32}00000000{kind}{disk:0<32}{:032}", 0, 0);
    assert_eq!(hex.len(), 176);
    hex
}

/// The lines of a BCD store whose default is Windows in the partition that `device` names.
fn store(device: &str, loader: &str) -> String {
    let line = |object: &str, element: &str, kind: u32, value: &str| {
        format!("[[\"Objects\",\"{object}\",\"Elements\",\"{element}\"],\"Element\",{kind},\"{value}\"]\n")
    };
    [
        line(MANAGER, "11000001", 3, device),
        line(MANAGER, "23000003", 1, &format!("sz:{SYSTEM}")),
        line(MANAGER, "24000001", 7, &format!("multi:{SYSTEM}")),
        line(SYSTEM, "11000001", 3, device),
        line(SYSTEM, "12000002", 1, &format!("sz:\\\\Windows\\\\system32\\\\{loader}")),
        line(SYSTEM, "12000004", 1, "sz:Windows"),
        line(SYSTEM, "21000001", 3, device),
        line(SYSTEM, "22000002", 1, "sz:\\\\Windows"),
    ]
    .concat()
}

/// The lines of a registry that gives C: to what `bytes` name, and wants a page file there.
fn registry(bytes: &str) -> String {
    [
        "[[\"Select\"],\"Current\",4,\"01000000\"]\n".to_owned(),
        format!("[[\"MountedDevices\"],\"\\\\DosDevices\\\\C:\",3,\"{bytes}\"]\n"),
        "[[\"ControlSet001\",\"Control\",\"Session Manager\",\"Memory Management\"],\"PagingFiles\",7,\"multi:C:\\\\pagefile.sys 2 2\"]\n".to_owned(),
    ]
    .concat()
}

fn make_hive(folder: &Path, name: &str, lines: &str) {
    std::fs::write(folder.join("lines"), lines).unwrap();
    shell(folder, &format!("'{MAKE_HIVE}' {name} < lines"));
}

/// Puts UTF-16 text into the boot code of an NTFS partition, where Microsoft's code has the name of its loader.
const NAME_BOOTMGR: &str =
    "printf 'B\\0O\\0O\\0T\\0M\\0G\\0R\\0' | dd of=part.img bs=1 seek=530 conv=notrunc status=none";

/// An MBR disk with NTFS, bootmgr, a BCD store and a registry: `disk.img`. The partition starts at 1 MiB.
pub(crate) fn bios_disk(folder: &Path) {
    make_hive(folder, "BCD", &store(&device("0000100000000000", "01000000", SIGNATURE_BYTES), "winload.exe"));
    make_hive(folder, "SYSTEM", &registry(&format!("{SIGNATURE_BYTES}0000100000000000")));
    shell(
        folder,
        &format!(
            "truncate -s 16M part.img; mkntfs -q -F -f -p 2048 -H 255 -S 63 -s 512 part.img 2>/dev/null; {NAME_BOOTMGR}"
        ),
    );
    {
        let mounted = Mounted::new(&folder.join("mnt"), &["ntfs-3g"], &folder.join("part.img"));
        shell(
            folder,
            &format!(
                "cd '{}'; mkdir -p Boot Windows/System32/config
                 echo m > bootmgr; cp ../BCD Boot/BCD; echo p > pagefile.sys
                 echo l > Windows/System32/winload.exe; echo k > Windows/System32/ntoskrnl.exe; cp ../SYSTEM Windows/System32/config/SYSTEM
                 printf '[boot loader]\\r\\ndefault=signature({SIGNATURE})disk(0)rdisk(0)partition(1)\\\\WINDOWS\\r\\n' > boot.ini",
                text(&mounted.path)
            ),
        );
    }
    shell(
        folder,
        &format!(
            "truncate -s 18M disk.img
             printf 'label: dos\\nlabel-id: 0x{SIGNATURE}\\nstart=2048,size=32768,type=7,bootable\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
             dd if=part.img of=disk.img bs=1M seek=1 conv=notrunc status=none"
        ),
    );
    write_standard_boot_code(folder);
}

/// The first 440 bytes of `disk.img` become this program's own boot code.
fn write_standard_boot_code(folder: &Path) {
    let code = concat!(env!("CARGO_MANIFEST_DIR"), "/../imgfmt/src/restore/standard_mbr.bin");
    shell(folder, &format!("dd if='{code}' of=disk.img bs=440 count=1 conv=notrunc status=none"));
}

/// An MBR disk with FAT16, ntldr, boot.ini (by signature) and a registry: `disk.img`. The partition starts at sector 63.
pub(crate) fn ntldr_disk(folder: &Path) {
    make_hive(folder, "SYSTEM", &registry(&format!("{SIGNATURE_BYTES}007e000000000000")));
    let ini = "[boot loader]\\r\\ntimeout=30\\r\\ndefault=signature(8b467c12)disk(0)rdisk(0)partition(1)\\\\WINNT\\r\\n[operating systems]\\r\\nsignature(8b467c12)disk(0)rdisk(0)partition(1)\\\\WINNT=\"Windows 2000\" /fastdetect\\r\\n";
    shell(
        folder,
        &format!(
            "truncate -s 16515072 part.img; mkfs.vfat -F 16 -h 63 part.img >/dev/null
             printf 'NTLDR      ' | dd of=part.img bs=1 seek=300 conv=notrunc status=none
             printf '{ini}' > boot.ini; for f in ntldr ntdetect.com pagefile.sys ntoskrnl.exe; do echo $f > $f; done
             mmd -i part.img ::/WINNT ::/WINNT/system32 ::/WINNT/system32/config
             mcopy -i part.img ntldr ntdetect.com boot.ini pagefile.sys ::
             mcopy -i part.img ntoskrnl.exe ::/WINNT/system32; mcopy -i part.img SYSTEM ::/WINNT/system32/config
             truncate -s 17M disk.img
             printf 'label: dos\\nlabel-id: 0x{SIGNATURE}\\nstart=63,size=32256,type=6,bootable\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
             dd if=part.img of=disk.img bs=512 seek=63 conv=notrunc status=none"
        ),
    );
    write_standard_boot_code(folder);
}

/// A GPT disk with an ESP that holds a BCD store, and NTFS: `disk.img`.
pub(crate) fn uefi_disk(folder: &Path) {
    make_hive(folder, "BCD", &store(&device(WINDOWS_GUID_BYTES, "00000000", DISK_GUID_BYTES), "winload.efi"));
    let dmio: String = b"DMIO:ID:".iter().map(|byte| format!("{byte:02x}")).collect();
    make_hive(folder, "SYSTEM", &registry(&format!("{dmio}{WINDOWS_GUID_BYTES}")));
    shell(
        folder,
        "truncate -s 16M part.img; mkntfs -q -F -f -p 69632 -H 255 -S 63 -s 512 part.img 2>/dev/null
         truncate -s 33M esp.img; mkfs.vfat -F 32 -s 1 esp.img >/dev/null
         mmd -i esp.img ::/EFI ::/EFI/BOOT ::/EFI/Microsoft ::/EFI/Microsoft/Boot
         { printf 'MZ'; head -c 58 /dev/zero; printf '\\100\\0\\0\\0PE\\0\\0'; head -c 400 /dev/zero; printf 'b\\0o\\0o\\0t\\0m\\0g\\0f\\0w\\0.\\0e\\0f\\0i\\0'; } > loader.efi
         mcopy -i esp.img loader.efi ::/EFI/BOOT/BOOTX64.EFI
         mcopy -i esp.img loader.efi ::/EFI/Microsoft/Boot/bootmgfw.efi
         mcopy -i esp.img BCD ::/EFI/Microsoft/Boot/BCD",
    );
    {
        let mounted = Mounted::new(&folder.join("mnt"), &["ntfs-3g"], &folder.join("part.img"));
        shell(
            folder,
            &format!(
                "cd '{}'; mkdir -p Windows/System32/config; echo p > pagefile.sys
                 echo l > Windows/System32/winload.efi; echo k > Windows/System32/ntoskrnl.exe; cp ../SYSTEM Windows/System32/config/SYSTEM",
                text(&mounted.path)
            ),
        );
    }
    shell(
        folder,
        &format!(
            "truncate -s 52M disk.img
             printf 'label: gpt\\nlabel-id: {DISK_GUID}\\nstart=2048,size=67584,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B,uuid=D15C0001-1122-3344-5566-77889900AABB\\nstart=69632,size=32768,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7,uuid={WINDOWS_GUID}\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
             dd if=esp.img of=disk.img bs=1M seek=1 conv=notrunc status=none
             dd if=part.img of=disk.img bs=1M seek=34 conv=notrunc status=none"
        ),
    );
}
