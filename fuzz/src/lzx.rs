//! The decompressor of LZX.

use imgfmt::filesystem::ntfs::lzx::decompress;

/// Decompresses `data` into rooms of several sizes.
pub fn run(data: &[u8]) {
    crate::decompress::run(data, decompress);
}

#[cfg(test)]
mod tests {
    #[test]
    fn seed_and_mutations_of_it() {
        crate::decompress::on_mutations(include_bytes!("../seeds/lzx.bin"), super::run);
    }
}
