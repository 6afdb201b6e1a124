//! Partitions alone with a table made up around them, judged by programs that read tables and filesystems.

use std::path::Path;
use std::sync::Arc;

use imgfmt::disk::{MemoryDisk, Slice, read_vec};
use imgfmt::format::identity::Identity;
use imgfmt::overlay::{About, Overlay, Proof, digest_of};
use imgfmt::partition::{Layout, Scheme, read_layout};
use imgfmt::source::FileDisk;
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use imgfmt::view::table::{identity_of_partition, offers_of_disk, partition_with_table, with_table};
use imgfmt::view::writable::writable_offers;
use imgfmt::{Disk, Error, Extent, ExtentKind, WritableDisk};

use crate::conformance::{Random, disk_suite};
use crate::image_files::all_of;
use crate::tools::{run, shell};
use crate::views::identity;

const MIB: u64 = 1 << 20;

fn save(disk: &dyn Disk, path: &Path) {
    let cancel = imgfmt::engine::Cancel::default();
    let target = FileTarget::create(path, disk.len()).unwrap();
    copy(disk, &target, CopyOptions::default(), imgfmt::engine::quiet(&cancel)).unwrap();
    Box::new(target).finish().unwrap();
}

fn open(path: &Path) -> Arc<dyn Disk> {
    Arc::new(FileDisk::open(path, 512).unwrap())
}

/// The one partition, of a table without fault.
#[track_caller]
fn only(layout: &Layout, scheme: Scheme, len: u64) {
    assert_eq!((layout.scheme, &layout.problems), (scheme, &Vec::new()));
    let [partition] = &layout.partitions[..] else { panic!("{layout:?}") };
    assert_eq!((partition.number, partition.range.clone(), partition.unusable), (1, MIB..MIB + len, None));
}

#[test]
fn tools_find_the_filesystem_behind_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let script = "
        truncate -s 9217K ext4; mke2fs -q -t ext4 ext4
        truncate -s 40M fat32; mkfs.vfat -F 32 fat32 > /dev/null
        truncate -s 3M fat12; mkfs.vfat -F 12 fat12 > /dev/null
        truncate -s 7000K ntfs; mkntfs -qQF -s 512 -p 0 ntfs > /dev/null 2>&1
        truncate -s 5M swap; mkswap swap > /dev/null
        printf hello > hello; mcopy -i fat32 hello ::; mcopy -i fat12 hello ::
        truncate -s 20M image; cp --sparse=always fat32 sparse
    ";
    shell(folder, script);
    for (name, kind) in [("ext4", "83"), ("fat32", "c"), ("fat12", "1"), ("ntfs", "7"), ("swap", "82")] {
        let partition = open(&folder.join(name));
        let whole = with_table(Arc::clone(&partition), &identity()).unwrap();
        let mut model = vec![0; whole.len() as usize];
        model[MIB as usize..(MIB + partition.len()) as usize].copy_from_slice(&all_of(&partition));
        model[..512].copy_from_slice(&read_vec(&whole, 0, 512).unwrap());
        disk_suite(&whole, &model, 3);
        assert_eq!(whole.len() % MIB, 0);
        only(&read_layout(&whole).unwrap(), Scheme::Mbr, partition.len());
        save(&whole, &folder.join("whole"));
        let table: serde_json::Value =
            serde_json::from_slice(&run("sfdisk", ["-J".as_ref(), folder.join("whole").as_os_str()]).stdout).unwrap();
        let table = &table["partitiontable"];
        assert_eq!(table["label"], "dos");
        let entries = table["partitions"].as_array().unwrap();
        assert_eq!(
            (entries.len(), &entries[0]["start"], &entries[0]["type"]),
            (1, &2048.into(), &kind.into()),
            "{name}"
        );
        assert_eq!(entries[0]["size"], partition.len() / 512);
        shell(folder, "sfdisk --verify whole 2>&1 | grep -q 'No errors'");
        // What has a part of the disk has the same partition.
        let again = Slice::open(&whole, MIB..MIB + partition.len()).unwrap();
        assert!(all_of(&again) == all_of(&partition));
    }
    let judge = "
        e2fsck -fn 'whole?offset=1048576' > /dev/null 2>&1
    ";
    save(&with_table(open(&folder.join("ext4")), &identity()).unwrap(), &folder.join("whole"));
    shell(folder, judge);
    save(&with_table(open(&folder.join("fat32")), &identity()).unwrap(), &folder.join("whole"));
    shell(folder, "test $(mtype -i whole@@1M ::hello) = hello");
}

/// So many bytes without one that is not zero.
struct Zeros(u64, u32);

impl Disk for Zeros {
    fn len(&self) -> u64 {
        self.0
    }
    fn sector_size(&self) -> u32 {
        self.1
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        imgfmt::disk::check_range(offset, buf.len() as u64, self.0)?;
        buf.fill(0);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
        imgfmt::disk::check_range(offset, 1, self.0)?;
        Ok(Extent { offset, len: self.0 - offset, kind: ExtentKind::Zero })
    }
}

