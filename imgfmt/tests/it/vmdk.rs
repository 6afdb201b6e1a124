//! VMDK files made by qemu-img, and descriptors written by hand over its extents.

use std::fmt::Write;

use imgfmt::format::{OpenOptions, open};
use imgfmt::{Disk, Error};

use crate::conformance::disk_suite;
use crate::image_files::{Workshop, all_of, disk_bytes, mapped_data, opened, same_as_file, write_sparse};
use crate::qemu::{random_writes, same_as_qemu};
use crate::tools::shell;

const MIB: u64 = 1 << 20;

#[test]
fn every_variant_reads_as_the_disk_it_was_made_of() {
    for len in [MIB, 6 * MIB + 512 * 13, 512] {
        let shop = Workshop::new(len, 1);
        for (number, options) in [
            "monolithicSparse",
            "monolithicSparse,zeroed_grain=on",
            "monolithicFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
            "streamOptimized",
        ]
        .into_iter()
        .enumerate()
        {
            shop.converted(&format!("{number}.vmdk"), &format!("-O vmdk -o subformat={options}"));
        }
    }
}

#[test]
fn what_a_guest_writes_is_read() {
    let shop = Workshop::new(512, 1);
    for (number, options) in ["", "-o zeroed_grain=on"].into_iter().enumerate() {
        let name = format!("{number}.vmdk");
        shop.qemu_img(&format!("create -f vmdk {options} {name} 9M"));
        let kinds: &[&str] = if options.is_empty() { &["write"] } else { &["write", "write", "write -z"] };
        random_writes(shop.folder.path(), &name, 9 * MIB, 80, 3, kinds);
        same_as_qemu(&shop.path(&name), "");
    }
}

#[test]
fn disks_of_many_files_are_read_across_their_borders() {
    let shop = Workshop::new(512, 1);
    shell(
        shop.folder.path(),
        "truncate -s 5G big.raw; for at in 0 2147418112 2147483136 3000000000 4294900000 5368000000; do
         head -c 150000 /dev/urandom | dd of=big.raw oflag=seek_bytes seek=$at conv=notrunc status=none; done; truncate -s 5G big.raw",
    );
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        shop.qemu_img(&format!("convert -f raw -O vmdk -o subformat={subformat} big.raw {subformat}.vmdk"));
        let image = opened(&shop.path(&format!("{subformat}.vmdk")));
        assert_eq!(image.about().more_files.len(), 3);
        assert!(mapped_data(&image) < 3 * MIB);
        same_as_file(&image, &shop.path("big.raw"));
        shell(shop.folder.path(), &format!("rm {subformat}*"));
    }
}

#[test]
fn a_large_sparse_disk_costs_nothing() {
    let shop = Workshop::new(512, 1);
    shop.qemu_img("create -f vmdk d.vmdk 2T");
    shell(shop.folder.path(), "qemu-io -t unsafe d.vmdk -c 'write -P 9 1T 64k' > /dev/null");
    let disk = opened(&shop.path("d.vmdk"));
    assert_eq!(disk.len(), 2 << 40);
    assert!(mapped_data(&disk) <= MIB);
    let mut buf = [0; 2];
    disk.read_at(&mut buf, (1 << 40) + 65535).unwrap();
    assert_eq!(buf, [9, 0]);
}

/// A descriptor of these extent lines.
fn descriptor(extents: &str) -> String {
    format!("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\n\n{extents}\n")
}

#[test]
fn extents_of_every_kind_make_one_disk() {
    let shop = Workshop::new(2 * MIB, 1);
    let flat = disk_bytes(MIB, 2);
    write_sparse(&shop.path("a flat file.vmdk"), &flat);
    shop.converted("s.vmdk", "-O vmdk");
    shop.converted("o.vmdk", "-O vmdk -o subformat=streamOptimized");
    let text = descriptor(
        "RW 100 FLAT \"a flat file.vmdk\" 0\nRW 63 ZERO\nRW 4096 SPARSE \"s.vmdk\"\nRDONLY 1001 FLAT \"a flat file.vmdk\" 1000\n\
         RW 3000 SPARSE \"o.vmdk\"\nRW 1 VMFS \"a flat file.vmdk\" 2047",
    );
    std::fs::write(shop.path("d.vmdk"), text.replace('\n', "\r\n")).unwrap();
    let sectors = |bytes: &[u8], from: usize, count: usize| bytes[from * 512..(from + count) * 512].to_vec();
    let model = [
        sectors(&flat, 0, 100),
        vec![0; 63 * 512],
        shop.bytes.clone(),
        sectors(&flat, 1000, 1001),
        sectors(&shop.bytes, 0, 3000),
        sectors(&flat, 2047, 1),
    ]
    .concat();
    disk_suite(&opened(&shop.path("d.vmdk")), &model, 1);
}

#[test]
fn snapshots_read_through_to_their_parents() {
    let shop = Workshop::new(5 * MIB, 1);
    shop.qemu_img("convert -f raw -O vmdk disk.raw base.vmdk");
    shop.qemu_img("create -f vmdk -b base.vmdk -F vmdk one.vmdk");
    random_writes(shop.folder.path(), "one.vmdk", 5 * MIB, 20, 1, &["write"]);
    shop.qemu_img("create -f vmdk -o zeroed_grain=on -b one.vmdk -F vmdk two.vmdk");
    random_writes(shop.folder.path(), "two.vmdk", 5 * MIB, 20, 2, &["write", "write -z"]);
    same_as_qemu(&shop.path("two.vmdk"), "");
    assert_eq!(opened(&shop.path("two.vmdk")).about().chain().count(), 3);
    // A parent that was written since has another content identifier.
    shell(shop.folder.path(), "qemu-io -t unsafe base.vmdk -c 'write 0 512' > /dev/null");
    let error = open(&shop.path("two.vmdk"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Refused(message) if message.contains("would give wrong data")), "{error}");
}

