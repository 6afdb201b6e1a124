//! What Windows answers about disks and volumes, taken apart. No call of the system is here, so it is tested everywhere.
//!
//! Source: the structures of winioctl.h and ntddstor.h in the Windows documentation, in their layout for 64 bits; a field that lies outside of an answer is not there.

use crate::bytes::{le32, le64};

/// A run of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskRun {
    /// Number of the disk.
    pub(crate) disk: u32,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

impl DiskRun {
    /// Says whether two runs have bytes in common.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.disk == other.disk
            && self.start < other.start.saturating_add(other.len)
            && other.start < self.start.saturating_add(self.len)
    }
}

/// Most runs and partitions that are taken from an answer.
const MAX_ENTRIES: usize = 4096;

/// `VOLUME_DISK_EXTENTS`: where a volume lies. A volume over several disks has several runs.
pub(crate) fn disk_runs(reply: &[u8]) -> Vec<DiskRun> {
    let count = le32(reply, 0).and_then(|count| usize::try_from(count).ok()).unwrap_or(0).min(MAX_ENTRIES);
    let entries = reply.get(8..).unwrap_or_default().chunks_exact(24).take(count);
    entries
        .filter_map(|entry| Some(DiskRun { disk: le32(entry, 0)?, start: le64(entry, 8)?, len: le64(entry, 16)? }))
        .collect()
}

/// A partition as Windows counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The number that Windows gives it, which need not be its place in the table.
    pub(crate) number: u32,
    /// First byte on the disk.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// `DRIVE_LAYOUT_INFORMATION_EX`: the partitions of a disk. Empty entries, and the extended partitions around logical ones, have no number.
pub(crate) fn partitions(reply: &[u8]) -> Vec<Part> {
    let count = le32(reply, 4).and_then(|count| usize::try_from(count).ok()).unwrap_or(0).min(MAX_ENTRIES);
    let entries = reply.get(48..).unwrap_or_default().chunks_exact(144).take(count);
    entries
        .filter_map(|entry| Some(Part { number: le32(entry, 24)?, start: le64(entry, 8)?, len: le64(entry, 16)? }))
        .filter(|part| part.number != 0 && part.len != 0)
        .collect()
}

/// `DISK_GEOMETRY_EX`: bytes of a sector, and of the disk.
pub(crate) fn geometry(reply: &[u8]) -> Option<(u32, u64)> {
    Some((le32(reply, 20)?, le64(reply, 24)?))
}

/// `STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR`: bytes of a logical and of a physical sector.
pub(crate) fn sectors(reply: &[u8]) -> Option<(u32, u32)> {
    let size = |at| le32(reply, at).filter(|size| size.is_power_of_two());
    Some((size(16)?, size(20)?))
}

/// What `STORAGE_DEVICE_DESCRIPTOR` says of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// Maker and model.
    pub(crate) model: Option<String>,
    /// Serial number.
    pub(crate) serial: Option<String>,
    /// How it is attached, in the words that are used on other systems.
    pub(crate) bus: Option<&'static str>,
    /// Whether its medium can be taken out.
    pub(crate) removable: bool,
}

