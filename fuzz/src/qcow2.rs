//! qcow2 files.

use imgfmt::format::Format;

/// Holds any bytes as a qcow2 file.
pub fn run(data: &[u8]) {
    crate::formats::check(Format::Qcow2, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{on_mutations, opens};

    #[test]
    fn seeds_and_mutations_of_them() {
        let small = include_bytes!("../seeds/zlib.qcow2.zst");
        opens(Format::Qcow2, small, false);
        // Header, tables and snapshots lie among the data, since the clusters are small.
        on_mutations(small, 700, &[0..112, 0..112, 112..512, 512..4096, 4096..200_000], run);
        let subclusters = include_bytes!("../seeds/subclusters.qcow2.zst");
        opens(Format::Qcow2, subclusters, false);
        on_mutations(subclusters, 700, &[0..112, 49_152..49_168, 65_536..65_900, 65_536..65_900], run);
    }
}
