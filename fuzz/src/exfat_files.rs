//! Files of exFAT.

pub use crate::files::run;

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_mutations_of_them() {
        crate::fat_seed::on_mutations(crate::fat_seed::EXFAT, 3000, super::run);
    }
}
