//! The used-block map of exFAT.

pub use crate::used_blocks::run;

#[cfg(test)]
mod tests {
    #[test]
    fn seed_and_mutations_of_it() {
        crate::fat_seed::on_mutations(crate::fat_seed::EXFAT, 4000, super::run);
    }
}
