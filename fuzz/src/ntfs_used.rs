//! The used-block map of NTFS.

pub use crate::used_blocks::run;

#[cfg(test)]
mod tests {
    #[test]
    fn seed_and_mutations_of_it() {
        crate::ntfs_seed::on_mutations(8000, super::run);
    }
}
