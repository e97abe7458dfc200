//! What an evaluation is asked for: methods, KL targets, labels. Owns the values and their limits;
//! knows no key.
//!
//! Invariant: [`Values::request`] gives the request of `mlpeek eval steering` without options until
//! something is changed.

use crate::directions::Mix;
use crate::engine::SetKind;
use crate::eval::steering::{Protocol, SteeringConfig, texts_of};
use crate::jobs::causal::CausalRequest;
use crate::jobs::choice::Choose;
use crate::jobs::directions::HookSelection;
use crate::jobs::evaluation::Method;
use crate::text;
use crate::ui::form::{Field, Fields};
use crate::ui::world::World;

/// Texts of each prompt, at most.
const MAX_SAMPLES: usize = 16;

/// Which value a field is of.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Whether a method is among those evaluated.
    Method(Method),
    Targets,
    Labels,
    Samples,
    Choose,
}

/// The values of the form, each within its limits.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// What is asked, but for its methods and place.
    request: CausalRequest,
    /// Methods that are not as they are by default.
    flipped: Vec<Method>,
}

/// Every method that the study offers: the usual ones, then its autoencoders and the other fits of
/// the hook on show.
fn offered(world: &World) -> Vec<Method> {
    let mut all = Method::usual();
    if let Some(study) = &world.study {
        let sae = |name: &str| Method::Set(SetKind::Sae(Some(name.to_owned())));
        all.extend(
            study
                .saes
                .iter()
                .rev()
                .filter(|s| s.figures.is_some())
                .map(|s| sae(&s.name)),
        );
        let other = |name: &str| world.fit_name() != Some(name);
        let fits = study
            .fits
            .iter()
            .rev()
            .filter(|f| f.hook == study.hook && f.relative_error.is_some());
        let fits = fits.filter(|f| other(&f.name));
        all.extend(fits.map(|f| Method::Set(SetKind::Fit(Some(f.name.clone())))));
    }
    // What the model is asked for; mixes have the same of random directions beside them.
    all.extend(SetKind::measured().map(Method::Set));
    all
}

impl Values {
    fn kinds(world: &World) -> Vec<Kind> {
        let methods = offered(world).into_iter().map(Kind::Method);
        methods
            .chain([Kind::Targets, Kind::Labels, Kind::Samples, Kind::Choose])
            .collect()
    }

    /// As the command has it: the usual methods and the study's autoencoders, unless it was changed.
    fn has(&self, method: &Method) -> bool {
        let usual =
            Method::usual().contains(method) || matches!(method, Method::Set(SetKind::Sae(_)));
        usual != self.flipped.contains(method)
    }

    fn methods(&self, world: &World) -> Vec<Method> {
        offered(world).into_iter().filter(|m| self.has(m)).collect()
    }

    /// The request, or why there is none.
    pub fn request(&self, world: &World) -> Result<CausalRequest, String> {
        let methods = self.methods(world);
        if methods.is_empty() {
            return Err("choose at least one method".to_owned());
        }
        // Another study may be open since they were typed.
        if let Some(problem) = Self::unknown_label(&self.request.labels, world) {
            return Err(problem);
        }
        let place = HookSelection {
            fit: world.fit_name().map(str::to_owned),
            ..HookSelection::default()
        };
        Ok(CausalRequest {
            methods,
            place,
            ..self.request.clone()
        })
    }

    /// How texts are steered and sampled.
    pub fn config(&self) -> &SteeringConfig {
        &self.request.config
    }

    /// How many directions are steered with: one a method and label, the controls of what chooses by
    /// effects among them.
    pub fn directions(&self, world: &World) -> usize {
        let all = world.study.as_ref().map_or(0, |study| study.labels);
        let labels = match self.request.labels.len() {
            0 => all,
            chosen => chosen,
        };
        let methods = self.methods(world);
        let is_mix = |m: &&Method| matches!(m, Method::Set(SetKind::Mixed { .. }));
        let mixes = methods.iter().filter(is_mix).count();
        let has_one = methods
            .iter()
            .any(|m| matches!(m, Method::Set(SetKind::Mixed { mix: Mix::One, .. })));
        let by_effect = self.request.choose == Choose::Effect && !has_one;
        labels * (methods.len() + mixes + usize::from(by_effect))
    }

    /// The most texts that the request comes to.
    pub fn texts(&self, world: &World) -> usize {
        texts_of(self.directions(world), &self.request.config)
    }

    /// Why one of the labels is none of the corpus's.
    fn unknown_label(labels: &[String], world: &World) -> Option<String> {
        let known = world
            .study
            .as_ref()
            .map(|study| study.label_names.clone())?;
        if known.is_empty() {
            return None;
        }
        let wrong = labels.iter().find(|label| !known.contains(label))?;
        let typed = wrong.to_lowercase();
        let close = known.iter().find(|label| {
            let label = label.to_lowercase();
            label.contains(&typed) || typed.contains(&label)
        });
        let wrong = text::clean(wrong);
        Some(match close {
            Some(close) => format!(
                "the corpus has no label '{wrong}': did you mean {}?",
                text::clean(close)
            ),
            None => {
                let some: Vec<String> = known.iter().take(5).map(|l| text::clean(l)).collect();
                format!(
                    "the corpus has no label '{wrong}', but {}, …",
                    some.join(", ")
                )
            }
        })
    }

    /// A value as it is typed.
    fn typed(&self, kind: &Kind) -> String {
        match kind {
            Kind::Targets => self
                .request
                .config
                .targets
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            Kind::Labels => self.request.labels.join(", "),
            Kind::Samples => self.request.config.samples.to_string(),
            Kind::Method(_) | Kind::Choose => String::new(),
        }
    }

