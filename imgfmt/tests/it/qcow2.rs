//! qcow2 files made by qemu-img and qemu-io.

use std::os::unix::fs::FileExt;
use std::path::Path;

use imgfmt::format::{OpenOptions, open};
use imgfmt::{Disk, Error, ExtentKind};

use crate::conformance::disk_suite;
use crate::image_files::{Workshop, all_of, mapped_data, opened};
use crate::qemu::{qemu_reads, random_writes, same_as_qemu};
use crate::tools::shell;

const MIB: u64 = 1 << 20;

#[test]
fn every_variant_reads_as_the_disk_it_was_made_of() {
    let shop = Workshop::new(6 * MIB + 512 * 13, 1);
    for (number, options) in [
        "",
        "-o compat=0.10",
        "-o compat=0.10,cluster_size=512",
        "-o cluster_size=4k",
        "-o cluster_size=2M",
        "-c",
        "-c -o compat=0.10",
        "-c -o cluster_size=512",
        "-c -o cluster_size=2M",
        "-c -o compression_type=zstd",
        "-c -o compression_type=zstd,cluster_size=4k",
        "-c -o compression_type=zstd,cluster_size=2M",
        "-o extended_l2=on",
        "-o extended_l2=on,cluster_size=16k",
        "-c -o extended_l2=on,cluster_size=128k",
        "-o lazy_refcounts=on,refcount_bits=1",
        "-o refcount_bits=64",
        "-o preallocation=metadata",
        "-o preallocation=full",
        "-S 0",
        "-o data_file=data.bin",
        "-o data_file=data-raw.bin,data_file_raw=on",
        "-o data_file=data-ext.bin,extended_l2=on",
    ]
    .into_iter()
    .enumerate()
    {
        let image = shop.converted(&format!("{number}.qcow2"), &format!("{options} -O qcow2"));
        if !["preallocation", "-S 0", "=2M"].iter().any(|word| options.contains(word)) {
            assert!(mapped_data(&opened(&image)) < shop.bytes.len() as u64, "holes are not Data");
        }
    }
}

#[test]
fn sizes_from_nothing_to_terabytes_are_read() {
    for len in [0, 512, 1024, 65536 - 512, 65536 + 512, MIB] {
        let shop = Workshop::new(len, len);
        let image = shop.path("d.qcow2");
        shop.qemu_img("convert -f raw -O qcow2 disk.raw d.qcow2");
        assert!(all_of(&opened(&image)) == shop.bytes);
    }
    let shop = Workshop::new(512, 1);
    for (number, options) in
        ["2T", "8T -o cluster_size=2M", "64T -o cluster_size=2M,extended_l2=on"].into_iter().enumerate()
    {
        let name = format!("{number}.qcow2");
        shop.qemu_img(&format!("create -f qcow2 {name} {options}"));
        let end = opened(&shop.path(&name)).len();
        shell(
            shop.folder.path(),
            &format!(
                "qemu-io {name} -c 'write -P 7 {} 4k' -c 'write -P 9 1T 64k' -c 'write -z 3G 1M' > /dev/null",
                end - 4096
            ),
        );
        let disk = opened(&shop.path(&name));
        assert_eq!(mapped_data(&disk) / MIB, 0);
        for (at, byte) in
            [(end - 4096, 7), (end - 1, 7), (1 << 40, 9), ((1 << 40) + 65535, 9), (3 << 30, 0), ((1 << 40) - 1, 0)]
        {
            let mut buf = [0xcc];
            disk.read_at(&mut buf, at).unwrap();
            assert_eq!(buf, [byte], "at {at}");
        }
    }
}

#[test]
fn what_a_guest_writes_is_read() {
    let len = 5 * MIB + 1024;
    let shop = Workshop::new(512, 1);
    for (number, options) in [
        "",
        "-o compat=0.10",
        "-o cluster_size=4k",
        "-o extended_l2=on",
        "-o extended_l2=on,cluster_size=16k",
        "-o compression_type=zstd",
        "-o data_file=w-data.bin",
        "-o data_file=w-data2.bin,extended_l2=on",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}.qcow2");
        shop.qemu_img(&format!("create -f qcow2 {options} {name} {len}"));
        let mut kinds = vec!["write", "write", "write -z", "write -z -u", "discard"];
        if options.is_empty() || options.contains("zstd") {
            kinds.push("write -c");
        }
        let image = format!("--image-opts driver=qcow2,discard=unmap,file.filename={name}");
        random_writes(shop.folder.path(), &image, len, 120, number as u64, &kinds);
        let model = same_as_qemu(&shop.path(&name), "");
        assert!(model.iter().any(|byte| *byte != 0));
    }
}

