//! The up-case table: how a volume compares names.

use crate::error::Result;
use crate::filesystem::exfat::directory::{Item, table_checksum};
use crate::filesystem::exfat::volume::Volume;
use crate::filesystem::utf16;
use std::ops::ControlFlow;

/// Bytes of the longest table that is read: two for each of 65536 units.
pub const MAX_LEN: u64 = 2 * 65536;

/// The upper case of each UTF-16 unit.
#[derive(Clone, Debug)]
pub enum Upcase {
    /// As the volume says; units behind its end are their own.
    Table(Vec<u16>),
    /// That of Unicode: the volume has no table that is undamaged.
    Unicode,
}

impl Upcase {
    /// Reads the table of a volume.
    pub fn read(volume: &Volume) -> Result<Self> {
        let mut table = None;
        volume.scan(volume.root(), &mut |_, item| match item {
            Item::Upcase { checksum, data } => {
                table = Some((checksum, data));
                Ok(ControlFlow::Break(()))
            }
            _ => Ok(ControlFlow::Continue(())),
        })?;
        let Some((checksum, data)) = table.filter(|(_, data)| data.len <= MAX_LEN) else { return Ok(Self::Unicode) };
        let mut bytes = Vec::new();
        volume.read_pieces(data, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(if table_checksum(0, &bytes) == checksum { Self::Table(unpack(&bytes)) } else { Self::Unicode })
    }

    /// The name as it is compared.
    pub fn upper_case(&self, units: &[u16]) -> Vec<u16> {
        match self {
            Self::Unicode => utf16::simple_upper_case(units),
            Self::Table(table) => {
                units.iter().map(|unit| table.get(usize::from(*unit)).copied().unwrap_or(*unit)).collect()
            }
        }
    }
}

/// Undoes the compression of a table: 0xffff stands for as many units as the next one says, each its own upper case.
///
/// Source: exFAT specification 7.2.5.
fn unpack(bytes: &[u8]) -> Vec<u16> {
    let mut table: Vec<u16> = Vec::new();
    let mut units = utf16::units(bytes).into_iter();
    while let Some(unit) = units.next() {
        let Ok(at) = u16::try_from(table.len()) else { break };
        match unit {
            0xffff => {
                let Some(count) = units.next() else { break };
                table.extend(at..=at.saturating_add(count.saturating_sub(1)));
                if count == 0 {
                    table.pop();
                }
            }
            unit => table.push(unit),
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(units: &[u16]) -> Vec<u8> {
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    }

    #[test]
    fn runs_of_units_that_are_their_own_are_put_in() {
        let table = unpack(&packed(&[0xffff, 3, 100, 0xffff, 2, 0xffff, 0, 200]));
        assert_eq!(table, [0, 1, 2, 100, 4, 5, 200]);
        let upcase = Upcase::Table(table);
        assert_eq!(upcase.upper_case(&[3, 4, 6, 7, 0xffff]), [100, 4, 200, 7, 0xffff]);
    }

    #[test]
    fn a_table_never_outgrows_the_units_there_are() {
        let table = unpack(&packed(&[0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 1]));
        assert!(table.len() <= 65536);
        assert!(table.iter().enumerate().all(|(at, unit)| at == usize::from(*unit)));
    }
}
