//! What the Start form asks for: model, layer, corpus, fit. Owns the request and the limits of its
//! values; knows no key and no drawing.
//!
//! Invariant: the request can be typed: a value that cannot be read does not change it.

use std::path::PathBuf;

use crate::engine::OpenRequest;
use crate::model::source::DEFAULT_MODEL;
use crate::model::{Cards, DeviceChoice, HookSite};
use crate::text;
use crate::ui::form::{Field, Fields, cycle, next_choice, number};
use crate::ui::world::World;

const FEATURES: [usize; 8] = [10, 25, 50, 100, 200, 300, 400, 800];
const SPARSITIES: [Option<f64>; 8] = [
    None,
    Some(0.002),
    Some(0.005),
    Some(0.01),
    Some(0.02),
    Some(0.05),
    Some(0.1),
    Some(1.0),
];
const PENALTIES: [f64; 5] = [0.0, 0.05, 0.1, 0.2, 0.5];
const DEVICES: [DeviceChoice; 4] = [
    DeviceChoice::Auto,
    DeviceChoice::Cpu,
    DeviceChoice::Cuda(Cards::FIRST),
    DeviceChoice::Metal,
];

/// Which value a field is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Layer,
    Hook,
    Corpus,
    Features,
    Sparsity,
    Penalty,
    Scaling,
    Device,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Model,
        Self::Layer,
        Self::Hook,
        Self::Corpus,
        Self::Features,
        Self::Sparsity,
        Self::Penalty,
        Self::Scaling,
        Self::Device,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Layer => "layer",
            Self::Hook => "hook",
            Self::Corpus => "corpus",
            Self::Features => "features",
            Self::Sparsity => "sparsity",
            Self::Penalty => "penalty",
            Self::Scaling => "scaling",
            Self::Device => "device",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            Self::Model => "a Hub id, a directory or a .gguf file",
            Self::Layer => "from 0",
            Self::Hook => "what is read: MLP neurons, MLP output or the residual stream",
            Self::Corpus => "JSON, JSONL, CSV or text; with labels if it has them",
            Self::Features => "k, how many to look for",
            Self::Sparsity => {
                "p, the share of neurons that a feature may use; auto: by their number"
            }
            Self::Penalty => "λ; 0 minimises the error alone",
            Self::Scaling => "whether every neuron counts the same, whatever its range",
            Self::Device => "where the model runs",
        }
    }
}

/// The values of the form.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub request: OpenRequest,
    /// The number of the model's layers; `None` until an estimate has told.
    pub layers: Option<usize>,
    /// The number of neurons in a row; `None` until an estimate has told.
    pub width: Option<usize>,
}

impl Values {
    /// The value of a field as one would type it.
    fn typed(&self, kind: Kind) -> String {
        let request = &self.request;
        match kind {
            Kind::Model => request.model.clone().unwrap_or_default(),
            Kind::Layer => request.layer.map(|l| l.to_string()).unwrap_or_default(),
            Kind::Hook => request.hook.name().to_owned(),
            Kind::Corpus => request
                .corpus
                .as_ref()
                .map(|p| p.display().to_string())
                .unwrap_or_default(),
            Kind::Features => request.fit.features.to_string(),
            Kind::Sparsity => request
                .fit
                .sparsity
                .map_or_else(|| "auto".to_owned(), |p| p.to_string()),
            Kind::Penalty => request.fit.l1.to_string(),
            Kind::Scaling => scaling_name(request.fit.scale_neurons).to_owned(),
            Kind::Device => request.device.to_string(),
        }
    }

    /// Sets a value to what was typed, or says what is wrong with it.
    fn set_value(&mut self, kind: Kind, typed: &str) -> Result<(), String> {
        let typed = typed.trim();
        let request = &mut self.request;
        let number = |low, high| number(typed, kind.name(), low, high);
        match kind {
            Kind::Model => request.model = (!typed.is_empty()).then(|| typed.to_owned()),
            Kind::Layer if typed.is_empty() => request.layer = None,
            Kind::Layer => {
                request.layer = Some(
                    typed
                        .parse()
                        .map_err(|_| format!("a layer is a whole number from 0, not '{typed}'"))?,
                );
            }
            Kind::Hook => request.hook = typed.parse().map_err(|e: crate::Error| e.to_string())?,
            Kind::Corpus => request.corpus = (!typed.is_empty()).then(|| PathBuf::from(typed)),
            Kind::Features => match typed.parse() {
                Ok(k) if k > 0 => request.fit.features = k,
                _ => return Err(format!("features is a whole number from 1, not '{typed}'")),
            },
            Kind::Sparsity if matches!(typed, "" | "auto") => request.fit.sparsity = None,
            Kind::Sparsity => match number(0.0, 1.0)? {
                p if p > 0.0 => request.fit.sparsity = Some(p),
                _ => {
                    return Err(
                        "sparsity is above 0: 0.01 keeps one neuron in a hundred".to_owned()
                    );
                }
            },
            Kind::Penalty => request.fit.l1 = number(0.0, 1e6)?,
            Kind::Scaling => {
                request.fit.scale_neurons = match typed {
                    "none" => false,
                    "neurons" => true,
                    _ => return Err(format!("scaling is none or neurons, not '{typed}'")),
                };
            }
            Kind::Device => {
                request.device = typed.parse().map_err(|e: crate::Error| e.to_string())?;
            }
        }
        Ok(())
    }

