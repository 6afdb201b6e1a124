//! Named streams as files: `file:stream` can be opened though no folder lists it.
//!
//! A stream has no node of its own, so the names that were asked for get numbers here, with bit 63 set, which the tree never sets.

use std::collections::HashMap;
use std::sync::Mutex;

use imgfmt::Error;
use imgfmt::filesystem::files::NodeId;

/// The bit of a number that is one of a stream.
const STREAM: u64 = 1 << 63;
/// Streams that can have a number: some MiB of names.
const MAX_STREAMS: usize = 1 << 16;

/// A stream of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamName {
    pub(crate) node: NodeId,
    pub(crate) name: Vec<u8>,
}

/// Numbers of streams, for as long as the mount lives.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<StreamName, u64>,
    names: Vec<StreamName>,
}

impl Streams {
    /// The number of a stream.
    pub(crate) fn number(&self, stream: StreamName) -> Result<NodeId, Error> {
        let mut table = self.0.lock().expect("no holder of the lock panics");
        if let Some(number) = table.numbers.get(&stream) {
            return Ok(NodeId(STREAM | number));
        }
        if table.names.len() >= MAX_STREAMS {
            return Err(Error::Refused(format!("more than {MAX_STREAMS} named streams were asked for: mount again")));
        }
        let number = u64::try_from(table.names.len()).unwrap_or(u64::MAX);
        table.names.push(stream.clone());
        table.numbers.insert(stream, number);
        Ok(NodeId(STREAM | number))
    }

    /// The stream with a number; `None` for the number of a node.
    pub(crate) fn find(&self, node: NodeId) -> Option<StreamName> {
        let number = node.0.checked_sub(STREAM)?;
        let table = self.0.lock().expect("no holder of the lock panics");
        table.names.get(usize::try_from(number).ok()?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_its_number_and_there_is_an_end_to_them() {
        let streams = Streams::default();
        let name = |n: usize| StreamName { node: NodeId(n as u64), name: b"s".to_vec() };
        let first = streams.number(name(0)).unwrap();
        assert_eq!(first, streams.number(name(0)).unwrap());
        assert_eq!(streams.find(first), Some(name(0)));
        assert_eq!(streams.find(NodeId(0)), None);
        assert_eq!(streams.find(NodeId(u64::MAX)), None);
        assert!((0..=MAX_STREAMS).any(|n| streams.number(name(n)).is_err()));
        assert_eq!(first, streams.number(name(0)).unwrap());
    }
}
