//! VHDX files made by qemu-img, and differencing ones, made of those.

use std::path::Path;

use imgfmt::format::{OpenOptions, open};
use imgfmt::{Disk, Error, ExtentKind};

use crate::conformance::{Random, disk_suite};
use crate::image_files::{Workshop, all_of, mapped_data, opened, same_as_file};
use crate::qemu::{random_writes, same_as_qemu};
use crate::tools::shell;

const MIB: u64 = 1 << 20;

#[test]
fn every_variant_reads_as_the_disk_it_was_made_of() {
    for len in [MIB, 6 * MIB + 512 * 13, 512] {
        let shop = Workshop::new(len, 1);
        for (number, options) in [
            "subformat=dynamic",
            "subformat=fixed",
            "subformat=dynamic,block_size=1M",
            "subformat=dynamic,block_size=256M,log_size=2M",
            "subformat=fixed,block_size=1M",
            "subformat=dynamic,block_state_zero=off",
        ]
        .into_iter()
        .enumerate()
        {
            shop.converted(&format!("{number}.vhdx"), &format!("-O vhdx -o {options}"));
        }
    }
}

#[test]
fn what_a_guest_writes_is_read() {
    let shop = Workshop::new(512, 1);
    for (name, options) in [("a.vhdx", "-o block_size=1M"), ("b.vhdx", "")] {
        shop.qemu_img(&format!("create -f vhdx {options} {name} 40M"));
        random_writes(shop.folder.path(), name, 40 * MIB, 60, 3, &["write"]);
        same_as_qemu(&shop.path(name), "");
    }
}

#[test]
fn large_disks_are_read_where_tables_are_interleaved() {
    // Blocks of bitmaps lie after every 4 GiB of blocks of 1 MiB.
    let shop = Workshop::new(512, 1);
    shell(
        shop.folder.path(),
        "truncate -s 14G big.raw; for at in 0 4294700000 4294967296 8589934592 8590983168 12884900000 15032380000; do
         head -c 150000 /dev/urandom | dd of=big.raw oflag=seek_bytes seek=$at conv=notrunc status=none; done; truncate -s 14G big.raw",
    );
    for (name, options) in [("a.vhdx", "block_size=1M"), ("b.vhdx", "block_size=8M")] {
        shop.qemu_img(&format!("convert -f raw -O vhdx -o {options} big.raw {name}"));
        let image = opened(&shop.path(name));
        assert!(mapped_data(&image) < 120 * MIB);
        same_as_file(&image, &shop.path("big.raw"));
    }
    shop.qemu_img("create -f vhdx huge.vhdx 63T");
    shell(shop.folder.path(), "qemu-io -t unsafe huge.vhdx -c 'write -P 9 62T 64k' > /dev/null");
    let disk = opened(&shop.path("huge.vhdx"));
    assert!(mapped_data(&disk) <= 256 * MIB);
    let mut buf = [0; 2];
    disk.read_at(&mut buf, (62 << 40) + 65535).unwrap();
    assert_eq!(buf, [9, 0]);
}

/// CRC-32C, bit by bit: another way than the library's.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// Puts the checksum of a structure into its bytes 4 to 7.
pub(crate) fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Places of the block allocation table and of the metadata.
pub(crate) fn regions(bytes: &[u8]) -> (usize, usize) {
    let region = |guid: u8| {
        let at = (0..2).map(|n| (192 << 10) + 16 + n * 32).find(|at| bytes[*at] == guid).unwrap();
        le64(bytes, at + 16) as usize
    };
    (region(0x66), region(0x06))
}

/// Place of the data of a metadata item, by the first byte of its identifier.
fn item(bytes: &[u8], metadata: usize, id: u8) -> usize {
    let at = (0..16).map(|n| metadata + 32 + n * 32).find(|at| bytes[*at] == id).unwrap();
    metadata + le32(bytes, at + 16) as usize
}

