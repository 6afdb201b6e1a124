//! VMDK files.

use imgfmt::format::Format;

/// Holds any bytes as a VMDK file.
pub fn run(data: &[u8]) {
    crate::formats::check(Format::Vmdk, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{on_mutations, opens};

    #[test]
    fn seeds_and_mutations_of_them() {
        let sparse = include_bytes!("../seeds/sparse.vmdk.zst");
        opens(Format::Vmdk, sparse, false);
        on_mutations(sparse, 1500, &[0..80, 0..80, 512..1024, 0x2a00..0x4000, 0x2a00..0x10000], run);
        let stream = include_bytes!("../seeds/stream.vmdk.zst");
        opens(Format::Vmdk, stream, false);
        on_mutations(stream, 1500, &[0..80, 512..1024, 0x2a00..0x4000, 0x10000..0x10040, 0x10000..0x20000], run);
        let text = b"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\nRW 63 ZERO\nRW 4096 FLAT \"x.vmdk\" 0\n";
        let packed = {
            let mut out = vec![0; 1000];
            let len = zstd_safe::compress(&mut out[..], text, 3).unwrap();
            out[..len].to_vec()
        };
        on_mutations(&packed, 1500, &[21..text.len()], run);
    }
}