/// `STORAGE_DEVICE_DESCRIPTOR`.
pub(crate) fn device(reply: &[u8]) -> Device {
    let text = |field| {
        // An offset of 0, and in old drivers of -1, means that there is none.
        let at = usize::try_from(le32(reply, field)?).ok().filter(|at| *at != 0)?;
        let bytes = reply.get(at..)?.split(|byte| *byte == 0).next()?;
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let words: Vec<_> = [text(12), text(16)].into_iter().flatten().collect();
    Device {
        model: (!words.is_empty()).then(|| words.join(" ")),
        serial: text(24).map(|serial| plain_serial(&serial)),
        bus: le32(reply, 28).and_then(bus),
        removable: reply.get(10).is_some_and(|removable| *removable != 0),
    }
}

/// Some ATA drivers give the serial number as hexadecimal digits of its characters, each pair of them swapped.
///
/// Source: the remarks at `Win32_DiskDrive.SerialNumber` and `STORAGE_DEVICE_DESCRIPTOR`; what does not look like that is taken as it is.
fn plain_serial(serial: &str) -> String {
    let decoded = || {
        if serial.len() != 40 {
            return None;
        }
        let mut bytes = Vec::new();
        for at in (0..serial.len()).step_by(2) {
            bytes.push(u8::from_str_radix(serial.get(at..at.checked_add(2)?)?, 16).ok()?);
        }
        bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        let text = String::from_utf8(bytes).ok()?;
        let text = text.trim();
        (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')).then(|| text.to_owned())
    };
    decoded().unwrap_or_else(|| serial.to_owned())
}

/// `STORAGE_BUS_TYPE`.
fn bus(number: u32) -> Option<&'static str> {
    Some(match number {
        1 | 8 => "scsi",
        3 | 11 => "ata",
        4 => "firewire",
        6 => "fc",
        7 => "usb",
        9 => "iscsi",
        10 => "sas",
        12 | 13 => "mmc",
        14 | 15 => "virtual",
        16 => "storage space",
        17 => "nvme",
        _ => return None,
    })
}

/// Texts in UTF-16, each with a zero behind it, up to an empty one.
pub(crate) fn texts(units: &[u16]) -> Vec<String> {
    units.split(|unit| *unit == 0).take_while(|text| !text.is_empty()).map(String::from_utf16_lossy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(reply: &mut [u8], at: usize, bytes: &[u8]) {
        reply[at..at + bytes.len()].copy_from_slice(bytes);
    }

    #[test]
    fn a_volume_over_two_disks() {
        let mut reply = vec![0; 56];
        put(&mut reply, 0, &2_u32.to_le_bytes());
        put(&mut reply, 8, &1_u32.to_le_bytes());
        put(&mut reply, 16, &(1_u64 << 20).to_le_bytes());
        put(&mut reply, 24, &(5_u64 << 30).to_le_bytes());
        put(&mut reply, 32, &3_u32.to_le_bytes());
        put(&mut reply, 48, &4096_u64.to_le_bytes());
        let runs = disk_runs(&reply);
        let run = |disk, start, len| DiskRun { disk, start, len };
        assert_eq!(runs, [run(1, 1 << 20, 5 << 30), run(3, 0, 4096)]);
        assert!(runs[0].meets(&run(1, 0, u64::MAX)) && runs[0].meets(&run(1, (1 << 20) + 7, 1)));
        assert!(!runs[0].meets(&run(1, 0, 1 << 20)) && !runs[0].meets(&run(2, 0, u64::MAX)));
        // A count beyond the answer, and an answer cut short.
        put(&mut reply, 0, &u32::MAX.to_le_bytes());
        assert_eq!(disk_runs(&reply).len(), 2);
        assert_eq!(disk_runs(&reply[..40]).len(), 1);
        assert_eq!(disk_runs(&[]), []);
    }

    #[test]
    fn empty_and_extended_entries_are_no_partitions() {
        let mut reply = vec![0; 48 + 3 * 144];
        put(&mut reply, 4, &3_u32.to_le_bytes());
        for (entry, number, start, len) in
            [(0, 1_u32, 1_u64 << 20, 64_u64 << 20), (1, 0, 65 << 20, 9 << 20), (2, 2, 66 << 20, 8 << 20)]
        {
            let at = 48 + entry * 144;
            put(&mut reply, at + 8, &start.to_le_bytes());
            put(&mut reply, at + 16, &len.to_le_bytes());
            put(&mut reply, at + 24, &number.to_le_bytes());
        }
        let part = |number, start, len| Part { number, start, len };
        assert_eq!(partitions(&reply), [part(1, 1 << 20, 64 << 20), part(2, 66 << 20, 8 << 20)]);
        assert_eq!(partitions(&reply[..100]), []);
    }

    #[test]
    fn what_a_disk_says_of_itself() {
        let mut reply = vec![0; 100];
        reply[10] = 1;
        put(&mut reply, 12, &40_u32.to_le_bytes());
        put(&mut reply, 16, &50_u32.to_le_bytes());
        put(&mut reply, 24, &70_u32.to_le_bytes());
        put(&mut reply, 28, &7_u32.to_le_bytes());
        put(&mut reply, 40, b"Reserve \0");
        put(&mut reply, 50, b"Stick 9000\0");
        put(&mut reply, 70, b"  HK-1\0");
        let said = Device {
            model: Some("Reserve Stick 9000".into()),
            serial: Some("HK-1".into()),
            bus: Some("usb"),
            removable: true,
        };
        assert_eq!(device(&reply), said);
        put(&mut reply, 24, &u32::MAX.to_le_bytes());
        put(&mut reply, 16, &0_u32.to_le_bytes());
        assert_eq!(device(&reply), Device { model: Some("Reserve".into()), serial: None, ..said });
        assert_eq!(device(&[]), Device::default());
    }

    #[test]
    fn swapped_hexadecimal_serial_numbers_become_text() {
        let text = "WD-WCC4N1234567     ";
        let swapped: String = text.as_bytes().chunks(2).map(|pair| format!("{:02x}{:02x}", pair[1], pair[0])).collect();
        assert_eq!(plain_serial(&swapped), "WD-WCC4N1234567");
        for kept in ["0123456789abcdef0123456789abcdef01234567", "HK-1", "4F4B"] {
            assert_eq!(plain_serial(kept), kept);
        }
    }

    #[test]
    fn sizes_and_lists() {
        let mut reply = vec![0; 32];
        put(&mut reply, 20, &512_u32.to_le_bytes());
        put(&mut reply, 24, &(1_u64 << 40).to_le_bytes());
        assert_eq!(geometry(&reply), Some((512, 1 << 40)));
        assert_eq!(geometry(&reply[..31]), None);
        put(&mut reply, 16, &512_u32.to_le_bytes());
        put(&mut reply, 20, &4096_u32.to_le_bytes());
        assert_eq!(sectors(&reply), Some((512, 4096)));
        put(&mut reply, 20, &0_u32.to_le_bytes());
        assert_eq!(sectors(&reply), None);
        let units: Vec<u16> = "C:\\\0E:\\\0\0junk".encode_utf16().collect();
        assert_eq!(texts(&units), ["C:\\", "E:\\"]);
        assert_eq!(texts(&[]), Vec::<String>::new());
    }
}