/// A GUID as files have it, in braces.
fn guid_text(bytes: &[u8]) -> String {
    let [a, b] = [le32(bytes, 0), le32(bytes, 4)];
    let tail: String = bytes[10..16].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("{{{a:08X}-{:04X}-{:04X}-{:02X}{:02X}-{tail}}}", b & 0xffff, b >> 16, bytes[8], bytes[9])
}

/// Makes a child of `parent` with `len` bytes: `sectors` (number, fill byte) are its own, and whole blocks in the given states.
fn differencing(shop: &Workshop, name: &str, parent: &str, len: u64, sectors: &[(u64, u8)], states: &[(u64, u64)]) {
    shop.qemu_img(&format!("create -f vhdx -o block_size=1M {name} {len}"));
    let parent_bytes = std::fs::read(shop.path(parent)).unwrap();
    let newest = [64 << 10, 128 << 10].into_iter().max_by_key(|at| le64(&parent_bytes, at + 8)).unwrap();
    let linkage = guid_text(&parent_bytes[newest + 32..newest + 48]);
    let mut bytes = std::fs::read(shop.path(name)).unwrap();
    let (bat, metadata) = regions(&bytes);
    let parameters = item(&bytes, metadata, 0x37);
    bytes[parameters + 4] |= 2;

    let pairs = [
        ("parent_linkage", linkage),
        ("relative_path", format!(r".\{parent}")),
        ("absolute_win32_path", format!(r"C:\x\{parent}")),
    ];
    let mut locator = vec![
        0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13, 0, 0, 3, 0,
    ];
    let mut text: Vec<u8> = Vec::new();
    for (key, value) in &pairs {
        let mut put = |word: &str| {
            let units: Vec<u8> = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let at = 20 + 36 + text.len();
            text.extend(&units);
            (at as u32, units.len() as u16)
        };
        let ((key_at, key_len), (value_at, value_len)) = (put(key), put(value));
        locator.extend([key_at.to_le_bytes(), value_at.to_le_bytes()].concat());
        locator.extend([key_len.to_le_bytes(), value_len.to_le_bytes()].concat());
    }
    locator.extend(text);
    let count = u16::from_le_bytes([bytes[metadata + 10], bytes[metadata + 11]]);
    bytes[metadata + 10..metadata + 12].copy_from_slice(&(count + 1).to_le_bytes());
    let entry = metadata + 32 + usize::from(count) * 32;
    let id = [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c];
    bytes[entry..entry + 16].copy_from_slice(&id);
    bytes[entry + 16..entry + 20].copy_from_slice(&(128_u32 << 10).to_le_bytes());
    bytes[entry + 20..entry + 24].copy_from_slice(&(locator.len() as u32).to_le_bytes());
    bytes[entry + 24] = 4;
    let at = metadata + (128 << 10);
    bytes[at..at + locator.len()].copy_from_slice(&locator);

    // A chunk is 4096 blocks of 1 MiB; their entries are followed by that of a block of bitmaps.
    bytes.resize(bytes.len().next_multiple_of(1 << 20), 0);
    // QEMU makes every block zero, which would hide the parent.
    bytes[bat..bat + (1 << 20)].fill(0);
    let block_at = |bytes: &mut Vec<u8>, entry: usize, state: u64, fill: u8| {
        let at = bat + entry * 8;
        if le64(bytes, at) & 7 == 0 {
            let place = bytes.len() as u64;
            bytes[at..at + 8].copy_from_slice(&(place | state).to_le_bytes());
            bytes.resize(bytes.len() + (1 << 20), fill);
        }
        (le64(bytes, at) & !0xf_ffff) as usize
    };
    for (sector, fill) in sectors {
        let (block, within) = ((sector / 2048) as usize, (sector % 2048) as usize);
        // What the bitmap calls the parent's must not be read.
        let data = block_at(&mut bytes, block + block / 4096, 7, 0xee);
        let bitmap = block_at(&mut bytes, (block / 4096 + 1) * 4096 + block / 4096, 6, 0);
        let bit = block % 4096 * 2048 + within;
        bytes[bitmap + bit / 8] |= 1 << (bit % 8);
        bytes[data + within * 512..][..512].fill(*fill);
    }
    for (block, state) in states {
        let at = bat + (*block as usize) * 8;
        bytes[at..at + 8].copy_from_slice(&state.to_le_bytes());
        if *state == 6 {
            bytes[at..at + 8].fill(0);
            block_at(&mut bytes, *block as usize, 6, 0x66);
        }
    }
    std::fs::write(shop.path(name), bytes).unwrap();
}

