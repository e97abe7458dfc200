//! The form of a sweep over the number of features, over the Fit pane.
//!
//! Invariant: it begins with what `mlpeek sweep` does when nothing is said.

use super::form::{FormDialog, RequestForm};
use crate::engine::{Command, SweepRequest};
use crate::factor::FitConfig;
use crate::study::newest;
use crate::text;
use crate::ui::describe::{seeds, settings};
use crate::ui::form::{Field, Fields, whole_number};
use crate::ui::world::World;

/// More fits of each than this say nothing new and take days.
const MOST_SEEDS: usize = 20;

/// What is asked for, as it is typed.
#[derive(Debug)]
pub struct SweepForm {
    features: String,
    seeds: String,
    cold: bool,
}

/// Begins with what was asked for last, or the defaults.
pub fn sweep_dialog(world: &World) -> FormDialog<SweepForm> {
    let last = world
        .k_sweep
        .as_ref()
        .map(|(begun, _)| begun.request.clone())
        .unwrap_or_default();
    let numbers: Vec<String> = last.features.iter().map(usize::to_string).collect();
    let request = SweepForm {
        features: numbers.join(" "),
        seeds: last.seeds.to_string(),
        cold: last.cold,
    };
    FormDialog::new(request, world)
}

/// The settings that a sweep takes: those of the fit on show, else of the newest here, else the
/// defaults.
fn base(world: &World) -> FitConfig {
    let Some(study) = &world.study else {
        return FitConfig::default();
    };
    let shown = world
        .fit_name()
        .and_then(|name| study.fits.iter().find(|f| f.name == name));
    shown
        .or_else(|| newest(&study.fits, |hook| hook == study.hook))
        .map(|f| f.config.clone())
        .unwrap_or_default()
}

impl SweepForm {
    /// The request as it is typed, or what is wrong with it.
    fn request(&self, world: &World) -> Result<SweepRequest, String> {
        let parts = self.features.split([',', ' ', ';']);
        let mut features = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let k = part.parse().ok().filter(|&k: &usize| k > 0);
            let wrong = || {
                let part = text::clean(part);
                format!("features: '{part}' is no whole number above 0")
            };
            features.push(k.ok_or_else(wrong)?);
        }
        features.sort_unstable();
        features.dedup();
        if features.is_empty() {
            return Err("features: at least one number, as 25 50 100".to_owned());
        }
        Ok(SweepRequest {
            fit: world.fit_name().map(str::to_owned),
            features,
            seeds: whole_number(&self.seeds, "seeds", 1..=MOST_SEEDS)?,
            cold: self.cold,
        })
    }
}

impl Fields for SweepForm {
    fn fields(&self, _: &World) -> Vec<Field> {
        let start = if self.cold { "cold" } else { "warm" };
        vec![
            Field::text(
                "features",
                "numbers, apart by spaces or commas",
                &self.features,
            ),
            Field::text(
                "seeds",
                "fits of each, which stability compares",
                &self.seeds,
            ),
            Field::choice("start", "warm goes on from fewer, cold anew", start),
        ]
    }

    fn step(&mut self, _: usize, _: bool, _: &World) -> Result<(), String> {
        self.cold = !self.cold;
        Ok(())
    }

    fn set(&mut self, at: usize, typed: &str, _: &World) -> Result<(), String> {
        let value = if at == 0 {
            &mut self.features
        } else {
            &mut self.seeds
        };
        typed.clone_into(value);
        Ok(())
    }
}

impl RequestForm for SweepForm {
    const TITLE: &'static str = "Sweep over k";
    const WIDTH: u16 = 88;
    const VALUE: usize = 24;
    const VERB: &'static str = "sweeps";

    fn command(&self, world: &World) -> Result<Command, String> {
        self.request(world).map(Command::SweepK)
    }

    fn outlook(&self, world: &World) -> Result<String, String> {
        let request = self.request(world)?;
        let (count, fits) = (
            request.features.len(),
            request.features.len() * request.seeds,
        );
        let fits = format!("{fits} {}", if fits == 1 { "fit" } else { "fits" });
        let rows = world.study.as_ref().map_or(0, |s| s.rows);
        let numbers = if count == 1 { "number" } else { "numbers" };
        Ok(format!(
            "{fits} of {count} {numbers} of features, on about four fifths of {} tokens",
            text::count(rows)
        ))
    }

    fn settings(&self, world: &World) -> Option<String> {
        let config = base(world);
        let count = self.request(world).map_or(1, |request| request.seeds);
        let neurons = world.study.as_ref().map_or(0, |s| s.width);
        let seeds = seeds(config.seed, count);
        Some(format!("{}, {seeds}", settings(&config, neurons)))
    }
}

#[cfg(test)]
mod tests;