#[test]
fn what_an_mbr_cannot_count_gets_a_gpt() {
    let folder = tempfile::tempdir().unwrap();
    let most = (1_u64 << 32) - 2048 - 1;
    let cases = [
        (512, 512, Scheme::Mbr),
        (most * 512 / MIB * MIB, 512, Scheme::Mbr),
        (most * 512 + 512, 512, Scheme::Gpt),
        (3 << 40, 512, Scheme::Gpt),
        ((3 << 40) + 5 * 512, 512, Scheme::Gpt),
        (3 << 40, 4096, Scheme::Mbr),
        (20 << 40, 4096, Scheme::Gpt),
        (1 << 60, 512, Scheme::Gpt),
    ];
    for (len, sector, scheme) in cases {
        let whole = with_table(Arc::new(Zeros(len, sector)), &identity()).unwrap();
        only(&read_layout(&whole).unwrap(), scheme, len);
        if scheme == Scheme::Gpt && sector == 512 && len < 8 << 40 {
            let path = folder.path().join("whole");
            save(&whole, &path);
            let text = run("sgdisk", ["-v".as_ref(), path.as_os_str()]).stdout;
            assert!(String::from_utf8_lossy(&text).contains("No problems found"), "{len}");
        }
    }
    for len in [0, u64::MAX, u64::MAX / 2 + 1] {
        assert!(with_table(Arc::new(Zeros(len, 512)), &identity()).is_err(), "{len}");
    }
}

#[test]
fn the_same_partition_has_the_same_identifiers_and_another_one_others() {
    let bytes = |identity: &Identity| {
        let whole = with_table(Arc::new(Zeros(3 << 40, 512)), identity).unwrap();
        read_vec(&whole, 0, 34 * 512).unwrap()
    };
    let one = identity_of_partition(&identity(), 1);
    assert!(bytes(&one) == bytes(&one));
    assert!(bytes(&one) != bytes(&identity_of_partition(&identity(), 2)));
    let signature = |identity: &Identity| {
        let whole = with_table(Arc::new(Zeros(MIB, 512)), identity).unwrap();
        read_vec(&whole, 440, 4).unwrap()
    };
    assert_ne!(signature(&one), signature(&identity()));
    assert_ne!(signature(&one), [0; 4]);
}

#[test]
fn a_partition_of_a_disk_is_found_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let script = "truncate -s 100M disk
        printf 'label: dos\\nstart=2048,size=4096,type=83\\nstart=8192,size=2000,type=83\\nstart=16384,size=90000,type=83\\n' | sfdisk -q disk
        truncate -s 12M disk
        head -c 1024000 /dev/urandom | dd of=disk bs=512 seek=8192 conv=notrunc status=none";
    shell(folder.path(), script);
    let disk = open(&path);
    let whole = partition_with_table(&disk, 2, &identity()).unwrap();
    only(&read_layout(&whole).unwrap(), Scheme::Mbr, 2000 * 512);
    assert!(read_vec(&whole, MIB, 1000 * 1024).unwrap() == read_vec(&disk, 8192 * 512, 1000 * 1024).unwrap());
    assert!(matches!(partition_with_table(&disk, 9, &identity()), Err(Error::NotFound(_))));
    assert!(
        matches!(partition_with_table(&disk, 3, &identity()), Err(Error::Refused(why)) if why.contains("past the end"))
    );
}

#[test]
fn a_partition_alone_is_offered_in_both_ways_and_takes_writes_in_both() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, "truncate -s 6000K part; mke2fs -q -t ext4 part; truncate -s 4M blank");
    let base = open(&folder.join("part"));
    let names = |disk: &Arc<dyn Disk>| {
        offers_of_disk(disk, &identity()).into_iter().map(|offer| offer.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&open(&folder.join("blank"))).len(), 7);
    let all = names(&base);
    assert!(all.contains(&"disk.vhdx".to_owned()) && all.contains(&"with-table.vhdx".to_owned()), "{all:?}");
    let whole: Arc<dyn Disk> = Arc::new(with_table(Arc::clone(&base), &identity()).unwrap());
    assert_eq!(names(&whole).len(), 7, "what has a table needs none");
    let proof = Proof::Other { format: "raw".to_owned(), digest: digest_of(&base).unwrap() };
    let about = About { name: "base".into(), proof, modified: 0, disk_len: base.len(), sector_size: 512 };
    let mut model = all_of(&base);
    let mut random = Random::new(2);
    let mut first = Vec::new();
    for round in 0..2 {
        let overlay = Overlay::open_or_create(&folder.join("changes"), &about).unwrap();
        let views = writable_offers(&overlay, Arc::clone(&base), &identity()).unwrap();
        assert_eq!(views.iter().map(|offer| offer.name.clone()).collect::<Vec<_>>(), all);
        let view = |name: &str| {
            views.iter().find(|offer| offer.name == name).unwrap().view.as_ref().unwrap_or_else(|why| panic!("{why}"))
        };
        let (raw, whole, vdi) = (view("disk.raw"), view("with-table.raw"), view("with-table.vdi"));
        only(&read_layout(whole).unwrap(), Scheme::Mbr, base.len());
        for _ in 0..30 {
            let at = random.below(base.len() - 9000);
            let mut bytes = vec![0; 1 + random.below(9000) as usize];
            random.fill(&mut bytes);
            vdi.write_at(&bytes, 2 * MIB + at).unwrap();
            model[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        }
        assert!(all_of(raw) == model);
        assert!(read_vec(whole, MIB, model.len()).unwrap() == model);
        // Boot code that somebody installs is kept, and what lies behind the partition takes nothing.
        if round == 0 {
            whole.write_at(b"boot", 0).unwrap();
            assert!(matches!(whole.write_at(b"x", MIB + base.len()), Err(Error::Refused(_))));
            first = read_vec(whole, 0, 4096).unwrap();
        }
        assert!(read_vec(vdi, MIB, 4096).unwrap() == first && first.starts_with(b"boot"));
        overlay.flush().unwrap();
    }
    assert!(all_of(&base) != model);
}

#[test]
fn sectors_of_4096_bytes_stay_what_they_are() {
    let bytes = vec![7; 3 << 20];
    let whole = with_table(Arc::new(MemoryDisk::with_sector_size(bytes, 4096)), &identity()).unwrap();
    assert_eq!(whole.sector_size(), 4096);
    only(&read_layout(&whole).unwrap(), Scheme::Mbr, 3 << 20);
}
