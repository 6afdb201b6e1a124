//! Registry hives of Windows, for reading: keys, values, and where the bytes of a value lie in the file.
//!
//! Source: "Windows registry file format specification" (M. Suhanov), sections "Base block", "Hive bins" and "Cells"; winreg-kb, "Registry file format".
//!
//! # Not supported
//!
//! Transaction logs: a hive whose base block says that a write was under way is read as it lies there, and [`Hive::is_dirty`] says so.

use std::fmt::Debug;

use crate::bytes::{array, le16, le32, u8_at};
use crate::error::{Error, Result};
use crate::filesystem::files::Content;
use crate::filesystem::utf16;

/// Bytes of the base block; offsets of cells count from its end.
const BASE: u64 = 4096;
/// Most subkeys of a key, values of a key, and characters of a name that make sense.
const MAX_COUNT: u32 = 100_000;
/// Longest data of a value.
const MAX_DATA: u32 = 1 << 20;
/// Bytes of data in one segment of a big value.
const SEGMENT: usize = 16_344;
/// Data that is longer than this lies in segments, from version 1.4 on.
const BIG: u32 = 16_344;
/// Flag: the name of a key or value is in single bytes (Latin-1), not UTF-16.
const KEY_COMP_NAME: u16 = 0x20;
const VALUE_COMP_NAME: u16 = 1;
/// No cell.
const NIL: u32 = u32::MAX;

/// An opened hive.
#[derive(Debug)]
pub struct Hive {
    content: Box<dyn Content>,
    /// Bytes of the bins.
    bins_len: u64,
    root: u32,
    minor: u32,
    dirty: bool,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name. Untrusted text.
    pub name: String,
    subkeys: u32,
    subkey_list: u32,
    values: u32,
    value_list: u32,
}

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name; empty for the default value. Untrusted text.
    pub name: String,
    /// `REG_*` number.
    pub kind: u32,
    /// Its data.
    pub data: Vec<u8>,
    /// First byte of the data in the file, where it lies in one piece.
    pub place: Option<u64>,
}

fn corrupt(offset: u64, reason: &'static str) -> Error {
    Error::corrupt("registry hive", offset, reason)
}

/// The checksum of a base block: its first 127 words, joined by exclusive or; 0 and -1 do not occur.
pub fn checksum(base: &[u8]) -> u32 {
    let words = base.chunks_exact(4).take(127).map(|word| le32(word, 0).unwrap_or(0));
    match words.fold(0, |sum, word| sum ^ word) {
        0 => 1,
        u32::MAX => 0xffff_fffe,
        sum => sum,
    }
}

impl Hive {
    /// Opens a file as a hive.
    pub fn open(content: Box<dyn Content>) -> Result<Self> {
        if content.len() < BASE {
            return Err(corrupt(0, "it is shorter than a base block"));
        }
        let mut base = [0; 512];
        content.read_at(&mut base, 0)?;
        let field = |at| le32(&base, at).unwrap_or(0);
        if base.get(..4) != Some(b"regf") {
            return Err(corrupt(0, "it does not start with regf"));
        }
        let (major, minor) = (field(20), field(24));
        if major != 1 || !(2..=6).contains(&minor) || field(32) != 1 {
            return Err(Error::unsupported("registry hive", format!("version {major}.{minor}")));
        }
        let dirty = field(4) != field(8) || field(508) != checksum(&base);
        let bins_len = u64::from(field(40)).min(content.len().saturating_sub(BASE));
        Ok(Self { content, bins_len, root: field(36), minor, dirty })
    }

    /// Says whether its last write was not finished: its log would change it.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The root key.
    pub fn root(&self) -> Result<Key> {
        self.key(self.root)
    }

    /// The key that a path leads to from the root, without regard to case.
    pub fn find(&self, path: &[&str]) -> Result<Option<Key>> {
        let mut key = self.root()?;
        for name in path {
            let Some(next) = self.subkey(&key, name)? else { return Ok(None) };
            key = next;
        }
        Ok(Some(key))
    }

    /// A subkey by its name, without regard to case.
    pub fn subkey(&self, key: &Key, name: &str) -> Result<Option<Key>> {
        for cell in self.subkey_cells(key)? {
            let subkey = self.key(cell)?;
            if same_name(&subkey.name, name) {
                return Ok(Some(subkey));
            }
        }
        Ok(None)
    }

