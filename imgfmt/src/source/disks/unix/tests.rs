//! Machines made of folders.

use std::os::unix::fs::symlink;

use super::*;
use crate::source::device::Use;

/// A machine under a folder, built line by line.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["sys/block", "sys/dev/block", "dev", "by-id", "udev"] {
            std::fs::create_dir_all(machine.folder.path().join(folder)).unwrap();
        }
        machine.write("mountinfo", b"");
        machine.write("swaps", b"Filename Type Size Used Priority\n");
        machine
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn device(&self, folder: &str, number: &str, sectors: u64) {
        self.write(&format!("{folder}/dev"), format!("{number}\n").as_bytes());
        self.write(&format!("{folder}/size"), format!("{sectors}\n").as_bytes());
        let name = folder.rsplit('/').next().unwrap();
        self.write(&format!("dev/{name}"), b"");
        symlink(self.folder.path().join(folder), self.folder.path().join("sys/dev/block").join(number)).unwrap();
    }

    /// A disk whose sysfs folder is `way/block/NAME`.
    pub(crate) fn disk(&self, way: &str, name: &str, number: &str, sectors: u64) {
        let folder = format!("sys/devices/{way}/block/{name}");
        self.device(&folder, number, sectors);
        symlink(self.folder.path().join(&folder), self.folder.path().join("sys/block").join(name)).unwrap();
    }

    pub(crate) fn partition(&self, way: &str, disk: &str, n: u32, number: &str, start: u64, sectors: u64) {
        let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        let folder = format!("sys/devices/{way}/block/{disk}/{disk}{separator}{n}");
        self.device(&folder, number, sectors);
        self.write(&format!("{folder}/partition"), format!("{n}\n").as_bytes());
        self.write(&format!("{folder}/start"), format!("{start}\n").as_bytes());
    }

    /// Puts `holder` (a disk made before) upon the device with the sysfs folder `below`.
    pub(crate) fn hold(&self, below: &str, way: &str, holder: &str) {
        let holders = self.folder.path().join("sys/devices").join(below).join("holders");
        std::fs::create_dir_all(&holders).unwrap();
        let target = self.folder.path().join(format!("sys/devices/{way}/block/{holder}"));
        symlink(target, holders.join(holder)).unwrap();
    }

    pub(crate) fn system(&self) -> System {
        let folder = self.folder.path();
        System {
            sysfs: folder.join("sys"),
            mountinfo: folder.join("mountinfo"),
            swaps: folder.join("swaps"),
            dev: folder.join("dev"),
            by_id: folder.join("by-id"),
            udev: folder.join("udev"),
        }
    }

    pub(crate) fn mount(&self, number: &str, place: &str, source: &str) {
        let line = format!("1 0 {number} / {place} rw,relatime - ext4 {source} rw\n");
        let path = self.folder.path().join("mountinfo");
        let text = std::fs::read_to_string(&path).unwrap() + &line;
        std::fs::write(path, text).unwrap();
    }

    fn find(&self, name: &str) -> DiskDescription {
        self.system().disks().unwrap().into_iter().find(|disk| disk.path.ends_with(name)).unwrap()
    }
}

const ATA: &str = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0";
const USB: &str = "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0";

#[test]
fn disks_are_described_with_serials_buses_and_sizes() {
    let machine = Machine::new();
    machine.disk(ATA, "sda", "8:0", 1000);
    machine.write(&format!("sys/devices/{ATA}/block/sda/device/model"), b"Reserve 9000    \n");
    machine.write(&format!("sys/devices/{ATA}/block/sda/device/vpd_pg80"), b"\0\x80\0\x08  HK-77\0");
    machine.write(&format!("sys/devices/{ATA}/block/sda/queue/physical_block_size"), b"4096\n");
    machine.write(&format!("sys/devices/{ATA}/block/sda/diskseq"), b"9\n");
    machine.disk(USB, "sdb", "8:16", 2000);
    machine.write(&format!("sys/devices/{USB}/block/sdb/removable"), b"1\n");
    machine.write(&format!("sys/devices/{USB}/block/sdb/ro"), b"1\n");
    machine.write("udev/b8:16", b"S:disk/by-id/usb-x\nE:ID_SERIAL=Stick_4C53\nE:ID_SERIAL_SHORT=4C53\n");
    machine.disk("pci0000:00/0000:01:00.0/nvme/nvme0", "nvme0n1", "259:0", 3000);
    machine.write("sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/block/nvme0n1/device/serial", b"N-1\n");
    machine.disk("virtual", "loop0", "7:0", 0);
    machine.disk("virtual", "zram0", "253:0", 100);

    let disks = machine.system().disks().unwrap();
    let names: Vec<_> = disks.iter().map(|disk| disk.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["nvme0n1", "sda", "sdb"], "no empty loop device, no compressed memory");
    let [nvme, sda, sdb] = disks.as_slice() else { panic!() };
    assert_eq!(sda.serial.as_deref(), Some("HK-77"));
    assert_eq!(sda.model.as_deref(), Some("Reserve 9000"));
    assert_eq!((sda.len, sda.logical_sector_size, sda.physical_sector_size), (512_000, 512, 4096));
    assert_eq!((sda.bus.as_deref(), sda.removable, sda.read_only, sda.sequence), (Some("ata"), false, false, Some(9)));
    assert_eq!((sdb.bus.as_deref(), sdb.removable, sdb.read_only), (Some("usb"), true, true));
    assert_eq!(sdb.serial.as_deref(), Some("4C53"));
    assert_eq!((nvme.bus.as_deref(), nvme.serial.as_deref()), (Some("nvme"), Some("N-1")));
}

