//! Words for what the engine tells of: a feature in a line, the settings of a fit.

use super::world::World;
use crate::analysis::FeatureRow;
use crate::factor::{FitConfig, Solver};
use crate::text;

/// The strongest tokens of a feature, each once, at most `most`.
pub fn strongest_words(row: &FeatureRow, most: usize) -> String {
    distinct_tokens(&row.top_tokens, most)
}

/// At most `most` tokens that differ by more than case and blanks.
pub fn distinct_tokens(tokens: &[String], most: usize) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut shown: Vec<String> = Vec::new();
    for token in tokens {
        let folded = token.trim().to_lowercase();
        if shown.len() < most && !seen.contains(&folded) {
            seen.push(folded);
            let trimmed = token.trim_matches(' ');
            shown.push(if trimmed.is_empty() {
                "·".to_owned()
            } else {
                text::clean(trimmed)
            });
        }
    }
    shown.join(" ")
}

/// A feature for a list: `#17 counting` by its name, or `#17 Sunday Monday` by at most `most` of its
/// strongest tokens.
pub fn feature_in_list(id: usize, most: usize, world: &World) -> String {
    match world.row(id) {
        Some(row) if row.name.is_none() => format!("#{id} {}", strongest_words(row, most)),
        _ => world.feature_label(id),
    }
}

/// "λ 0.1, 5% of 1,536 neurons": the settings, but for k and the seeds.
pub fn settings(config: &FitConfig, width: usize) -> String {
    let share = format!(
        "{} of {} neurons",
        text::chosen_percent(config.sparsity_at(width)),
        text::count(width)
    );
    let rule = match config.solver {
        Solver::Bcd => format!("λ {}", config.l1),
        Solver::Mu => "multiplicative".to_owned(),
    };
    let cap = config
        .row_cap
        .map_or_else(String::new, |cap| format!(", at most {cap} a token"));
    let scaled = if config.scale_rows {
        ", scaled rows"
    } else {
        ""
    };
    let neurons = if config.scale_neurons {
        ", scaled neurons"
    } else {
        ""
    };
    let centred = if config.centre { ", centred" } else { "" };
    format!("{rule}, {share}{cap}{scaled}{neurons}{centred}")
}

/// "seeds 42 to 44".
pub fn seeds(first: u64, count: usize) -> String {
    match count {
        0 | 1 => format!("seed {first}"),
        _ => format!("seeds {first} to {}", first.wrapping_add(count as u64 - 1)),
    }
}
