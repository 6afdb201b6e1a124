//! The used-block map of ext2, ext3 and ext4.

pub use crate::used_blocks::run;

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_mutations_of_them() {
        crate::ext_seed::on_mutations(3000, super::run);
    }
}
