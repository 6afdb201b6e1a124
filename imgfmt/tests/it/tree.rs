//! The tree that a mount shows, over images, raw disks and broken ones.

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::{MemoryDisk, Slice, check_range};
use imgfmt::filesystem::files::{Content, Entry, FileSystem, NodeId, NodeKind};
use imgfmt::image::{FolderStore, PackStore};
use imgfmt::source::FileDisk;
use imgfmt::tree::{Tree, TreeOptions};
use imgfmt::{Disk, Error, Extent, ExtentKind};

use crate::capture::{open, options, run_capture};
use crate::conformance::Random;
use crate::files::sparse_file;
use crate::tools::{run, shell};
use crate::views::identity;

const MIB: u64 = 1 << 20;
/// A whole disk as a file of each format.
const VIEWS: [&str; 7] = ["disk.raw", "disk.vmdk", "disk-flat.vmdk", "disk.vhd", "disk.vhdx", "disk.vdi", "disk.qcow2"];
/// The partitions of [`make_disk`], in bytes.
const PARTS: [Range<u64>; 6] = [
    MIB..33 * MIB,
    33 * MIB..153 * MIB,
    153 * MIB..170 * MIB,
    170 * MIB..180 * MIB,
    180 * MIB..182 * MIB,
    182 * MIB..186 * MIB,
];

/// A disk with NTFS, btrfs, LUKS, nothing, swap and noise.
fn make_disk(folder: &Path) -> PathBuf {
    let image = folder.join("disk.img");
    sparse_file(&image, 188 * MIB);
    let mut table = "label: gpt\n".to_owned();
    for range in &PARTS {
        table += &format!("start={}, size={}\n", range.start / 512, (range.end - range.start) / 512);
    }
    std::fs::write(folder.join("table"), table).unwrap();
    shell(folder, "sfdisk -q disk.img < table");
    let part = |number: usize, make: &[&str]| {
        let path = folder.join("part");
        sparse_file(&path, PARTS[number].end - PARTS[number].start);
        let (program, args) = make.split_first().unwrap();
        run(program, args.iter().copied().chain([path.to_str().unwrap()]));
        let at = PARTS[number].start / 4096;
        shell(folder, &format!("dd if=part of=disk.img bs=4096 seek={at} conv=notrunc,sparse status=none; rm part"));
    };
    part(0, &["mkntfs", "-F", "-q"]);
    part(1, &["mkfs.btrfs", "-q"]);
    std::fs::write(folder.join("key"), "secret").unwrap();
    let key = folder.join("key").to_str().unwrap().to_owned();
    part(
        2,
        &[
            "cryptsetup",
            "luksFormat",
            "-q",
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
            "--key-file",
            &key,
        ],
    );
    part(4, &["mkswap", "-q"]);
    let mut noise = vec![0; 4 << 20];
    Random::new(6).fill(&mut noise);
    use std::os::unix::fs::FileExt;
    std::fs::File::options().write(true).open(&image).unwrap().write_all_at(&noise, PARTS[5].start).unwrap();
    image
}

fn list(tree: &Tree, folder: NodeId) -> Vec<Entry> {
    let mut entries = Vec::new();
    tree.list(folder, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })
    .unwrap();
    entries
}

fn names(tree: &Tree, folder: NodeId) -> Vec<String> {
    list(tree, folder).into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
}

fn at(tree: &Tree, path: &str) -> NodeId {
    path.split('/').filter(|name| !name.is_empty()).fold(tree.root(), |folder, name| {
        tree.lookup(folder, name.as_bytes()).unwrap().unwrap_or_else(|| panic!("{name} of {path} is not there")).node
    })
}

fn read(content: &dyn Content) -> Vec<u8> {
    let mut bytes = vec![0; content.len() as usize];
    content.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(read(&*tree.open(at(tree, path), None).unwrap())).unwrap()
}