    /// The next or the previous choice of a value.
    fn step_value(&mut self, kind: Kind, forward: bool, world: &World) {
        let layers = self.layers;
        let request = &mut self.request;
        match kind {
            Kind::Model => {
                let known = world
                    .models
                    .iter()
                    .flatten()
                    .filter(|m| m.problem.is_none());
                let choices: Vec<Option<String>> = std::iter::once(None)
                    .chain(known.map(|m| Some(m.id.clone())))
                    .collect();
                request.model = cycle(&choices, &request.model, forward);
                request.layer = None;
            }
            Kind::Layer => {
                let middle = layers.map_or(0, |l| l / 2);
                let last = layers.map_or(usize::MAX, |l| l.saturating_sub(1));
                let now = request.layer.unwrap_or(middle);
                request.layer = Some(if forward {
                    (now + 1).min(last)
                } else {
                    now.saturating_sub(1)
                });
            }
            Kind::Hook => request.hook = cycle(&HookSite::ALL, &request.hook, forward),
            Kind::Corpus => {}
            Kind::Features => {
                request.fit.features = next_choice(&FEATURES, request.fit.features, forward)
            }
            Kind::Sparsity => {
                request.fit.sparsity = next_choice(&SPARSITIES, request.fit.sparsity, forward)
            }
            Kind::Penalty => request.fit.l1 = next_choice(&PENALTIES, request.fit.l1, forward),
            Kind::Scaling => request.fit.scale_neurons = !request.fit.scale_neurons,
            Kind::Device => request.device = cycle(&DEVICES, &request.device, forward),
        }
    }

    /// A value as it is drawn: what "nothing chosen" stands for is spelt out.
    fn shown(&self, kind: Kind) -> String {
        match kind {
            Kind::Model => match &self.request.model {
                Some(model) => text::clean(model),
                None => format!("{DEFAULT_MODEL} (default)"),
            },
            Kind::Layer => match (self.request.layer, self.layers) {
                (Some(layer), Some(n)) => format!("{layer} of 0–{}", n.saturating_sub(1)),
                (Some(layer), None) => layer.to_string(),
                (None, Some(n)) => format!("{} of 0–{} (the middle)", n / 2, n.saturating_sub(1)),
                (None, None) => "the middle".to_owned(),
            },
            Kind::Corpus => match &self.request.corpus {
                Some(path) => text::clean(&path.display().to_string()),
                None => "bundled concepts".to_owned(),
            },
            Kind::Sparsity => match (self.request.fit.sparsity, self.width) {
                (None, Some(d)) => {
                    format!(
                        "auto ({} of {} neurons)",
                        text::chosen_percent(self.request.fit.sparsity_at(d)),
                        text::count(d)
                    )
                }
                _ => self.typed(kind),
            },
            Kind::Scaling if self.request.fit.scale_neurons => {
                "neurons, to the same mean square".to_owned()
            }
            Kind::Device => match self.request.device {
                DeviceChoice::Auto => "auto (the best there is)".to_owned(),
                device => device.to_string(),
            },
            _ => self.typed(kind),
        }
    }
}

impl Fields for Values {
    fn fields(&self, _: &World) -> Vec<Field> {
        let field = |kind: Kind| Field {
            shown: self.shown(kind),
            ..Field::text(kind.name(), kind.help(), &self.typed(kind))
        };
        Kind::ALL.into_iter().map(field).collect()
    }

    fn step(&mut self, at: usize, forward: bool, world: &World) -> Result<(), String> {
        if let Some(&kind) = Kind::ALL.get(at) {
            self.step_value(kind, forward, world);
        }
        Ok(())
    }

    fn set(&mut self, at: usize, typed: &str, _: &World) -> Result<(), String> {
        match Kind::ALL.get(at) {
            Some(&kind) => self.set_value(kind, typed),
            None => Ok(()),
        }
    }
}

fn scaling_name(scale_neurons: bool) -> &'static str {
    if scale_neurons { "neurons" } else { "none" }
}
