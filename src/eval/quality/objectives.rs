//! The objectives that a fit can have at one number of features and sparsity, and what a fit is called
//! in a table.
//!
//! Knows no rows. Invariant: two fits of different settings that are compared have different names.

use crate::amounts::chosen_percent;
use crate::factor::{FitConfig, Init, Solver};

/// The cap that [`objectives`] tries: about as many features as the default penalty leaves at a
/// token.
const ROW_CAP: usize = 8;

/// The objectives to compare at the k and p of `base`, which comes first: without penalty,
/// with the default one, with a cap, with scaled rows, with scaled neurons, with a centre, and the
/// paper's updates.
pub fn objectives(base: &FitConfig) -> Vec<FitConfig> {
    let bare = FitConfig {
        solver: Solver::Bcd,
        row_cap: None,
        ..base.clone()
    }
    .without_preprocessing();
    let l1 = FitConfig::default().l1;
    let others = [
        FitConfig {
            l1: 0.0,
            ..bare.clone()
        },
        FitConfig { l1, ..bare.clone() },
        FitConfig {
            l1: 0.0,
            row_cap: Some(ROW_CAP),
            scale_rows: true,
            centre: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            scale_rows: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            scale_neurons: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            centre: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            scale_rows: true,
            centre: true,
            ..bare.clone()
        },
        FitConfig {
            l1: 0.0,
            solver: Solver::Mu,
            ..bare
        },
    ];
    let mut out = vec![base.clone()];
    for config in others {
        if !out.contains(&config) {
            out.push(config);
        }
    }
    out
}

/// "bcd k 100, 1 %, λ 0.1".
pub fn fit_name(config: &FitConfig) -> String {
    let share = config
        .sparsity
        .map_or_else(|| "sparsity auto".to_owned(), chosen_percent);
    let solver = match config.solver {
        Solver::Bcd => format!("bcd k {}, {share}, λ {}", config.features, config.l1),
        Solver::Mu => format!("mu k {}, {share}", config.features),
    };
    let mut name = solver;
    if let Some(cap) = config.row_cap {
        name += &format!(", cap {cap}");
    }
    let options = [
        (config.scale_rows, ", scaled"),
        (config.scale_neurons, ", scaled neurons"),
        (config.centre, ", centred"),
        (config.init == Init::Random, ", random start"),
        (config.init == Init::Svd, ", SVD start"),
    ];
    options
        .iter()
        .filter(|(on, _)| *on)
        .for_each(|(_, words)| name += words);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_fit_tells_its_settings() {
        let base = FitConfig {
            l1: 0.1,
            ..FitConfig::plain()
        }
        .with_sparsity_at(8192);
        assert_eq!(fit_name(&base), "bcd k 100, 1 %, λ 0.1");
        let mu = FitConfig {
            solver: Solver::Mu,
            init: Init::Random,
            sparsity: Some(0.07),
            ..base.clone()
        };
        assert_eq!(fit_name(&mu), "mu k 100, 7 %, random start");
        let capped = FitConfig {
            row_cap: Some(8),
            scale_rows: true,
            centre: true,
            ..base.clone()
        };
        assert_eq!(
            fit_name(&capped),
            "bcd k 100, 1 %, λ 0.1, cap 8, scaled, centred"
        );
        let all = objectives(&capped);
        assert_eq!((all.len(), &all[0]), (9, &capped));
        let names: std::collections::HashSet<String> = all.iter().map(fit_name).collect();
        assert_eq!(names.len(), 9, "every objective has a name of its own");
        assert_eq!(objectives(&FitConfig::default()).len(), 8);
    }
}
