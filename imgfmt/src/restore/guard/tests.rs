//! Guards on machines made of folders; those on real loop devices are in `tests/it/restore_guard.rs`.

use super::*;
use crate::source::disks::unix::tests::Machine;

const ATA: &str = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0";

/// sda with three partitions: the first carries the root, the second is free, the third is held by LVM. sdb is idle.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.disk(ATA, "sda", "8:0", 10_000);
    for (n, start) in [(1, 64), (2, 1000), (3, 2000)] {
        machine.partition(ATA, "sda", n, &format!("8:{n}"), start, 500);
    }
    machine.disk("virtual", "dm-0", "252:0", 400);
    machine.write("sys/devices/virtual/block/dm-0/dm/name", b"vg-data");
    machine.write("sys/devices/virtual/block/dm-0/dm/uuid", b"LVM-x");
    machine.hold(&format!("{ATA}/block/sda/sda3"), "virtual", "dm-0");
    machine.mount("8:1", "/", "/dev/sda1");
    machine.disk(ATA, "sdb", "8:16", 10_000);
    machine
}

fn facts(machine: &Machine, name: &str) -> Facts {
    let disk = machine.system().disks().unwrap().into_iter().find(|disk| disk.path.ends_with(name)).unwrap();
    let path = disk.path.clone();
    let device = Some(disk.device);
    let layout = crate::partition::read_layout(&crate::disk::MemoryDisk::new(Vec::new())).unwrap();
    let place = Place::Disk(Box::new(disk));
    let digest = "0123456789abcdef".into();
    Facts { given: path.clone(), path, place, inode: (0, 0), device, len: 5_120_000, sector_size: 512, layout, digest }
}

fn reasons(machine: &Machine, name: &str, scope: Scope) -> Vec<String> {
    refusals(&machine.system(), &facts(machine, name), scope, &[]).unwrap()
}

#[test]
fn the_disk_of_the_system_is_refused_with_every_reason() {
    let machine = machine();
    let reasons = reasons(&machine, "sda", Scope::Disk);
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[0].ends_with("is the disk that this system runs from"));
    assert!(reasons[1].contains("sda1") && reasons[1].contains("is mounted at /: unmount that first"));
    assert!(reasons[2].contains("sda3 is held by LVM volume vg-data (dm-0)"));
}

#[test]
fn an_idle_disk_is_not_refused() {
    assert_eq!(reasons(&machine(), "sdb", Scope::Disk), Vec::<String>::new());
}

#[test]
fn a_partition_may_be_written_beside_others_in_use_and_not_while_it_is() {
    let machine = machine();
    let mut facts = facts(&machine, "sda");
    for number in 1..=3 {
        let range = u64::from(number) * 1_000_000..u64::from(number) * 1_000_000 + 256_000;
        facts.layout.partitions.push(crate::partition::Partition { number, range, ..Default::default() });
    }
    // The kernel and the table must agree on where the partition lies.
    let check = |facts: &Facts, number| refusals(&machine.system(), facts, Scope::Partition(number), &[]);
    assert!(check(&facts, 2).unwrap_err().to_string().contains("blockdev --rereadpt"));
    for (partition, start) in facts.layout.partitions[1..].iter_mut().zip([64, 1000, 2000]) {
        partition.range = start * 512..(start + 500) * 512;
    }
    facts.layout.partitions.remove(0);
    assert_eq!(check(&facts, 2).unwrap(), Vec::<String>::new());
    assert!(check(&facts, 1).unwrap()[0].contains("is mounted at /"));
    assert!(check(&facts, 3).unwrap()[0].contains("held by LVM volume"));
    assert!(check(&facts, 9).unwrap_err().to_string().contains("has no partition 9"));
}

#[test]
fn a_disk_that_is_read_only_or_swapped_to_is_refused() {
    let machine = machine();
    machine.write(&format!("sys/devices/{ATA}/block/sdb/ro"), b"1\n");
    let swap = machine.system().dev.join("sdb");
    machine.write("swaps", format!("Filename Type\n{} partition 1 0 -2\n", swap.display()).as_bytes());
    let reasons = reasons(&machine, "sdb", Scope::Disk);
    assert!(reasons.iter().any(|reason| reason.contains("swapoff")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("read-only")), "{reasons:?}");
}

#[test]
fn a_target_is_named_by_its_serial_or_its_digest_and_nothing_less() {
    let machine = machine();
    machine.write(&format!("sys/devices/{ATA}/block/sdb/device/serial"), b"HK-0815\n");
    let facts = facts(&machine, "sdb");
    for id in ["HK-0815", "hk-0815", "0123456789ABCDEF", "table:0123456789abcdef", " HK-0815\n"] {
        assert!(facts.is_named_by(id), "{id}");
    }
    for id in ["", "table:", "HK", "0123456789abcde", "0123456789abcdef0", "table:HK-0815"] {
        assert!(!facts.is_named_by(id), "{id}");
    }
}
