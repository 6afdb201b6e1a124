//! VHD files made by qemu-img, and differencing ones, which it cannot make, by hand.

use std::path::Path;

use imgfmt::format::{OpenOptions, open};
use imgfmt::{Disk, Error};

use crate::conformance::{Random, disk_suite};
use crate::image_files::{Workshop, all_of, disk_bytes, mapped_data, opened};
use crate::qemu::{random_writes, same_as_qemu};
use crate::tools::shell;

const MIB: u64 = 1 << 20;

#[test]
fn every_variant_reads_as_the_disk_it_was_made_of() {
    for len in [MIB, 5 * MIB + 512 * 13, 512] {
        let shop = Workshop::new(len, 1);
        for (number, options) in
            ["subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"].into_iter().enumerate()
        {
            shop.converted(&format!("{number}.vhd"), &format!("-O vpc -o {options}"));
        }
        // Without force_size the disk grows to a whole geometry, in both readings.
        shop.qemu_img("convert -f raw -O vpc disk.raw chs.vhd");
        let bytes = same_as_qemu(&shop.path("chs.vhd"), "");
        assert!(bytes.len() as u64 >= len && bytes[..len as usize] == shop.bytes);
    }
}

#[test]
fn what_a_guest_writes_is_read() {
    let shop = Workshop::new(512, 1);
    shop.qemu_img("create -f vpc -o force_size=on d.vhd 9M");
    random_writes(shop.folder.path(), "d.vhd", 9 * MIB, 60, 3, &["write"]);
    same_as_qemu(&shop.path("d.vhd"), "");
}

#[test]
fn a_large_sparse_disk_costs_nothing() {
    let shop = Workshop::new(512, 1);
    shop.qemu_img("create -f vpc -o force_size=on d.vhd 2040G");
    shell(shop.folder.path(), "qemu-io -t unsafe -f vpc d.vhd -c 'write -P 9 1T 64k' > /dev/null");
    let disk = opened(&shop.path("d.vhd"));
    assert_eq!(disk.len(), 2040 << 30);
    assert!(mapped_data(&disk) <= 2 * MIB);
    let mut buf = [0; 2];
    disk.read_at(&mut buf, (1 << 40) + 65535).unwrap();
    assert_eq!(buf, [9, 0]);
}

#[test]
fn a_damaged_end_is_replaced_by_the_copy_at_the_start() {
    let shop = Workshop::new(3 * MIB, 1);
    let image = shop.converted("d.vhd", "-O vpc -o force_size=on");
    let whole = std::fs::read(&image).unwrap();
    for cut in [2, 100, 512] {
        std::fs::write(&image, &whole[..whole.len() - cut]).unwrap();
        let disk = opened(&image);
        disk_suite(&disk, &shop.bytes, 1);
        assert!(disk.about().notes.iter().any(|note| note.contains("copy at its start")), "{:?}", disk.about());
    }
    // A fixed disk has no copy.
    let fixed = shop.converted("f.vhd", "-O vpc -o force_size=on,subformat=fixed");
    let mut bytes = std::fs::read(&fixed).unwrap();
    let at = bytes.len() - 400;
    bytes[at] ^= 1;
    std::fs::write(&fixed, bytes).unwrap();
    let vhd = OpenOptions { format: Some(imgfmt::format::Format::Vhd), ..OpenOptions::default() };
    assert!(matches!(open(&fixed, &vhd), Err(Error::Corrupt { .. })));
}

/// The complement of the sum of all bytes, as a footer or header has it.
fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