    /// The subkeys of a key, in their order.
    pub fn subkeys(&self, key: &Key) -> Result<Vec<Key>> {
        self.subkey_cells(key)?.into_iter().map(|cell| self.key(cell)).collect()
    }

    /// The values of a key, in their order.
    pub fn values(&self, key: &Key) -> Result<Vec<Value>> {
        if key.values == 0 || key.value_list == NIL {
            return Ok(Vec::new());
        }
        let list = self.cell(key.value_list, u64::from(key.values).saturating_mul(4))?;
        list.chunks_exact(4).map(|entry| self.value(le32(entry, 0).unwrap_or(NIL))).collect()
    }

    /// A value by its name, without regard to case.
    pub fn value_of(&self, key: &Key, name: &str) -> Result<Option<Value>> {
        Ok(self.values(key)?.into_iter().find(|value| same_name(&value.name, name)))
    }

    /// The first `len` bytes of a cell in use.
    fn cell(&self, offset: u32, len: u64) -> Result<Vec<u8>> {
        let at = self.cell_place(offset, len)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| corrupt(at, "a cell is too long"))?];
        self.content.read_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Where the content of a cell in use lies in the file, which has at least `len` bytes.
    fn cell_place(&self, offset: u32, len: u64) -> Result<u64> {
        let at = BASE.saturating_add(u64::from(offset));
        let end = BASE.saturating_add(self.bins_len);
        if offset == NIL || !offset.is_multiple_of(8) || at.saturating_add(4) > end {
            return Err(corrupt(at, "a reference leads to no cell"));
        }
        let mut size = [0; 4];
        self.content.read_at(&mut size, at)?;
        let size = i32::from_le_bytes(size);
        if size >= 0 {
            return Err(corrupt(at, "a reference leads to a free cell"));
        }
        let room = u64::from(size.unsigned_abs()).saturating_sub(4);
        let start = at.saturating_add(4);
        if room < len || start.saturating_add(room) > end {
            return Err(corrupt(at, "a cell is shorter than what it should hold, or leaves the hive"));
        }
        Ok(start)
    }

    fn key(&self, offset: u32) -> Result<Key> {
        let at = BASE.saturating_add(u64::from(offset));
        let head = self.cell(offset, 76)?;
        if head.get(..2) != Some(b"nk") {
            return Err(corrupt(at, "a key does not start with nk"));
        }
        let field = |at| le32(&head, at).unwrap_or(0);
        let name_len = le16(&head, 72).unwrap_or(0);
        let bytes = self.cell(offset, 76_u64.saturating_add(u64::from(name_len)))?;
        let ascii = le16(&head, 2).unwrap_or(0) & KEY_COMP_NAME != 0;
        let name = name(bytes.get(76..).unwrap_or_default(), ascii);
        let key = Key { name, subkeys: field(20), subkey_list: field(28), values: field(36), value_list: field(40) };
        if key.subkeys > MAX_COUNT || key.values > MAX_COUNT {
            return Err(corrupt(at, "a key has more subkeys or values than make sense"));
        }
        Ok(key)
    }

    /// The cells of a key's subkeys: a list, or a list of lists.
    fn subkey_cells(&self, key: &Key) -> Result<Vec<u32>> {
        if key.subkeys == 0 || key.subkey_list == NIL {
            return Ok(Vec::new());
        }
        let (kind, entries) = self.list(key.subkey_list)?;
        let mut cells = Vec::new();
        if kind == *b"ri" {
            for list in entries {
                let (kind, entries) = self.list(list)?;
                if kind == *b"ri" {
                    return Err(corrupt(BASE.saturating_add(list.into()), "a list of lists holds a list of lists"));
                }
                cells.extend(entries);
                if cells.len() > usize::try_from(MAX_COUNT).unwrap_or(usize::MAX) {
                    return Err(corrupt(BASE.saturating_add(list.into()), "a key has more subkeys than make sense"));
                }
            }
        } else {
            cells = entries;
        }
        Ok(cells)
    }

    /// The kind of a list of subkeys, and the cells in it.
    fn list(&self, offset: u32) -> Result<([u8; 2], Vec<u32>)> {
        let at = BASE.saturating_add(u64::from(offset));
        let head = self.cell(offset, 4)?;
        let kind: [u8; 2] = array(&head, 0).unwrap_or_default();
        let count = u64::from(le16(&head, 2).unwrap_or(0));
        let step = match &kind {
            b"lf" | b"lh" => 8,
            b"li" | b"ri" => 4,
            _ => return Err(corrupt(at, "a list of subkeys is of no known kind")),
        };
        let bytes = self.cell(offset, count.saturating_mul(step).saturating_add(4))?;
        let entries = bytes.get(4..).unwrap_or_default();
        let step = usize::try_from(step).unwrap_or(8);
        Ok((kind, entries.chunks_exact(step).map(|entry| le32(entry, 0).unwrap_or(NIL)).collect()))
    }

    fn value(&self, offset: u32) -> Result<Value> {
        let at = BASE.saturating_add(u64::from(offset));
        let head = self.cell(offset, 20)?;
        if head.get(..2) != Some(b"vk") {
            return Err(corrupt(at, "a value does not start with vk"));
        }
        let field = |at| le32(&head, at).unwrap_or(0);
        let name_len = u64::from(le16(&head, 2).unwrap_or(0));
        let bytes = self.cell(offset, name_len.saturating_add(20))?;
        let ascii = le16(&head, 16).unwrap_or(0) & VALUE_COMP_NAME != 0;
        let name = name(bytes.get(20..).unwrap_or_default(), ascii);
        let (size, data_offset) = (field(4), field(8));
        let len = size & 0x7fff_ffff;
        let (data, place) = if size & 0x8000_0000 != 0 {
            // Up to four bytes lie in the reference itself.
            let len = usize::try_from(len.min(4)).unwrap_or(4);
            let place = self.cell_place(offset, 20)?.saturating_add(8);
            (head.get(8..).and_then(|bytes| bytes.get(..len)).unwrap_or_default().to_vec(), Some(place))
        } else if len == 0 {
            (Vec::new(), None)
        } else if len > MAX_DATA {
            return Err(corrupt(at, "the data of a value is longer than makes sense"));
        } else if len > BIG && self.minor > 3 {
            (self.big_data(data_offset, len)?, None)
        } else {
            (self.cell(data_offset, len.into())?, Some(self.cell_place(data_offset, len.into())?))
        };
        Ok(Value { name, kind: field(12), data, place })
    }

    /// Data in segments.
    fn big_data(&self, offset: u32, len: u32) -> Result<Vec<u8>> {
        let at = BASE.saturating_add(u64::from(offset));
        let head = self.cell(offset, 8)?;
        if head.get(..2) != Some(b"db") {
            return Err(corrupt(at, "long data does not start with db"));
        }
        let count = u64::from(le16(&head, 2).unwrap_or(0));
        let list = self.cell(le32(&head, 4).unwrap_or(NIL), count.saturating_mul(4))?;
        let mut left = usize::try_from(len).unwrap_or(0);
        let mut data = Vec::with_capacity(left);
        for entry in list.chunks_exact(4) {
            let part = left.min(SEGMENT);
            data.extend(self.cell(le32(entry, 0).unwrap_or(NIL), u64::try_from(part).unwrap_or(0))?);
            left = left.saturating_sub(part);
        }
        if left > 0 {
            return Err(corrupt(at, "long data has too few segments"));
        }
        Ok(data)
    }
}

/// A name in single bytes or in UTF-16.
fn name(bytes: &[u8], ascii: bool) -> String {
    if ascii {
        bytes.iter().map(|byte| char::from(*byte)).collect()
    } else {
        String::from_utf16_lossy(&utf16::units(bytes))
    }
}

fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_uppercase() == b.to_uppercase()
}

/// A string value (`REG_SZ`) up to its end mark.
pub fn string(data: &[u8]) -> String {
    let units: Vec<u16> = utf16::units(data).into_iter().take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

/// The strings of a list (`REG_MULTI_SZ`).
pub fn strings(data: &[u8]) -> Vec<String> {
    let units = utf16::units(data);
    units.split(|unit| *unit == 0).filter(|part| !part.is_empty()).map(String::from_utf16_lossy).collect()
}

/// A number (`REG_DWORD`).
pub fn number(value: &Value) -> Option<u32> {
    if u8_at(&value.data, 3).is_some() { le32(&value.data, 0) } else { None }
}