/// A base of odd length, an overlay that is longer, one that is shorter, one with subclusters: each with writes of its own.
fn chain(shop: &Workshop) {
    shop.qemu_img("create -f qcow2 -b disk.raw -F raw one.qcow2 5M");
    random_writes(shop.folder.path(), "one.qcow2", 5 * MIB, 30, 1, &["write", "write -z"]);
    shop.qemu_img("create -f qcow2 -o cluster_size=4k -b one.qcow2 -F qcow2 two.qcow2 2M");
    random_writes(shop.folder.path(), "two.qcow2", 2 * MIB, 30, 2, &["write", "write -z", "write -z -u"]);
    shop.qemu_img("create -f qcow2 -o extended_l2=on -b two.qcow2 -F qcow2 three.qcow2 7M");
    random_writes(shop.folder.path(), "three.qcow2", 7 * MIB, 30, 3, &["write", "write -z"]);
}

#[test]
fn a_chain_is_read_to_its_end() {
    let shop = Workshop::new(3 * MIB + 1000, 5);
    chain(&shop);
    for name in ["one.qcow2", "two.qcow2", "three.qcow2"] {
        same_as_qemu(&shop.path(name), "");
    }
    let image = opened(&shop.path("three.qcow2"));
    let formats: Vec<_> = image.about().chain().map(|about| about.format.name()).collect();
    assert_eq!(formats, ["qcow2", "qcow2", "qcow2", "raw"]);
}

#[test]
fn without_its_base_a_layer_is_absent_where_it_is_silent() {
    let shop = Workshop::new(MIB, 5);
    shop.qemu_img("create -f qcow2 -b disk.raw -F raw top.qcow2");
    shell(
        shop.folder.path(),
        "qemu-io top.qcow2 -c 'write -P 3 128k 64k' -c 'write -z 256k 64k' > /dev/null; rm disk.raw",
    );
    assert!(matches!(open(&shop.path("top.qcow2"), &OpenOptions::default()), Err(Error::NotFound(_))));
    let layer = open(&shop.path("top.qcow2"), &OpenOptions { without_base: true, ..OpenOptions::default() }).unwrap();
    let kinds: Vec<_> = [0, 128, 192, 256, 320].map(|k| layer.extent_at(k * 1024).unwrap().kind).into();
    use ExtentKind::{Absent, Data, Zero};
    assert_eq!(kinds, [Absent, Data, Absent, Zero, Absent]);
}

#[test]
fn snapshots_are_listed_and_opened_by_identifier_and_name() {
    for options in ["", "-o compat=0.10", "-o extended_l2=on"] {
        let shop = Workshop::new(3 * MIB, 5);
        shop.qemu_img(&format!("convert -f raw -O qcow2 {options} disk.raw d.qcow2"));
        let image = shop.path("d.qcow2");
        for (seed, name) in ["before the update", "after"].into_iter().enumerate() {
            shop.qemu_img(&format!("snapshot -c '{name}' d.qcow2"));
            random_writes(shop.folder.path(), "d.qcow2", 3 * MIB, 20, seed as u64, &["write", "write -z"]);
        }
        if options.is_empty() {
            // A snapshot keeps the length that the disk had.
            shop.qemu_img("resize d.qcow2 4M");
        }
        let now = same_as_qemu(&image, "");
        let listed = opened(&image).snapshots().to_vec();
        let names: Vec<_> = listed.iter().map(|s| (s.id.as_str(), s.name.as_str(), s.len)).collect();
        assert_eq!(names, [("1", "before the update", 3 * MIB), ("2", "after", 3 * MIB)]);
        let mut seen = vec![now];
        for snapshot in listed {
            for wanted in [&snapshot.id, &snapshot.name] {
                let options = OpenOptions { snapshot: Some(wanted.clone()), ..OpenOptions::default() };
                let mut model = qemu_reads(&image, &format!("-l '{}'", snapshot.name));
                // qemu-img pads a snapshot to the current length.
                assert!(model.split_off(3 * MIB as usize).iter().all(|byte| *byte == 0));
                disk_suite(&open(&image, &options).unwrap(), &model, 3);
                seen.push(model);
            }
        }
        assert!(seen[1] == shop.bytes);
        assert!(seen[3] != seen[1] && seen[3] != seen[0]);
        let missing = OpenOptions { snapshot: Some("never".into()), ..OpenOptions::default() };
        assert!(matches!(open(&image, &missing), Err(Error::NotFound(_))));
    }
}

