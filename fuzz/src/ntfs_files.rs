//! The files of NTFS.

pub use crate::files::run_with_copies as run;

#[cfg(test)]
mod tests {
    #[test]
    fn seed_and_mutations_of_it() {
        crate::ntfs_seed::on_mutations(600, super::run);
    }
}