/// A parent with the content of `disk.raw`, a child, and what the child must read as.
fn family(shop: &Workshop, len: u64) -> Vec<u8> {
    shop.qemu_img("convert -f raw -O vhdx disk.raw parent.vhdx");
    let mut random = Random::new(len);
    let sectors: Vec<_> = (0..300).map(|n| (random.below(len / 512 - 4 * 2048), (n % 250) as u8 + 1)).collect();
    let last = len / MIB - 4;
    let states = [(last, 2), (last + 1, 6), (last + 2, 1), (last + 3, 3)];
    differencing(shop, "child.vhdx", "parent.vhdx", len, &sectors, &states);
    let mut model = shop.bytes.clone();
    model.resize(len as usize, 0);
    for (sector, fill) in sectors {
        model[sector as usize * 512..][..512].fill(fill);
    }
    for (block, state) in states {
        model[(block * MIB) as usize..][..MIB as usize].fill(if state == 6 { 0x66 } else { 0 });
    }
    model
}

#[test]
fn a_differencing_disk_takes_from_its_parent_what_its_bitmaps_say() {
    for len in [8 * MIB, 10 * MIB, 7 * MIB] {
        let shop = Workshop::new(8 * MIB, 1);
        let model = family(&shop, len);
        let image = opened(&shop.path("child.vhdx"));
        disk_suite(&image, &model, len);
        assert_eq!(image.about().chain().count(), 2);
    }
}

#[test]
fn seven_zip_reads_the_same_from_a_differencing_disk() {
    let shop = Workshop::new(8 * MIB, 1);
    let model = family(&shop, 8 * MIB);
    shell(shop.folder.path(), "7zz x -so -tvhdx child.vhdx > extracted");
    assert!(std::fs::read(shop.path("extracted")).unwrap() == model);
}

#[test]
fn a_chain_of_differencing_disks_is_read_to_its_end() {
    let shop = Workshop::new(8 * MIB, 1);
    let mut model = family(&shop, 8 * MIB);
    differencing(&shop, "grandchild.vhdx", "child.vhdx", 8 * MIB, &[(7, 9), (8, 9), (5000, 3)], &[]);
    for (sector, fill) in [(7, 9), (8, 9), (5000, 3)] {
        model[sector * 512..][..512].fill(fill);
    }
    disk_suite(&opened(&shop.path("grandchild.vhdx")), &model, 1);
}

#[test]
fn a_parent_that_was_written_since_is_refused() {
    let shop = Workshop::new(8 * MIB, 1);
    family(&shop, 8 * MIB);
    shell(shop.folder.path(), "qemu-io -t unsafe parent.vhdx -c 'write 0 512' > /dev/null");
    let error = open(&shop.path("child.vhdx"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Refused(message) if message.contains("would give wrong data")), "{error}");
}

