//! What an evaluation is asked for: methods, KL targets, labels. Owns the values and their limits;
//! knows no key.
//!
//! Invariant: [`Form::ask`] asks for what `mlpeek eval steering` asks by default until something is
//! changed.

use std::collections::BTreeSet;

use crate::engine::SetKind;
use crate::eval::steering::{Protocol, texts_of};
use crate::jobs::causal::CausalRequest;
use crate::jobs::choice::Choose;
use crate::jobs::directions::HookSelection;
use crate::jobs::evaluation::Method;
use crate::text;
use crate::ui::pane::Cx;

/// Texts of each prompt, at most.
const MAX_SAMPLES: usize = 16;

/// A value that the cursor can stand on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    /// Whether a method is among those evaluated.
    Method(Method),
    Targets,
    Labels,
    Samples,
    Choose,
}

/// The values.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// What is asked, but for its methods and place.
    ask: CausalRequest,
    /// Methods that are not as they are by default.
    turned: Vec<Method>,
}

/// Every method that the study offers: the usual ones, then its autoencoders and the other fits of
/// the hook on show.
fn offered(cx: &Cx) -> Vec<Method> {
    let mut all = Method::usual();
    if let Some(study) = &cx.world.study {
        let sae = |name: &str| Method::Set(SetKind::Sae(Some(name.to_owned())));
        all.extend(
            study
                .saes
                .iter()
                .rev()
                .filter(|s| s.figures.is_some())
                .map(|s| sae(&s.name)),
        );
        let other = |name: &str| cx.world.fit_name() != Some(name);
        let fits = study
            .fits
            .iter()
            .rev()
            .filter(|f| f.hook == study.hook && f.relative_error.is_some());
        let fits = fits.filter(|f| other(&f.name));
        all.extend(fits.map(|f| Method::Set(SetKind::Fit(Some(f.name.clone())))));
    }
    all
}

/// Labels that are met in the list, for a hint.
pub(super) fn labels(cx: &Cx) -> BTreeSet<String> {
    cx.world
        .rows()
        .iter()
        .filter_map(|row| Some(text::clean(&row.purity.as_ref()?.label)))
        .collect()
}

impl Form {
    pub fn fields(&self, cx: &Cx) -> Vec<Field> {
        let methods = offered(cx).into_iter().map(Field::Method);
        methods
            .chain([Field::Targets, Field::Labels, Field::Samples, Field::Choose])
            .collect()
    }

    /// As the command has it: the usual methods and the study's autoencoders, unless it was turned.
    fn has(&self, method: &Method) -> bool {
        let usual =
            Method::usual().contains(method) || matches!(method, Method::Set(SetKind::Sae(_)));
        usual != self.turned.contains(method)
    }

    fn methods(&self, cx: &Cx) -> Vec<Method> {
        offered(cx).into_iter().filter(|m| self.has(m)).collect()
    }

    /// The request, or why there is none.
    pub fn ask(&self, cx: &Cx) -> Result<CausalRequest, String> {
        let methods = self.methods(cx);
        if methods.is_empty() {
            return Err("choose at least one method".to_owned());
        }
        let place = HookSelection {
            fit: cx.world.fit_name().map(str::to_owned),
            ..HookSelection::default()
        };
        Ok(CausalRequest {
            methods,
            place,
            ..self.ask.clone()
        })
    }

    /// The most texts that the request comes to.
    pub fn texts(&self, cx: &Cx) -> usize {
        let all = cx.world.study.as_ref().map_or(0, |study| study.labels);
        let labels = if self.ask.labels.is_empty() {
            all
        } else {
            self.ask.labels.len()
        };
        texts_of(labels * self.methods(cx).len(), &self.ask.config)
    }

    /// The next choice of a field, or the one before.
    pub fn turn(&mut self, field: &Field, forward: bool) {
        match field {
            Field::Method(method) => match self.turned.iter().position(|m| m == method) {
                Some(at) => _ = self.turned.remove(at),
                None => self.turned.push(method.clone()),
            },
            Field::Samples => {
                let samples = &mut self.ask.config.samples;
                *samples = if forward {
                    (*samples + 1).min(MAX_SAMPLES)
                } else {
                    samples.saturating_sub(1)
                };
            }
            Field::Choose => {
                self.ask.choose = match self.ask.choose {
                    Choose::Input => Choose::Output,
                    Choose::Output => Choose::Input,
                };
            }
            Field::Targets | Field::Labels => {}
        }
    }

