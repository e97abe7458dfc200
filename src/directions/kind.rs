//! Which sets of directions there are, as they are typed and shown. Knows no directions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Baseline;
use crate::error::{Error, Result};
use crate::model::HookPoint;

/// Which set of directions, as it is typed: `fit`, `fit:NAME`, `sae`, `sae:NAME`, or the name of a
/// [`Baseline`], also at a hook of its own: `diffmean@15.hook_resid_post`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum SetKind {
    /// Features of an SNMF fit; without a name the one that the place says, or the newest.
    Fit(Option<String>),
    /// Decoder rows of a sparse autoencoder; without a name the newest.
    Sae(Option<String>),
    /// Directions made from the study's rows.
    Baseline {
        /// How they are made.
        kind: Baseline,
        /// The hook whose rows they are made from; `None`: the hook of the place.
        hook: Option<HookPoint>,
    },
}

impl Default for SetKind {
    fn default() -> Self {
        Self::FIT
    }
}

impl SetKind {
    /// Features of the fit that is meant where none is named.
    pub const FIT: Self = Self::Fit(None);

    /// The sets that every study with a fit has: its features, then the supervised baselines, then
    /// the others.
    pub fn usual() -> impl Iterator<Item = Self> {
        std::iter::once(Self::FIT).chain(Baseline::ALL.into_iter().map(Self::from))
    }

    /// Whether its directions were made from labels, one a label.
    pub fn supervised(&self) -> bool {
        matches!(self, Self::Baseline { kind, .. } if kind.supervised())
    }

    /// Whether an evaluation chooses the best of its directions for a label; otherwise label i has
    /// direction i.
    pub fn ranked(&self) -> bool {
        !matches!(self, Self::Baseline { kind, .. } if !kind.ranked())
    }

    /// The hook that it names itself.
    pub fn hook(&self) -> Option<HookPoint> {
        match self {
            Self::Baseline { hook, .. } => *hook,
            Self::Fit(_) | Self::Sae(_) => None,
        }
    }

    /// What can be typed, for a refusal.
    pub fn names() -> String {
        let baselines = Baseline::ALL.map(Baseline::name).join(", ");
        format!("fit, fit:NAME, sae:NAME, {baselines} ({AT_A_HOOK})")
    }

    /// What can be typed and what each is, for help.
    pub fn described() -> String {
        let baselines = Baseline::ALL.map(|b| format!("{} ({})", b.name(), b.what()));
        format!(
            "fit or fit:NAME (features of an SNMF fit), sae or sae:NAME (decoder rows of an autoencoder), {} ({AT_A_HOOK})",
            baselines.join(", ")
        )
    }

    /// How one direction of each set is typed, for help.
    pub fn examples() -> String {
        let baselines = Baseline::ALL.map(|b| match b.supervised() {
            true => format!("{}:months", b.name()),
            false => format!("{}:7", b.name()),
        });
        format!("{}, sae:NAME/17, fit:NAME/3", baselines.join(", "))
    }
}

/// Which sets may name a hook, and how.
const AT_A_HOOK: &str = "all but fits and autoencoders also at a hook: diffmean@15.hook_resid_post";

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit(None) => f.write_str("fit"),
            Self::Fit(Some(name)) => write!(f, "fit:{name}"),
            Self::Sae(None) => f.write_str("sae"),
            Self::Sae(Some(name)) => write!(f, "sae:{name}"),
            Self::Baseline { kind, hook: None } => f.write_str(kind.name()),
            Self::Baseline {
                kind,
                hook: Some(hook),
            } => write!(f, "{}@{}.{}", kind.name(), hook.layer, hook.site),
        }
    }
}

/// "15.hook_resid_post", with or without "blocks." before it.
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
        if let Some((kind, hook)) = s.split_once('@').filter(|(kind, _)| !kind.contains(':')) {
            let kind = match kind.parse()? {
                Self::Baseline { kind, .. } => kind,
                kind @ (Self::Fit(_) | Self::Sae(_)) => {
                    return Err(Error::usage(format!(
                        "a {kind} lies at the hook that it was made at: leave out what follows @"
                    )));
                }
            };
            let hook = parse_hook(hook).ok_or_else(|| {
                let (what, kind) = (hook.escape_debug(), kind.name());
                Error::usage(format!(
                    "'{what}' is no hook: write {kind}@15.mlp.hook_post, hook_mlp_out or hook_resid_post"
                ))
            })?;
            return Ok(Self::Baseline {
                kind,
                hook: Some(hook),
            });
        }
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let kind = match s.split_once(':') {
            Some(("fit", name)) => named(name).map(|n| Self::Fit(Some(n))),
            Some(("sae", name)) => named(name).map(|n| Self::Sae(Some(n))),
            Some(_) => None,
            None if s == "sae" => Some(Self::Sae(None)),
            None => Self::usual().find(|k| k.to_string() == s),
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
    fn kinds_are_typed_as_they_are_shown() {
        let named = ["fit:k100", "sae", "sae:layer_12-width_16k"].map(|text| text.parse().unwrap());
        for kind in SetKind::usual().chain(named) {
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
            "neuron:3",
            "",
            "fit@1.mlp.hook_post",
            "kmeans@",
            "kmeans@x.hook_mlp_out",
        ] {
            assert_eq!(bad.parse::<SetKind>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