    fn name(kind: &Kind, world: &World) -> String {
        match kind {
            Kind::Method(Method::Set(SetKind::Fit(None))) => {
                format!(
                    "fit:{}",
                    world.fit_name().map(text::clean).unwrap_or_default()
                )
            }
            Kind::Method(method) => text::clean(&method.to_string()),
            Kind::Targets => "KL".to_owned(),
            Kind::Labels => "labels".to_owned(),
            Kind::Samples => "samples".to_owned(),
            Kind::Choose => "chosen by".to_owned(),
        }
    }

    fn field(&self, kind: &Kind, world: &World) -> Field {
        let (name, help) = (Self::name(kind, world), Self::help(kind, world));
        match kind {
            Kind::Method(method) => Field::toggle(name, help, self.has(method)),
            Kind::Choose => Field::choice(name, help, &self.request.choose.to_string()),
            Kind::Labels if self.request.labels.is_empty() => {
                let count = world.study.as_ref().map_or(0, |study| study.labels);
                Field {
                    shown: format!("all {}", text::count(count)),
                    ..Field::text(name, help, "")
                }
            }
            Kind::Targets | Kind::Labels | Kind::Samples => {
                Field::text(name, help, &self.typed(kind))
            }
        }
    }

    fn help(kind: &Kind, world: &World) -> String {
        match kind {
            Kind::Method(method) => match method {
                Method::Shuffled => "features chosen for labels dealt out anew: what choosing alone is worth",
                Method::Set(SetKind::Fit(None)) => {
                    "features of the fit on show; what comes first is compared with the others"
                }
                Method::Set(SetKind::Fit(_)) => "features of another fit of this hook",
                Method::Set(SetKind::Sae(_)) => "latents of an autoencoder of this study",
                Method::Set(SetKind::File { .. }) => "directions of a file",
                Method::Set(SetKind::Baseline { kind, .. }) if kind.supervised() => {
                    return format!("{}, of the training half", kind.what());
                }
                Method::Set(SetKind::Baseline { kind, .. }) => kind.what(),
                Method::Set(SetKind::TextGradient { .. }) => {
                    "what makes the training half's sentences likelier, by the model's gradient"
                }
                Method::Set(SetKind::Mixed { .. }) => {
                    "directions by what they do, of the training half; the same of random ones beside it"
                }
                Method::Prompt => "the model asked in words, unsteered",
                Method::Mean(_) => "the mean of several",
            }
            .to_owned(),
            Kind::Targets => "KL(base ‖ steered) at the prompts' ends, several apart by commas".to_owned(),
            Kind::Labels => {
                let names = world.study.as_ref().map(|study| study.label_names.clone());
                let names = names.unwrap_or_default();
                let some: Vec<String> = names.iter().take(4).map(|l| text::clean(l)).collect();
                format!("apart by commas, or all: {}, …", some.join(", "))
            }
            Kind::Samples => {
                "texts of each prompt, KL and sign; 0: only what becomes of the labels' own words".to_owned()
            }
            Kind::Choose => {
                "which direction is a label's: by what excites it (input), what it promotes (output), or what it does (effect)".to_owned()
            }
        }
    }
}

impl Fields for Values {
    fn fields(&self, world: &World) -> Vec<Field> {
        let kinds = Self::kinds(world);
        kinds.iter().map(|kind| self.field(kind, world)).collect()
    }

    fn step(&mut self, at: usize, forward: bool, world: &World) -> Result<(), String> {
        match Self::kinds(world).get(at) {
            Some(Kind::Method(method)) => match self.flipped.iter().position(|m| m == method) {
                Some(at) => _ = self.flipped.remove(at),
                None => self.flipped.push(method.clone()),
            },
            Some(Kind::Samples) => {
                let samples = &mut self.request.config.samples;
                *samples = if forward {
                    (*samples + 1).min(MAX_SAMPLES)
                } else {
                    samples.saturating_sub(1)
                };
            }
            Some(Kind::Choose) => {
                self.request.choose = match self.request.choose {
                    Choose::Input => Choose::Output,
                    Choose::Output => Choose::Effect,
                    Choose::Effect => Choose::Input,
                };
            }
            Some(Kind::Targets | Kind::Labels) | None => {}
        }
        Ok(())
    }

    fn set(&mut self, at: usize, typed: &str, world: &World) -> Result<(), String> {
        let parts = || {
            typed
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
        };
        match Self::kinds(world).get(at) {
            Some(Kind::Targets) if typed.trim() == "paper" => {
                self.request.config.by(Protocol::Paper)
            }
            Some(Kind::Targets) => {
                let read = |part: &str| {
                    part.parse::<f64>()
                        .ok()
                        .filter(|t| t.is_finite() && *t > 0.0)
                };
                let mut targets = Vec::new();
                for part in parts() {
                    targets.push(
                        read(part).ok_or_else(|| {
                            format!("'{part}' is no KL above 0: try 0.25, or paper")
                        })?,
                    );
                }
                targets.sort_by(f64::total_cmp);
                targets.dedup();
                if targets.is_empty() {
                    return Err("give at least one KL: try 0.25".to_owned());
                }
                self.request.config.targets = targets;
            }
            Some(Kind::Labels) => {
                let labels: Vec<String> = match typed.trim() {
                    "all" => Vec::new(),
                    _ => parts().map(str::to_owned).collect(),
                };
                if let Some(problem) = Self::unknown_label(&labels, world) {
                    return Err(problem);
                }
                self.request.labels = labels;
            }
            Some(Kind::Samples) => match typed.trim().parse() {
                Ok(n) if n <= MAX_SAMPLES => self.request.config.samples = n,
                _ => return Err(format!("from 0 to {MAX_SAMPLES} texts")),
            },
            Some(Kind::Method(_) | Kind::Choose) | None => {}
        }
        Ok(())
    }
}
