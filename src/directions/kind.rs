//! The kinds of sets of directions: how they are written on the command line and in output. Knows
//! no directions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Baseline;
use crate::error::{Error, Result};
use crate::model::HookPoint;

/// A set of directions, as written on the command line: `fit`, `fit:NAME`, `sae`, `sae:NAME`,
/// `file:PATH`, or the name of a [`Baseline`], optionally at another hook: `diffmean@15.hook_resid_post`;
/// `textgrad`, optionally at another hook; `mix`, optionally of another set than the fit:
/// `mix@k400`, `mix@random`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum SetKind {
    /// Features of an SNMF fit; without a name those of the selected fit, or of the newest.
    Fit(Option<String>),
    /// Decoder rows of a sparse autoencoder; without a name the newest.
    Sae(Option<String>),
    /// Directions of one's own from a file.
    File {
        /// The path of the file.
        path: String,
        /// The hook; `None`: what the file says, or the hook of the place.
        hook: Option<HookPoint>,
    },
    /// Directions made from the study's rows.
    Baseline {
        /// How they are made.
        kind: Baseline,
        /// The hook whose rows they are made from; `None`: the selected hook.
        hook: Option<HookPoint>,
    },
    /// The directions that make a label's sentences likelier than the others', by the model's
    /// gradient.
    TextGradient {
        /// Whether they have only as many neurons as a feature of the fit.
        cut: bool,
        /// The hook; `None`: the selected hook.
        hook: Option<HookPoint>,
    },
    /// Combinations of another set's directions, chosen by their effect on a label's words.
    Mixed {
        /// How directions are combined.
        mix: Mix,
        /// The set that is combined: the name of a fit or of an unsupervised baseline, which may
        /// name the fit that it is made after (`random@k400`); `None`: the selected fit.
        of: Option<String>,
    },
}

/// How directions are combined by their effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// All directions, with weights.
    All,
    /// The five directions that together gain most, with weights.
    Five,
    /// The direction that raises the label's words most, with its sign.
    One,
}

impl Mix {
    /// All mixes, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::All, Self::Five, Self::One];

    /// The name on the command line and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "mix",
            Self::Five => "mix5",
            Self::One => "effect",
        }
    }

    /// A description, as a plural.
    fn what(self) -> &'static str {
        match self {
            Self::All => "mixes of features by what they do, one a label",
            Self::Five => "mixes of five features",
            Self::One => "the features that raise each label's words most, with their signs",
        }
    }
}

/// The names of [`SetKind::TextGradient`], without and with the cut.
const TEXT_GRADIENT: [&str; 2] = ["textgrad", "textgrad-cut"];

impl Default for SetKind {
    fn default() -> Self {
        Self::FIT
    }
}

impl SetKind {
    /// The features of the selected fit, or of the newest.
    pub const FIT: Self = Self::Fit(None);

    /// The sets that every study with a fit has: its features, then the supervised baselines, then
    /// the others.
    pub fn usual() -> impl Iterator<Item = Self> {
        std::iter::once(Self::FIT).chain(Baseline::ALL.into_iter().map(Self::from))
    }

    /// The sets that are measured with the model: by its gradient, or by the effects of directions.
    /// They take minutes, and the measurements are saved in the study.
    pub fn measured() -> impl Iterator<Item = Self> {
        let gradients = [false, true].map(|cut| Self::TextGradient { cut, hook: None });
        let mixes = Mix::ALL.map(|mix| Self::Mixed { mix, of: None });
        gradients.into_iter().chain(mixes)
    }

    /// Whether the set is measured with the model.
    pub fn is_measured(&self) -> bool {
        matches!(self, Self::TextGradient { .. } | Self::Mixed { .. })
    }