#[test]
fn lasting_names_lead_to_the_disk_and_not_to_its_partitions() {
    let machine = Machine::new();
    machine.disk(ATA, "sda", "8:0", 1000);
    machine.partition(ATA, "sda", 1, "8:1", 64, 100);
    let system = machine.system();
    for (name, node) in [("ata-B", "sda"), ("wwn-A", "sda"), ("ata-B-part1", "sda1"), ("usb-gone", "sdz")] {
        symlink(system.dev.join(node), system.by_id.join(name)).unwrap();
    }
    assert_eq!(machine.find("sda").aliases, ["ata-B", "wwn-A"]);
}

#[test]
fn what_is_built_upon_a_partition_is_named_and_its_mounts_count() {
    let machine = Machine::new();
    machine.disk(ATA, "sda", "8:0", 10_000);
    for (n, start) in [(1, 64), (2, 1000), (3, 2000)] {
        machine.partition(ATA, "sda", n, &format!("8:{n}"), start, 500);
    }
    for (n, name, uuid, file) in [
        (0, "luks-home", "CRYPT-LUKS2-77aa-luks-home", "sda1"),
        (1, "vg-root", "LVM-abcdef", "dm-0"),
        (3, "mpatha", "mpath-3600", "sda3"),
    ] {
        machine.disk("virtual", &format!("dm-{n}"), &format!("252:{n}"), 400);
        machine.write(&format!("sys/devices/virtual/block/dm-{n}/dm/name"), name.as_bytes());
        machine.write(&format!("sys/devices/virtual/block/dm-{n}/dm/uuid"), uuid.as_bytes());
        let below = if file == "dm-0" { "virtual/block/dm-0".into() } else { format!("{ATA}/block/sda/{file}") };
        machine.hold(&below, "virtual", &format!("dm-{n}"));
    }
    machine.disk("virtual", "md127", "9:127", 400);
    machine.write("sys/devices/virtual/block/md127/md/level", b"raid1\n");
    machine.hold(&format!("{ATA}/block/sda/sda2"), "virtual", "md127");
    machine.mount("252:1", "/", "/dev/mapper/vg-root");

    let disk = machine.find("sda");
    let holders: Vec<_> = disk.all_holders().map(ToString::to_string).collect();
    assert_eq!(holders, ["encrypted volume luks-home (dm-0)", "RAID raid1 (md127)", "multipath device mpatha (dm-3)"]);
    assert_eq!(disk.uses, [Use::MountedWritable("/".into())], "through LUKS and LVM");
    assert!(disk.is_system());
    assert_eq!(disk.parts[0].uses.len(), 1);
    assert!(disk.parts[1].uses.is_empty());
    assert_eq!((disk.parts[2].start, disk.parts[2].len), (2000 * 512, 500 * 512));
    assert_eq!(machine.find("dm-1").bus.as_deref(), Some("mapped"));
}

#[test]
fn swap_and_mounts_that_show_no_device_number_are_found_by_name() {
    let machine = Machine::new();
    for (name, number) in [("sda", "8:0"), ("sdb", "8:16"), ("sdc", "8:32")] {
        machine.disk(ATA, name, number, 1000);
    }
    machine.partition(ATA, "sda", 1, "8:1", 64, 100);
    let dev = machine.system().dev;
    let swaps = format!("Filename Type Size Used Priority\n{} partition 1 0 -2\n", dev.join("sda1").display());
    machine.write("swaps", swaps.as_bytes());
    // btrfs has a number of its own.
    machine.mount("0:31", "/srv/a\\040b", dev.join("sdb").to_str().unwrap());
    assert_eq!(machine.find("sda").uses, [Use::Swap]);
    assert!(machine.find("sda").is_system());
    assert_eq!(machine.find("sdb").uses, [Use::MountedWritable("/srv/a b".into())]);
    assert!(!machine.find("sdb").is_system());
    assert!(machine.find("sdc").uses.is_empty());
}

#[test]
fn a_broken_serial_number_page_is_no_serial_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    for (page, serial) in [
        (&b"\0\x80\0\x05abcde"[..], Some("abcde")),
        (b"\0\x80\0\x06abcde", None),
        (b"\0\x80", None),
        (b"\0\x80\0\x02  ", None),
    ] {
        std::fs::write(&path, page).unwrap();
        assert_eq!(unit_serial(&path).as_deref(), serial);
    }
}

#[test]
fn this_machine_can_be_described() {
    for disk in System::default().disks().unwrap() {
        assert!(disk.len > 0 && matches!(disk.logical_sector_size, 512 | 1024 | 2048 | 4096), "{disk:?}");
    }
}
