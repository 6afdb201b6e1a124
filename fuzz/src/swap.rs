//! Headers of swap areas.

pub use crate::used_blocks::run;

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    /// An area of four pages with a label and a bad page, as `mkswap` would write it.
    fn seed() -> Vec<u8> {
        let mut area = vec![0; 4 * 4096];
        for (at, value) in [(1024, 1_u32), (1028, 3), (1032, 1), (1536, 2)] {
            area[at..][..4].copy_from_slice(&value.to_le_bytes());
        }
        area[1036..1052].fill(7);
        area[1052..1056].copy_from_slice(b"swap");
        area[4086..4096].copy_from_slice(b"SWAPSPACE2");
        area
    }

    #[test]
    fn seed_and_mutations_of_it() {
        let mut random = Random::new(7);
        for round in 0..5000 {
            let mut area = seed();
            if round > 0 {
                mutate(&mut area[1024..1540], 516, &mut random);
            }
            super::run(&area);
        }
    }
}
