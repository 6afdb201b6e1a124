//! Files of FAT12, FAT16 and FAT32.

pub use crate::files::run;

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_mutations_of_them() {
        for seed in crate::fat_seed::FAT {
            crate::fat_seed::on_mutations(seed, 1200, super::run);
        }
    }
}