#[test]
fn an_image_of_a_killed_machine_is_read_with_a_note() {
    let shop = Workshop::new(512, 5);
    shop.qemu_img("create -f qcow2 -o lazy_refcounts=on d.qcow2 2M");
    // `abort` dies without closing the image.
    shell(shop.folder.path(), "! qemu-io d.qcow2 -c 'write -P 5 64k 200k' -c flush -c abort > /dev/null 2>&1");
    let image = shop.path("d.qcow2");
    let notes = opened(&image).about().notes.join("\n");
    assert!(notes.contains("not closed cleanly"), "{notes}");
    let ours = all_of(&opened(&image));
    // qemu-img opens it for reading too, but mends it only where it may write.
    std::fs::copy(&image, shop.path("mended.qcow2")).unwrap();
    shell(shop.folder.path(), "qemu-img check -r all mended.qcow2 > /dev/null");
    assert!(ours == qemu_reads(&shop.path("mended.qcow2"), ""));
    set_bytes(&image, 79, &[3]);
    let notes = opened(&image).about().notes.join("\n");
    assert!(notes.contains("corrupt"), "{notes}");
    assert!(all_of(&opened(&image)) == ours);
}

fn set_bytes(image: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// The message of the error with which an image is refused.
fn refusal(image: &Path) -> String {
    match open(image, &OpenOptions::default()) {
        Ok(_) => panic!("{} opens", image.display()),
        Err(error @ (Error::Unsupported { .. } | Error::Corrupt { .. })) => error.to_string(),
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn encryption_and_unknown_features_are_refused_by_name() {
    let shop = Workshop::new(MIB, 5);
    shop.qemu_img("create -f qcow2 d.qcow2 1M");
    let image = shop.path("d.qcow2");
    // Not by qemu-img: it measures how long a key takes, and gives up where the machine is too quick or too busy for that.
    set_bytes(&image, 35, &[2]);
    assert!(refusal(&image).contains("LUKS encryption"));
    set_bytes(&image, 35, &[1]);
    assert!(refusal(&image).contains("AES encryption"));
    set_bytes(&image, 35, &[0, 0]);
    set_bytes(&image, 35, &[7]);
    assert!(refusal(&image).contains("encryption method 7"));
    set_bytes(&image, 35, &[0]);
    opened(&image);
    set_bytes(&image, 72, &[0x80]);
    assert!(refusal(&image).contains("bit 63"));
    // QEMU writes a table of names: bit 2 is in it, but is known; another name is put at bit 9.
    set_bytes(&image, 72, &[0, 0, 0, 0, 0, 0, 2, 0]);
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(9).position(|window| window == b"dirty bit").unwrap();
    bytes[at - 1] = 9;
    std::fs::write(&image, &bytes).unwrap();
    assert!(refusal(&image).contains("\"dirty bit\" (bit 9)"));
    set_bytes(&image, 72, &[0; 8]);
    set_bytes(&image, 7, &[4]);
    assert!(refusal(&image).contains("version 4"));
    set_bytes(&image, 7, &[1]);
    assert!(refusal(&image).contains("qcow version 1"));
}

#[test]
fn clusters_outside_of_the_file_are_errors_and_never_zeros() {
    let shop = Workshop::new(2 * MIB, 5);
    let image = shop.converted("d.qcow2", "-O qcow2");
    let whole = std::fs::read(&image).unwrap();
    std::fs::write(&image, &whole[..whole.len() / 2]).unwrap();
    let disk = opened(&image);
    let mut buf = vec![0; MIB as usize];
    let results: Vec<_> = (0..2).map(|part| disk.read_at(&mut buf, part * MIB)).collect();
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|error| error.contains("points past the end of the file")), "{errors:?}");
}