    pub fn is_typed(field: &Field) -> bool {
        matches!(field, Field::Targets | Field::Labels | Field::Samples)
    }

    /// A value as it is typed.
    pub fn typed(&self, field: &Field) -> String {
        match field {
            Field::Targets => self
                .ask
                .config
                .targets
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            Field::Labels => self.ask.labels.join(", "),
            Field::Samples => self.ask.config.samples.to_string(),
            Field::Method(_) | Field::Choose => String::new(),
        }
    }

    /// Takes what was typed, or says what is wrong with it.
    pub fn set(&mut self, field: &Field, typed: &str) -> Result<(), String> {
        let parts = || {
            typed
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
        };
        match field {
            Field::Targets if typed.trim() == "paper" => self.ask.config.by(Protocol::Paper),
            Field::Targets => {
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
                self.ask.config.targets = targets;
            }
            Field::Labels => {
                self.ask.labels = match typed.trim() {
                    "all" => Vec::new(),
                    _ => parts().map(str::to_owned).collect(),
                };
            }
            Field::Samples => match typed.trim().parse() {
                Ok(n) if n <= MAX_SAMPLES => self.ask.config.samples = n,
                _ => return Err(format!("from 0 to {MAX_SAMPLES} texts")),
            },
            Field::Method(_) | Field::Choose => {}
        }
        Ok(())
    }

    pub fn name(field: &Field, cx: &Cx) -> String {
        match field {
            Field::Method(Method::Set(SetKind::Fit(None))) => {
                format!(
                    "fit:{}",
                    cx.world.fit_name().map(text::clean).unwrap_or_default()
                )
            }
            Field::Method(method) => text::clean(&method.to_string()),
            Field::Targets => "KL".to_owned(),
            Field::Labels => "labels".to_owned(),
            Field::Samples => "samples".to_owned(),
            Field::Choose => "chosen by".to_owned(),
        }
    }

    /// How a value reads.
    pub fn shown(&self, field: &Field, cx: &Cx) -> String {
        match field {
            Field::Method(method) => if self.has(method) { "yes" } else { "no" }.to_owned(),
            Field::Labels if self.ask.labels.is_empty() => {
                let count = cx.world.study.as_ref().map_or(0, |study| study.labels);
                format!("all {}", text::count(count))
            }
            Field::Choose => self.ask.choose.to_string(),
            _ => text::clean(&self.typed(field)),
        }
    }

    /// Whether a method is chosen, for its style.
    pub fn is_off(&self, field: &Field) -> bool {
        matches!(field, Field::Method(method) if !self.has(method))
    }

    pub fn help(field: &Field, cx: &Cx) -> String {
        match field {
            Field::Method(method) => match method {
                Method::Shuffled => "features chosen for labels dealt out anew: what choosing alone is worth",
                Method::Set(SetKind::Fit(None)) => {
                    "features of the fit on show; what comes first is compared with the others"
                }
                Method::Set(SetKind::Fit(_)) => "features of another fit of this hook",
                Method::Set(SetKind::Sae(_)) => "latents of an autoencoder of this study",
                Method::Set(SetKind::Baseline { kind, .. }) if kind.supervised() => {
                    return format!("{}, of the training half", kind.what());
                }
                Method::Set(SetKind::Baseline { kind, .. }) => kind.what(),
                Method::Mean(_) => "the mean of several",
            }
            .to_owned(),
            Field::Targets => "KL(base ‖ steered) at the prompts' ends, several apart by commas".to_owned(),
            Field::Labels => {
                let some: Vec<String> = labels(cx).into_iter().take(4).collect();
                format!("apart by commas, or all: {}, …", some.join(", "))
            }
            Field::Samples => {
                "texts of each prompt, KL and sign; 0: only what becomes of the labels' own words".to_owned()
            }
            Field::Choose => {
                "which direction is a label's: by what excites it (input), or by what it promotes (output)".to_owned()
            }
        }
    }
}