    /// A description of a measured set; `None` for other sets.
    pub fn measured_description(&self) -> Option<&'static str> {
        match self {
            Self::TextGradient { cut: false, .. } => {
                Some("what makes a label's sentences likelier, by the model's gradient")
            }
            Self::TextGradient { cut: true, .. } => {
                Some("the same with as few neurons as a feature")
            }
            Self::Mixed { mix, .. } => Some(mix.what()),
            Self::Fit(_) | Self::Sae(_) | Self::File { .. } | Self::Baseline { .. } => None,
        }
    }

    /// The set whose directions a mix combines; `None` for other sets.
    pub fn source(&self) -> Option<Self> {
        let Self::Mixed { of, .. } = self else {
            return None;
        };
        let name = of.as_deref().map(|of| of.split('@').next().unwrap_or(of));
        let unsupervised = |b: &Baseline| !b.supervised() && Some(b.name()) == name;
        Some(match Baseline::ALL.into_iter().find(unsupervised) {
            Some(baseline) => baseline.into(),
            None => Self::Fit(of.clone()),
        })
    }

    /// The fit that determines the number, the sparsity and the hook of the baseline that a mix
    /// combines, if it is named; `None` otherwise.
    pub fn source_fit(&self) -> Option<&str> {
        let Self::Mixed { of: Some(of), .. } = self else {
            return None;
        };
        of.split_once('@').map(|(_, fit)| fit)
    }

    /// The same with another name of the fit or the autoencoder that it names.
    pub fn renamed(&self, name_of: &dyn Fn(&str) -> String) -> Self {
        match self {
            Self::Fit(Some(name)) => Self::Fit(Some(name_of(name))),
            Self::Sae(Some(name)) => Self::Sae(Some(name_of(name))),
            Self::Mixed { mix, of: Some(of) } => {
                let of = match (self.source(), of.split_once('@')) {
                    (Some(Self::Fit(_)), _) => name_of(of),
                    (_, Some((baseline, fit))) => format!("{baseline}@{}", name_of(fit)),
                    _ => of.clone(),
                };
                let (mix, of) = (*mix, Some(of));
                Self::Mixed { mix, of }
            }
            kind => kind.clone(),
        }
    }

    /// Whether its directions were made from labels, one per label.
    pub fn supervised(&self) -> bool {
        match self {
            Self::Baseline { kind, .. } => kind.supervised(),
            Self::TextGradient { .. } | Self::Mixed { .. } => true,
            Self::Fit(_) | Self::Sae(_) | Self::File { .. } => false,
        }
    }

    /// Whether an evaluation chooses the best of its directions for each label; otherwise label i
    /// has direction i.
    pub fn ranked(&self) -> bool {
        !matches!(self, Self::Baseline { kind, .. } if !kind.ranked())
    }

    /// The hook that the set names, if it names one.
    pub fn hook(&self) -> Option<HookPoint> {
        match self {
            Self::Baseline { hook, .. }
            | Self::File { hook, .. }
            | Self::TextGradient { hook, .. } => *hook,
            Self::Fit(_) | Self::Sae(_) | Self::Mixed { .. } => None,
        }
    }

    /// The names of all sets, for an error message.
    pub fn names() -> String {
        let baselines = Baseline::ALL.map(Baseline::name).join(", ");
        let measured: Vec<String> = Self::measured().map(|kind| kind.to_string()).collect();
        let measured = measured.join(", ");
        format!(
            "fit, fit:NAME, sae:NAME, file:PATH, {baselines}, {measured} ({AT_A_HOOK}; {OF_A_SET})"
        )
    }

    /// The names and descriptions of all sets, for help.
    pub fn described() -> String {
        let baselines = Baseline::ALL.map(|b| format!("{} ({})", b.name(), b.what()));
        let measured = Self::measured()
            .filter_map(|kind| Some(format!("{kind} ({})", kind.measured_description()?)));
        let measured: Vec<String> = measured.collect();
        format!(
            "fit or fit:NAME (features of an SNMF fit), sae or sae:NAME (decoder rows of an autoencoder), file:PATH (directions of your own: safetensors, npy, npz, gguf, pt), {}, {} ({AT_A_HOOK}; {OF_A_SET})",
            baselines.join(", "),
            measured.join(", ")
        )
    }

    /// Examples of how one direction of each set is written, for help.
    pub fn examples() -> String {
        let baselines = Baseline::ALL.map(|b| match b.supervised() {
            true => format!("{}:months", b.name()),
            false => format!("{}:7", b.name()),
        });
        format!(
            "{}, textgrad:months, mix:months, sae:NAME/17, fit:NAME/3, file:V.npy:0",
            baselines.join(", ")
        )
    }
}

/// The sets that may name a hook, with an example.
const AT_A_HOOK: &str = "those made of rows or read from a file and textgrad also at a hook: diffmean@15.hook_resid_post";
/// The sets that may name another set, with examples.
const OF_A_SET: &str =
    "mix, mix5 and effect also of another set than the fit: mix@FIT, mix@random, mix@random@FIT";

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit(None) => f.write_str("fit"),
            Self::Fit(Some(name)) => write!(f, "fit:{name}"),
            Self::Sae(None) => f.write_str("sae"),
            Self::Sae(Some(name)) => write!(f, "sae:{name}"),
            Self::File { path, hook: None } => write!(f, "file:{path}"),
            Self::File {
                path,
                hook: Some(hook),
            } => write!(f, "file:{path}@{}.{}", hook.layer, hook.site),
            Self::Baseline { kind, hook: None } => f.write_str(kind.name()),
            Self::Baseline {
                kind,
                hook: Some(hook),
            } => write!(f, "{}@{}.{}", kind.name(), hook.layer, hook.site),
            Self::TextGradient { cut, hook } => {
                f.write_str(TEXT_GRADIENT[usize::from(*cut)])?;
                match hook {
                    Some(hook) => write!(f, "@{}.{}", hook.layer, hook.site),
                    None => Ok(()),
                }
            }
            Self::Mixed { mix, of: None } => f.write_str(mix.name()),
            Self::Mixed { mix, of: Some(of) } => write!(f, "{}@{of}", mix.name()),
        }
    }
}

/// Parses "15.hook_resid_post", with or without "blocks." before it.
fn parse_hook(text: &str) -> Option<HookPoint> {
    let (layer, site) = text
        .strip_prefix("blocks.")
        .unwrap_or(text)
        .split_once('.')?;
    Some(HookPoint {
        layer: layer.parse().ok()?,
        site: site.parse().ok()?,
    })
}