/// Walks everything; what is listed must be found by name, be of the kind that was told, and have a number of its own.
fn walk(tree: &Tree) -> BTreeMap<String, NodeId> {
    let mut found = BTreeMap::new();
    let mut numbers: HashMap<NodeId, String> = HashMap::new();
    let mut rest = vec![(String::new(), tree.root())];
    while let Some((path, folder)) = rest.pop() {
        assert_eq!(tree.attributes(folder).unwrap().kind, NodeKind::Folder);
        for entry in list(tree, folder) {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let path = format!("{path}/{name}");
            let looked_up = tree.lookup(folder, &entry.name).unwrap().unwrap();
            assert_eq!((looked_up.node, &looked_up.name), (entry.node, &entry.name), "{path}");
            let attributes = tree.attributes(entry.node).unwrap();
            assert!(entry.kind.is_none_or(|kind| kind == attributes.kind), "{path}");
            if attributes.links == 1 {
                assert_eq!(numbers.insert(entry.node, path.clone()), None, "{path} has the number of another node");
            }
            match attributes.kind {
                NodeKind::Folder => rest.push((path.clone(), entry.node)),
                NodeKind::Symlink => {
                    assert_eq!(tree.link_target(entry.node).unwrap().len() as u64, attributes.len);
                }
                NodeKind::File => assert_eq!(tree.open(entry.node, None).unwrap().len(), attributes.len),
                _ => {}
            }
            found.insert(path, entry.node);
        }
        assert!(tree.lookup(folder, b"no such name").unwrap().is_none());
    }
    found
}

#[test]
fn an_image_shows_its_generations_with_their_disks_and_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let image = make_disk(folder.path());
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap());
    let options = options(16, 1 << 30, imgfmt::image::codec::Compression::Zstd(1));
    for _ in 0..2 {
        run_capture(FileDisk::open(&image, 512).unwrap(), &store, &options);
        shell(folder.path(), "printf changed | dd of=disk.img bs=1 seek=$((184 << 20)) conv=notrunc status=none");
    }
    let image = open(&store);
    // Caches that hold next to nothing: every number must still lead where it led.
    for options in [TreeOptions::default(), TreeOptions { generations: 1, filesystems: 1 }] {
        let tree = Tree::of_image(Arc::clone(&image), &options);
        assert_eq!(tree.root(), NodeId(1));
        let top = names(&tree, tree.root());
        let folders: Vec<String> =
            (1..=2).map(|number| image.generation(number).unwrap().record().folder_name()).collect();
        assert_eq!(top, [folders[0].as_str(), &folders[1], "latest"]);
        assert_eq!(tree.link_target(at(&tree, "latest")).unwrap(), folders[1].as_bytes());
        assert_eq!(tree.generation(2).unwrap(), at(&tree, &folders[1]));
        assert!(matches!(tree.generation(3), Err(Error::NotFound(_))));
        let found = walk(&tree);
        for (number, folder) in (1..).zip(&folders) {
            let disk = image.generation(number).unwrap();
            let mut model = vec![0; disk.len() as usize];
            disk.read_at(&mut model, 0).unwrap();
            let open = |name: &str| tree.open(at(&tree, &format!("{folder}/{name}")), None).unwrap();
            assert!(read(&*open("disk.raw")) == model);
            for (n, range) in PARTS.iter().enumerate() {
                let raw = open(&format!("p{}.raw", n + 1));
                assert!(read(&*raw) == model[range.start as usize..range.end as usize], "p{}.raw", n + 1);
            }
            let text = |part: &str| text(&tree, &format!("{folder}/{part}/README.txt"));
            assert!(text("p2").contains("btrfs") && text("p2").contains("mount -t btrfs -o loop,ro p2.raw DIR"));
            assert!(text("p3").contains("LUKS") && text("p3").contains("cryptsetup open --readonly"));
            assert!(text("p4").contains("is zero or was not in use"), "{}", text("p4"));
            assert!(text("p5").contains("Linux swap"));
            assert!(text("p6").contains("not recognised"));
        }
        // The same numbers on the second walk.
        assert_eq!(walk(&tree), found);
        let numbers =
            [NodeId(0), NodeId(3), NodeId(77 << 46 | 1), NodeId(u64::MAX), NodeId(at(&tree, &folders[0]).0 + 7)];
        for number in numbers {
            assert!(matches!(tree.attributes(number), Err(Error::NotFound(_))), "{number:?}");
            assert!(tree.list(number, &mut |_| ControlFlow::Continue(())).is_err());
            assert!(tree.open(number, None).is_err());
        }
    }
}

