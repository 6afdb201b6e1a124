//! VDI files made by qemu-img, and differencing ones, made of those.

use imgfmt::format::{OpenOptions, Policy, open};
use imgfmt::{Disk, Error};

use crate::conformance::disk_suite;
use crate::image_files::{Workshop, all_of, mapped_data, opened};
use crate::qemu::{random_writes, same_as_qemu};
use crate::tools::shell;

const MIB: u64 = 1 << 20;

#[test]
fn every_variant_reads_as_the_disk_it_was_made_of() {
    for len in [MIB, 5 * MIB + 512 * 13, 512] {
        let shop = Workshop::new(len, 1);
        for (number, options) in ["", "-o static=on"].into_iter().enumerate() {
            shop.converted(&format!("{number}.vdi"), &format!("-O vdi {options}"));
        }
    }
}

#[test]
fn what_a_guest_writes_is_read() {
    let shop = Workshop::new(512, 1);
    shop.qemu_img("create -f vdi d.vdi 9M");
    random_writes(shop.folder.path(), "d.vdi", 9 * MIB, 60, 3, &["write"]);
    same_as_qemu(&shop.path("d.vdi"), "");
}

#[test]
fn a_large_sparse_disk_costs_nothing() {
    let shop = Workshop::new(512, 1);
    shop.qemu_img("create -f vdi d.vdi 8T");
    shell(shop.folder.path(), "qemu-io -t unsafe d.vdi -c 'write -P 9 7T 64k' > /dev/null");
    let disk = opened(&shop.path("d.vdi"));
    assert_eq!(disk.len(), 8 << 40);
    assert!(mapped_data(&disk) <= MIB);
    let mut buf = [0; 2];
    disk.read_at(&mut buf, (7 << 40) + 65535).unwrap();
    assert_eq!(buf, [9, 0]);
}

/// Makes `child.vdi` over `parent.vdi`, which has the content of `disk.raw`: block 1 is the child's own, block 2 is zero. Returns what it must read as.
fn family(shop: &Workshop, folder: &str) -> Vec<u8> {
    shop.qemu_img("convert -f raw -O vdi disk.raw parent.vdi");
    shop.qemu_img(&format!("create -f vdi {folder}child.vdi {}", shop.bytes.len()));
    shell(shop.folder.path(), &format!("qemu-io -t unsafe {folder}child.vdi -c 'write -P 77 1M 1M' > /dev/null"));
    let parent = std::fs::read(shop.path("parent.vdi")).unwrap();
    let path = shop.path(&format!("{folder}child.vdi"));
    let mut child = std::fs::read(&path).unwrap();
    child[0x4c] = 4;
    child[0x1a8..0x1c8].copy_from_slice(&parent[0x188..0x1a8]);
    let map = u32::from_le_bytes(child[0x154..0x158].try_into().unwrap()) as usize;
    assert_eq!(child[map..map + 12], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    child[map + 8] = 0xfe;
    std::fs::write(path, child).unwrap();
    let mut model = shop.bytes.clone();
    model[MIB as usize..2 * MIB as usize].fill(77);
    model[2 * MIB as usize..3 * MIB as usize].fill(0);
    model
}

#[test]
fn the_parent_of_a_differencing_disk_is_found_by_its_identifier() {
    let shop = Workshop::new(5 * MIB + 512, 1);
    let model = family(&shop, "");
    // Others that are not it, and one that is no VDI at all.
    shop.qemu_img("convert -f raw -O vdi disk.raw another.vdi");
    std::fs::write(shop.path("text.vdi"), "not a disk").unwrap();
    disk_suite(&opened(&shop.path("child.vdi")), &model, 1);
    std::fs::rename(shop.path("parent.vdi"), shop.path("whatever.VDI")).unwrap();
    disk_suite(&opened(&shop.path("child.vdi")), &model, 1);
    // The parent was changed since: VirtualBox gives it another identifier of its state.
    let mut parent = std::fs::read(shop.path("whatever.VDI")).unwrap();
    parent[0x198] ^= 1;
    std::fs::write(shop.path("whatever.VDI"), parent).unwrap();
    assert!(matches!(open(&shop.path("child.vdi"), &OpenOptions::default()), Err(Error::NotFound(_))));
}

#[test]
fn a_parent_in_another_folder_needs_to_be_allowed() {
    let shop = Workshop::new(4 * MIB, 1);
    // As VirtualBox lays out a machine.
    std::fs::create_dir(shop.path("Snapshots")).unwrap();
    let model = family(&shop, "Snapshots/");
    let child = shop.path("Snapshots/child.vdi");
    let error = open(&child, &OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::NotFound(message) if message.contains("the policy is")), "{error}");
    let policy = Policy::Folders(vec![shop.folder.path().to_owned()]);
    assert!(all_of(&open(&child, &OpenOptions { policy, ..OpenOptions::default() }).unwrap()) == model);
}