#[test]
fn a_snapshot_whose_parent_was_on_windows_is_found_beside_it() {
    let shop = Workshop::new(2 * MIB, 1);
    shop.converted("base.vmdk", "-O vmdk -o subformat=monolithicFlat");
    let base = std::fs::read_to_string(shop.path("base.vmdk")).unwrap();
    let cid = base.lines().find_map(|line| line.strip_prefix("CID=")).unwrap();
    shop.qemu_img("create -f vmdk child-s001.vmdk 2M");
    shell(shop.folder.path(), "qemu-io -t unsafe child-s001.vmdk -c 'write -P 5 64k 64k' > /dev/null");
    let mut text = descriptor("RW 4096 SPARSE \"child-s001.vmdk\"").replace("ffffffff", cid);
    writeln!(text, "parentFileNameHint=\"D:\\Virtual Machines\\base.vmdk\"").unwrap();
    std::fs::write(shop.path("child.vmdk"), text).unwrap();
    let mut model = shop.bytes.clone();
    model[65536..131_072].fill(5);
    disk_suite(&opened(&shop.path("child.vmdk")), &model, 1);
}

/// A stream-optimized file whose header leaves the directory's place to a footer, as VMware's tools write them and QEMU does not.
fn with_footer(shop: &Workshop) -> Vec<u8> {
    let image = shop.converted("o.vmdk", "-O vmdk -o subformat=streamOptimized");
    let mut bytes = std::fs::read(image).unwrap();
    let header = bytes[..512].to_vec();
    bytes[56..64].fill(0xff);
    let mut marker = vec![0; 512];
    marker[0] = 1;
    marker[12] = 3;
    bytes.extend([marker, header, vec![0; 512]].concat());
    bytes
}

#[test]
fn a_stream_that_ends_with_a_footer_is_read() {
    let shop = Workshop::new(2 * MIB, 1);
    let bytes = with_footer(&shop);
    std::fs::write(shop.path("o.vmdk"), bytes).unwrap();
    disk_suite(&opened(&shop.path("o.vmdk")), &shop.bytes, 1);
}

#[test]
fn what_is_incomplete_or_foreign_is_refused_by_name() {
    let shop = Workshop::new(2 * MIB, 1);
    let refusal = |name: &str| open(&shop.path(name), &OpenOptions::default()).unwrap_err().to_string();
    for (line, word) in [
        ("RW 4096 VMFSSPARSE \"x-delta.vmdk\"", "VMFSSPARSE"),
        ("RW 4096 SESPARSE \"x-sesparse.vmdk\"", "SESPARSE"),
        ("RW 4096 VMFSRDM \"x-rdm.vmdk\"", "VMFSRDM"),
        ("RW 4096 FLAT \"disk.raw\" 1", "points past the end of the file"),
        ("RW 4096 FLAT \"/dev/zero\" 0", "the policy is"),
        ("RW 4096 FLAT \"gone.vmdk\" 0", "missing"),
        ("RW 9223372036854775807 ZERO", "too long"),
    ] {
        std::fs::write(shop.path("d.vmdk"), descriptor(line)).unwrap();
        let message = refusal("d.vmdk");
        assert!(message.contains(word), "{message}");
    }
    std::fs::write(shop.path("esx.vmdk"), [&b"COWD"[..], &[0; 2044]].concat()).unwrap();
    assert!(refusal("esx.vmdk").contains("COWD"));
    // One extent of two, a stream that was cut, a file that was copied as a text.
    shell(
        shop.folder.path(),
        "truncate -s 3G b.raw; qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse b.raw b.vmdk",
    );
    assert!(refusal("b-s002.vmdk").contains("without a descriptor"));
    let whole = with_footer(&shop);
    std::fs::write(shop.path("o.vmdk"), &whole[..whole.len() - 512]).unwrap();
    assert!(refusal("o.vmdk").contains("not written to its end"));
    let mut text = whole;
    let footer = text.len() - 1024;
    text[footer + 75] = b'\n';
    std::fs::write(shop.path("o.vmdk"), &text).unwrap();
    assert!(refusal("o.vmdk").contains("copied as a text"));
}

#[test]
fn a_damaged_grain_is_an_error_and_the_others_are_read() {
    let shop = Workshop::new(2 * MIB, 1);
    let image = shop.converted("o.vmdk", "-O vmdk -o subformat=streamOptimized");
    let mut bytes = std::fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&image, &bytes).unwrap();
    let disk = opened(&image);
    let mut bad = 0;
    for grain in 0..32 {
        let mut buf = vec![0; 65536];
        match disk.read_at(&mut buf, grain * 65536) {
            Ok(()) => assert!(buf == shop.bytes[grain as usize * 65536..][..65536]),
            Err(Error::Corrupt { .. }) => bad += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(bad, 1);
    assert!(all_of(&opened(&shop.path("disk.raw"))) == shop.bytes);
}
