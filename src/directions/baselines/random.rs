//! Random sparse directions: a baseline for what concept detection finds without any fit.

use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64;

use crate::directions::Directions;

/// k directions of d values with `entries` non-zeros each: vectors of standard normal values, of
/// which those of largest magnitude are kept.
pub fn directions(d: usize, k: usize, entries: usize, seed: u64) -> Directions {
    let mut rng = Pcg64::seed_from_u64(seed);
    let columns = (0..d * k)
        .map(|_| rng.sample::<f32, _>(StandardNormal))
        .collect();
    Directions::Dense { d, columns }.cut(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_directions_are_sparse_follow_the_seed_and_differ() {
        let one = directions(50, 4, 5, 7).to_sparse();
        assert_eq!(one.offsets, [0, 5, 10, 15, 20]);
        assert_eq!(Directions::Sparse(one.clone()), directions(50, 4, 5, 7));
        assert_ne!(Directions::Sparse(one.clone()), directions(50, 4, 5, 8));
        assert_ne!(one.column(0), one.column(1));
    }
}