#[test]
fn any_other_disk_is_shown_without_generations() {
    let folder = tempfile::tempdir().unwrap();
    let image = make_disk(folder.path());
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&image, 512).unwrap());
    let tree = Tree::of_disk(Arc::clone(&disk), &identity(), &TreeOptions::default());
    let all = ["p1", "p1.raw", "p2", "p2.raw", "p3", "p3.raw", "p4", "p4.raw", "p5", "p5.raw", "p6", "p6.raw"];
    assert_eq!(names(&tree, tree.root()), [&VIEWS[..], &all].concat());
    assert_eq!(tree.attributes(tree.root()).unwrap().modified.unwrap().seconds, 1_794_735_000);
    walk(&tree);
    // One partition by itself, which has no table.
    let part = Slice::open(disk, PARTS[1].clone()).unwrap();
    let tree = Tree::of_disk(Arc::new(part), &identity(), &TreeOptions::default());
    let with_table: Vec<String> = VIEWS.iter().map(|name| name.replace("disk", "with-table")).collect();
    let with_table: Vec<&str> = with_table.iter().map(String::as_str).collect();
    assert_eq!(names(&tree, tree.root()), [&VIEWS[..], &with_table, &["README.txt", "p1", "p1.raw"]].concat());
    assert!(text(&tree, "README.txt").contains("with-table.raw"));
    assert!(text(&tree, "p1/README.txt").contains("btrfs"));
    // Nothing at all.
    let tree = Tree::of_disk(Arc::new(MemoryDisk::new(Vec::new())), &identity(), &TreeOptions::default());
    assert_eq!(names(&tree, tree.root()), ["disk.raw", "README.txt", "p1", "p1.raw"]);
    assert!(text(&tree, "p1/README.txt").contains("Nothing lies here"));
    assert!(text(&tree, "README.txt").contains("There is no disk.vdi: the disk has no byte."));
}

/// A disk of which a part cannot be read.
struct Broken(Arc<dyn Disk>, Range<u64>);

impl Disk for Broken {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        let end = check_range(offset, buf.len() as u64, self.len())?;
        if offset < self.1.end && end > self.1.start {
            return Err(Error::corrupt("a chunk", offset, "a test broke it"));
        }
        self.0.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
        self.0.extent_at(offset)
    }
}

#[test]
fn damage_is_an_error_where_it_lies_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let image = make_disk(folder.path());
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&image, 512).unwrap());
    // The start of partition 2.
    let broken = Arc::new(Broken(Arc::clone(&disk), PARTS[1].start..PARTS[1].start + 65536));
    let tree = Tree::of_disk(broken, &identity(), &TreeOptions::default());
    assert_eq!(names(&tree, tree.root()).len(), 12 + VIEWS.len());
    let part = at(&tree, "p2");
    assert!(matches!(tree.attributes(part), Err(Error::Corrupt { .. })));
    assert!(matches!(tree.list(part, &mut |_| ControlFlow::Continue(())), Err(Error::Corrupt { .. })));
    assert!(matches!(tree.lookup(part, b"README.txt"), Err(Error::Corrupt { .. })));
    assert!(text(&tree, "p3/README.txt").contains("LUKS"));
    let raw = tree.open(at(&tree, "p2.raw"), None).unwrap();
    assert!(matches!(raw.read_at(&mut [0; 10], 65530), Err(Error::Corrupt { .. })));
    raw.read_at(&mut [0; 10], 65536).unwrap();
    // The table itself.
    let tree = Tree::of_disk(Arc::new(Broken(disk, 0..512)), &identity(), &TreeOptions::default());
    assert_eq!(names(&tree, tree.root()), [&VIEWS[..], &["README.txt"]].concat());
    assert!(text(&tree, "README.txt").contains("a test broke it"));
    let raw = tree.open(at(&tree, "disk.raw"), None).unwrap();
    raw.read_at(&mut [0; 512], 512).unwrap();
    assert_eq!(raw.extent_at(0).unwrap().kind, ExtentKind::Data);
}