/// Changes a file's metadata item of this first byte.
fn patch(path: &Path, id: u8, value: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let (_, metadata) = regions(&bytes);
    let at = item(&bytes, metadata, id);
    bytes[at..at + value.len()].copy_from_slice(value);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn sectors_of_4096_bytes_are_told() {
    let shop = Workshop::new(8 * MIB, 1);
    // Only the bitmaps of differencing disks and the ratio of blocks to them depend on the sector, so a small disk lies as before.
    let image = shop.converted("d.vhdx", "-O vhdx -o block_size=1M");
    patch(&image, 0x1d, &4096_u32.to_le_bytes());
    let disk = opened(&image);
    assert_eq!(disk.sector_size(), 4096);
    assert!(all_of(&disk) == shop.bytes);
    patch(&image, 0x1d, &520_u32.to_le_bytes());
    assert!(matches!(open(&image, &OpenOptions::default()), Err(Error::Corrupt { .. })));
}

#[test]
fn a_damaged_header_or_region_table_is_replaced_by_its_copy() {
    let shop = Workshop::new(3 * MIB, 1);
    let image = shop.converted("d.vhdx", "-O vhdx");
    let whole = std::fs::read(&image).unwrap();
    // With one header the other is current, older by one write of the same state; the tables are alike.
    for at in [(64 << 10) + 100, (192 << 10) + 100, (256 << 10) + 100] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&image, &bytes).unwrap();
        disk_suite(&opened(&image), &shop.bytes, 1);
    }
    let mut bytes = whole.clone();
    bytes[(64 << 10) + 100] ^= 1;
    bytes[(128 << 10) + 100] ^= 1;
    std::fs::write(&image, &bytes).unwrap();
    let error = open(&image, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("neither of the two is valid"), "{error}");
    bytes = whole;
    bytes[(192 << 10) + 100] ^= 1;
    bytes[(256 << 10) + 100] ^= 1;
    std::fs::write(&image, &bytes).unwrap();
    assert!(matches!(open(&image, &OpenOptions::default()), Err(Error::Corrupt { .. })));
}

#[test]
fn what_it_requires_and_we_do_not_know_is_refused_by_name() {
    let shop = Workshop::new(3 * MIB, 1);
    let image = shop.converted("d.vhdx", "-O vhdx");
    let whole = std::fs::read(&image).unwrap();
    let (_, metadata) = regions(&whole);
    let mut bytes = whole.clone();
    // An item of the metadata that nobody knows, required and not.
    let at = (0..16).map(|n| metadata + 32 + n * 32).find(|at| whole[*at] == 0xab).unwrap();
    bytes[at] = 0xac;
    bytes[at + 24] |= 4;
    std::fs::write(&image, &bytes).unwrap();
    let error = open(&image, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the required metadata item beca12ac"), "{error}");
    bytes[at + 24] &= !4;
    std::fs::write(&image, &bytes).unwrap();
    assert!(all_of(&opened(&image)) == shop.bytes);
    // A third region.
    for table in [192 << 10, 256 << 10] {
        bytes[table + 8] = 3;
        let entry = table + 16 + 64;
        bytes[entry..entry + 16].fill(0x11);
        bytes[entry + 16..entry + 24].copy_from_slice(&MIB.to_le_bytes());
        bytes[entry + 28] = 1;
        seal(&mut bytes[table..table + (64 << 10)]);
    }
    std::fs::write(&image, &bytes).unwrap();
    let error = open(&image, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the required region 11111111"), "{error}");
}

#[test]
fn unallocated_blocks_are_zero_and_blocks_past_the_file_are_errors() {
    let shop = Workshop::new(8 * MIB, 1);
    shop.qemu_img("create -f vhdx -o block_size=1M d.vhdx 8M");
    shell(shop.folder.path(), "qemu-io -t unsafe d.vhdx -c 'write -P 5 3M 1M' > /dev/null");
    let image = opened(&shop.path("d.vhdx"));
    let kinds = [0, 3, 4].map(|block| image.extent_at(block * MIB).unwrap().kind);
    assert_eq!(kinds, [ExtentKind::Zero, ExtentKind::Data, ExtentKind::Zero]);
    let bytes = std::fs::read(shop.path("d.vhdx")).unwrap();
    std::fs::write(shop.path("d.vhdx"), &bytes[..bytes.len() - 512]).unwrap();
    let image = opened(&shop.path("d.vhdx"));
    let mut buf = vec![0; MIB as usize];
    let error = image.read_at(&mut buf, 3 * MIB).unwrap_err();
    assert!(error.to_string().contains("points past the end of the file"), "{error}");
}
