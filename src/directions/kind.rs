//! Which sets of directions there are, as they are typed and shown. Knows no directions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::HookPoint;

/// Which set of directions, as it is typed: `fit`, `fit:NAME`, `sae:NAME`, `diffmean`, `kmeans`,
/// `kmeans-cut`, `random`, `neuron`; the last five also at a hook of their own:
/// `diffmean@15.hook_resid_post`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum SetKind {
    /// Features of an SNMF fit; without a name the one that the place says, or the newest.
    Fit(Option<String>),
    /// Decoder rows of a sparse autoencoder; without a name the newest.
    Sae(Option<String>),
    /// One difference in means a label: supervised.
    DiffMean,
    /// Centroids of k-means, as many as the fit has features.
    KMeans,
    /// The same with only so many neurons, the largest, as a feature of the fit may use.
    KMeansCut,
    /// Random directions as sparse and as many as the fit's features.
    Random,
    /// Each neuron by itself.
    Neuron,
    /// One of the kinds that are made of a study's rows, at this hook whatever the place.
    At(Box<SetKind>, HookPoint),
}

impl Default for SetKind {
    fn default() -> Self {
        Self::FIT
    }
}

impl SetKind {
    /// Features of the fit that is meant where none is named.
    pub const FIT: Self = Self::Fit(None);

    /// Those that every study with a fit has.
    pub const USUAL: [Self; 6] = [
        Self::FIT,
        Self::DiffMean,
        Self::KMeans,
        Self::KMeansCut,
        Self::Random,
        Self::Neuron,
    ];

    /// Whether its directions were made from labels, one a label.
    pub fn supervised(&self) -> bool {
        *self.base() == Self::DiffMean
    }

    /// The kind, wherever it is.
    pub fn base(&self) -> &Self {
        match self {
            Self::At(kind, _) => kind,
            kind => kind,
        }
    }

    /// The hook that it names itself.
    pub fn hook(&self) -> Option<HookPoint> {
        match self {
            Self::At(_, hook) => Some(*hook),
            _ => None,
        }
    }
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit(None) => f.write_str("fit"),
            Self::Fit(Some(name)) => write!(f, "fit:{name}"),
            Self::Sae(None) => f.write_str("sae"),
            Self::Sae(Some(name)) => write!(f, "sae:{name}"),
            Self::DiffMean => f.write_str("diffmean"),
            Self::KMeans => f.write_str("kmeans"),
            Self::KMeansCut => f.write_str("kmeans-cut"),
            Self::Random => f.write_str("random"),
            Self::Neuron => f.write_str("neuron"),
            Self::At(kind, hook) => write!(f, "{kind}@{}.{}", hook.layer, hook.site),
        }
    }
}

/// "15.hook_resid_post", with or without "blocks." before it.
fn read_hook(text: &str) -> Option<HookPoint> {
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
            let kind: Self = kind.parse()?;
            if matches!(kind, Self::Fit(_) | Self::Sae(_)) {
                return Err(Error::usage(format!(
                    "a {kind} lies at the hook that it was made at: leave out what follows @"
                )));
            }
            let wrong = || {
                let (what, kind) = (hook.escape_debug(), &kind);
                Error::usage(format!(
                    "'{what}' is no hook: write {kind}@15.mlp.hook_post, hook_mlp_out or hook_resid_post"
                ))
            };
            let hook = read_hook(hook).ok_or_else(wrong)?;
            return Ok(Self::At(Box::new(kind), hook));
        }
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let kind = match s.split_once(':') {
            Some(("fit", name)) => named(name).map(|n| Self::Fit(Some(n))),
            Some(("sae", name)) => named(name).map(|n| Self::Sae(Some(n))),
            Some(_) => None,
            None if s == "sae" => Some(Self::Sae(None)),
            None => Self::USUAL.into_iter().find(|k| k.to_string() == s),
        };
        kind.ok_or_else(|| {
            Error::usage(format!(
                "'{}' is no set of directions: use fit, fit:NAME, sae:NAME, diffmean, kmeans, kmeans-cut, random, neuron (the last five also at a \
                 hook: diffmean@15.hook_resid_post)",
                s.escape_debug()
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
        for kind in SetKind::USUAL.into_iter().chain(named) {
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
        assert!(at.supervised() && *at.base() == SetKind::DiffMean);
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