/// Writes a differencing disk over the VHD `parent`: the `sectors` (number and fill byte) are its own.
fn differencing(
    path: &Path,
    parent: &Path,
    len: u64,
    block: u64,
    sectors: &[(u64, u8)],
    locators: &[(&[u8; 4], &str)],
) {
    let parent_bytes = std::fs::read(parent).unwrap();
    let mut footer = parent_bytes[parent_bytes.len() - 512..].to_vec();
    let parent_id = footer[68..84].to_vec();
    footer[16..24].copy_from_slice(&512_u64.to_be_bytes());
    footer[48..56].copy_from_slice(&len.to_be_bytes());
    footer[60..64].copy_from_slice(&4_u32.to_be_bytes());
    footer[68..84].iter_mut().for_each(|byte| *byte ^= 0x5a);
    seal(&mut footer, 64);

    let blocks = len.div_ceil(block);
    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[8..16].fill(0xff);
    header[24..28].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    header[28..32].copy_from_slice(&(blocks as u32).to_be_bytes());
    header[32..36].copy_from_slice(&(block as u32).to_be_bytes());
    header[40..56].copy_from_slice(&parent_id);
    let name = utf16(parent.file_name().unwrap().to_str().unwrap(), true);
    header[64..64 + name.len()].copy_from_slice(&name);
    let mut file = vec![0; 512 + 1024];
    for (number, (code, text)) in locators.iter().enumerate() {
        let data = utf16(text, false);
        let at = 576 + number * 24;
        header[at..at + 4].copy_from_slice(*code);
        header[at + 4..at + 8].copy_from_slice(&512_u32.to_be_bytes());
        header[at + 8..at + 12].copy_from_slice(&(data.len() as u32).to_be_bytes());
        header[at + 16..at + 24].copy_from_slice(&(file.len() as u64).to_be_bytes());
        file.extend(&data);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    header[16..24].copy_from_slice(&(file.len() as u64).to_be_bytes());
    seal(&mut header, 36);
    file[..512].copy_from_slice(&footer);
    file[512..1536].copy_from_slice(&header);

    let table_at = file.len();
    file.resize((table_at + blocks as usize * 4).next_multiple_of(512), 0xff);
    let bitmap_len = (block / 512 / 8).next_multiple_of(512) as usize;
    for (sector, fill) in sectors {
        let entry = table_at + (sector * 512 / block) as usize * 4;
        if file[entry..entry + 4] == [0xff; 4] {
            let place = (file.len() / 512) as u32;
            file[entry..entry + 4].copy_from_slice(&place.to_be_bytes());
            file.resize(file.len() + bitmap_len, 0);
            // What the bitmap calls the parent's must not be read.
            file.resize(file.len() + block as usize, 0xee);
        }
        let place = u32::from_be_bytes(file[entry..entry + 4].try_into().unwrap()) as usize * 512;
        let within = (sector * 512 % block / 512) as usize;
        file[place + within / 8] |= 0x80 >> (within % 8);
        file[place + bitmap_len + within * 512..][..512].fill(*fill);
    }
    file.extend(&footer);
    std::fs::write(path, file).unwrap();
}

/// A parent with the content of `disk.raw`, a child, and what the child must read as.
fn family(shop: &Workshop, len: u64, block: u64, locators: &[(&[u8; 4], &str)]) -> Vec<u8> {
    shop.qemu_img("convert -f raw -O vpc -o force_size=on disk.raw parent.vhd");
    let mut random = Random::new(block);
    let sectors: Vec<_> = (0..300).map(|n| (random.below(len / 512), (n % 250) as u8 + 1)).collect();
    differencing(&shop.path("child.vhd"), &shop.path("parent.vhd"), len, block, &sectors, locators);
    let mut model = shop.bytes.clone();
    model.resize(len as usize, 0);
    for (sector, fill) in sectors {
        model[sector as usize * 512..][..512].fill(fill);
    }
    model
}

#[test]
fn a_differencing_disk_takes_from_its_parent_what_its_bitmaps_say() {
    for (len, block) in [(5 * MIB + 512 * 3, 2 * MIB), (7 * MIB, 512 << 10), (6 * MIB, 4096), (3 * MIB, 2 * MIB)] {
        let shop = Workshop::new(5 * MIB, 1);
        let model = family(&shop, len, block, &[(b"W2ru", r".\parent.vhd"), (b"W2ku", r"C:\disks\parent.vhd")]);
        disk_suite(&opened(&shop.path("child.vhd")), &model, block);
    }
}

#[test]
fn seven_zip_reads_the_same_from_a_differencing_disk() {
    let shop = Workshop::new(4 * MIB, 1);
    let model = family(&shop, 4 * MIB, 2 * MIB, &[(b"W2ru", r".\parent.vhd")]);
    shell(shop.folder.path(), "7zz x -so -tvhd child.vhd > extracted");
    assert!(std::fs::read(shop.path("extracted")).unwrap() == model);
}

#[test]
fn a_parent_is_found_by_any_of_its_names_and_refused_if_it_is_another() {
    let shop = Workshop::new(3 * MIB, 1);
    for locators in [&[(b"W2ku", r"D:\elsewhere\parent.vhd")][..], &[], &[(b"W2ru", r"..\gone\parent.vhd")]] {
        let model = family(&shop, 3 * MIB, 2 * MIB, locators);
        assert!(all_of(&opened(&shop.path("child.vhd"))) == model);
    }
    // A parent that was made again has another identifier.
    shop.qemu_img("convert -f raw -O vpc -o force_size=on disk.raw parent.vhd");
    let error = open(&shop.path("child.vhd"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Refused(message) if message.contains("would give wrong data")), "{error}");
    std::fs::remove_file(shop.path("parent.vhd")).unwrap();
    let error = open(&shop.path("child.vhd"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Refused(_) | Error::NotFound(_)), "{error}");
}

#[test]
fn a_chain_of_differencing_disks_is_read_to_its_end() {
    let shop = Workshop::new(3 * MIB, 1);
    let mut model = family(&shop, 3 * MIB, 2 * MIB, &[(b"W2ru", r".\parent.vhd")]);
    differencing(
        &shop.path("grandchild.vhd"),
        &shop.path("child.vhd"),
        3 * MIB,
        4096,
        &[(7, 9), (8, 9), (5000, 3)],
        &[],
    );
    for (sector, fill) in [(7, 9), (8, 9), (5000, 3)] {
        model[sector * 512..][..512].fill(fill);
    }
    disk_suite(&opened(&shop.path("grandchild.vhd")), &model, 1);
}

#[test]
fn a_geometry_that_is_too_small_is_noted_and_not_believed() {
    let shop = Workshop::new(3 * MIB, 1);
    let image = shop.converted("d.vhd", "-O vpc -o force_size=on");
    let mut bytes = std::fs::read(&image).unwrap();
    let end = bytes.len() - 512;
    for at in [0, end] {
        bytes[at + 28..at + 32].copy_from_slice(b"vbox");
        bytes[at + 56..at + 60].copy_from_slice(&[0, 10, 4, 17]);
        seal(&mut bytes[at..at + 512], 64);
    }
    std::fs::write(&image, bytes).unwrap();
    let disk = opened(&image);
    disk_suite(&disk, &disk_bytes(3 * MIB, 1), 1);
    assert!(disk.about().notes.iter().any(|note| note.contains("geometry")), "{:?}", disk.about());
}