impl FromStr for SetKind {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        if let Some(rest) = s.strip_prefix("file:").filter(|rest| !rest.is_empty()) {
            // A path may hold anything, also what separates a hook.
            let at = rest
                .rsplit_once('@')
                .and_then(|(path, hook)| Some((path, parse_hook(hook)?)));
            let (path, hook) = at.map_or((rest, None), |(path, hook)| (path, Some(hook)));
            return Ok(Self::File {
                path: path.to_owned(),
                hook,
            });
        }
        if let Some((kind, hook)) = s.split_once('@').filter(|(kind, _)| !kind.contains(':')) {
            let kind = match kind.parse()? {
                Self::Mixed { mix, .. } if !hook.is_empty() => {
                    let of = Some(hook.to_owned());
                    return Ok(Self::Mixed { mix, of });
                }
                kind @ (Self::Baseline { .. } | Self::TextGradient { .. }) => kind,
                kind @ (Self::Fit(_) | Self::Sae(_) | Self::File { .. } | Self::Mixed { .. }) => {
                    return Err(Error::usage(format!(
                        "a {kind} lies at the hook that it was made at: leave out what follows @"
                    )));
                }
            };
            let hook = parse_hook(hook).ok_or_else(|| {
                let what = hook.escape_debug();
                Error::usage(format!(
                    "'{what}' is no hook: write {kind}@15.mlp.hook_post, hook_mlp_out or hook_resid_post"
                ))
            })?;
            let hook = Some(hook);
            return Ok(match kind {
                Self::Baseline { kind, .. } => Self::Baseline { kind, hook },
                Self::TextGradient { cut, .. } => Self::TextGradient { cut, hook },
                kind => kind,
            });
        }
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let kind = match s.split_once(':') {
            Some(("fit", name)) => named(name).map(|n| Self::Fit(Some(n))),
            Some(("sae", name)) => named(name).map(|n| Self::Sae(Some(n))),
            Some(_) => None,
            None if s == "sae" => Some(Self::Sae(None)),
            None => Self::usual()
                .chain(Self::measured())
                .find(|k| k.to_string() == s),
        };
        kind.ok_or_else(|| {
            Error::usage(format!(
                "'{}' is no set of directions: use {}",
                s.escape_debug(),
                Self::names()
            ))
        })
    }
}

impl From<SetKind> for String {
    fn from(kind: SetKind) -> Self {
        kind.to_string()
    }
}

impl TryFrom<String> for SetKind {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HookSite;

    #[test]
    fn a_named_fit_gets_another_name_wherever_it_stands() {
        for (typed, renamed) in [
            ("fit:a", "fit:l3-a"),
            ("sae:a", "sae:l3-a"),
            ("mix@a", "mix@l3-a"),
            ("effect@random@a", "effect@random@l3-a"),
            ("mix5@random", "mix5@random"),
            ("mix", "mix"),
            ("fit", "fit"),
            ("diffmean@2.hook_mlp_out", "diffmean@2.hook_mlp_out"),
        ] {
            let kind: SetKind = typed.parse().unwrap();
            let found = kind.renamed(&|name| format!("l3-{name}"));
            assert_eq!(found.to_string(), renamed);
        }
    }

    #[test]
    fn kinds_are_typed_as_they_are_shown() {
        let named = [
            "fit:k100",
            "sae",
            "sae:layer_12-width_16k",
            "textgrad-cut@2.hook_resid_post",
            "mix@k400",
            "mix5@random",
            "effect@random@k400",
            "file:a/b@c:d.safetensors",
            "file:v.npy@2.hook_resid_post",
        ]
        .map(|text| text.parse().unwrap());
        for kind in SetKind::usual().chain(SetKind::measured()).chain(named) {
            assert_eq!(kind.to_string().parse::<SetKind>().unwrap(), kind);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<SetKind>(&json).unwrap(), kind);
        }
        let at: SetKind = "diffmean@15.hook_resid_post".parse().unwrap();
        assert_eq!(
            at.hook(),
            Some(HookPoint {
                layer: 15,
                site: HookSite::ResidPost
            })
        );
        let kind = Baseline::DiffMean;
        assert_eq!(
            at,
            SetKind::Baseline {
                kind,
                hook: at.hook()
            }
        );
        assert!(at.supervised() && at.ranked());
        assert_eq!(at.to_string().parse::<SetKind>().unwrap(), at);
        assert_eq!(
            "neuron@blocks.2.mlp.hook_post"
                .parse::<SetKind>()
                .unwrap()
                .to_string(),
            "neuron@2.mlp.hook_post"
        );
        assert_eq!(
            "sae:a@b".parse::<SetKind>().unwrap(),
            SetKind::Sae(Some("a@b".to_owned())),
            "a name may have one"
        );
        for bad in [
            "probes",
            "fit:",
            "sae:",
            "file:",
            "neuron:3",
            "",
            "fit@1.mlp.hook_post",
            "kmeans@",
            "mix@",
            "textgrad@k100",
            "kmeans@x.hook_mlp_out",
        ] {
            assert_eq!(bad.parse::<SetKind>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
