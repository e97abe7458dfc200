//! Baselines: directions that are computed from the rows of a study, to compare features with.
//!
//! Owns the table of baselines, from which help, error messages and the explorer take the name, the
//! description and the needs of each. Knows no study: rows and labels are passed in. Invariant: a
//! new baseline needs a row in this table and a file that makes it, and no other change.

pub mod diffmean;
pub mod kmeans;
pub mod probe;
pub mod random;

use std::borrow::Cow;

use super::{Directions, PlainSet, SetKind, support_size};
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::model::HookPoint;
use crate::task::TaskCtx;

/// A kind of direction that is made of activations, and of labels where it is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Baseline {
    /// The difference in means of each label.
    DiffMean,
    /// A logistic regression's weights for each label.
    Probe,
    /// Centroids of k-means, dense.
    KMeans,
    /// Centroids of k-means with only their largest entries.
    KMeansCut,
    /// Random directions, as sparse as the features of the fit.
    Random,
    /// The standard basis: each neuron by itself.
    Neuron,
}

/// The quantity that determines the number of a baseline's directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// One direction per label, made from that label: a supervised baseline.
    Labels,
    /// As many as the fit has features.
    Features,
    /// As many as the hook has neurons.
    Neurons,
}

/// A row of the table of baselines.
struct Row {
    /// The name on the command line and in output.
    name: &'static str,
    /// The title in the tables of an evaluation.
    title: &'static str,
    /// A description of its directions, as a plural that can follow a number.
    what: &'static str,
    /// What determines the number of directions.
    count: Count,
    /// Whether an evaluation chooses the best direction for each label; otherwise label i has
    /// direction i.
    ranked: bool,
    /// Whether an evaluation includes it if no methods are named; slow baselines are not included.
    usual: bool,
    /// Computes the directions: columns of d values, of any norm.
    make: fn(&BaselineData<'_>, &TaskCtx) -> Result<Directions>,
}

impl Baseline {
    /// Every baseline, the supervised ones first, in the order in which they are listed.
    pub const ALL: [Self; 6] = [
        Self::DiffMean,
        Self::Probe,
        Self::KMeans,
        Self::KMeansCut,
        Self::Random,
        Self::Neuron,
    ];

    /// The row of a baseline in the table.
    fn row(self) -> Row {
        match self {
            Self::DiffMean => Row {
                name: "diffmean",
                title: "DiffMean",
                what: "differences in means, one a label",
                count: Count::Labels,
                ranked: true,
                usual: true,
                make: |data, ctx| {
                    diffmean::directions(data.source, &data.row_labels, data.labels.len(), ctx)
                },
            },
            Self::Probe => Row {
                name: "probe",
                title: "linear probe",
                what: "weights of a logistic regression, one a label",
                count: Count::Labels,
                ranked: true,
                usual: false,
                make: |data, ctx| {
                    probe::directions(data.source, &data.row_labels, data.labels.len(), ctx)
                },
            },
            Self::KMeans => Row {
                name: "kmeans",
                title: "k-means",
                what: "centroids of k-means, as many as features",
                count: Count::Features,
                ranked: true,
                usual: true,
                make: centroids,
            },
            Self::KMeansCut => Row {
                name: "kmeans-cut",
                title: "k-means, cut",
                what: "centroids with as few neurons as a feature",
                count: Count::Features,
                ranked: true,
                usual: true,
                make: |data, ctx| Ok(centroids(data, ctx)?.cut(data.entries())),
            },
            Self::Random => Row {
                name: "random",
                title: "random directions",
                what: "random directions as sparse as the features",
                count: Count::Features,
                ranked: false,
                usual: true,
                make: |data, _| {
                    let (config, d) = (&data.config, data.source.shape().1);
                    Ok(random::directions(
                        d,
                        config.features,
                        data.entries(),
                        config.seed,
                    ))
                },
            },
            Self::Neuron => Row {
                name: "neuron",
                title: "single neurons",
                what: "neurons, each by itself",
                count: Count::Neurons,
                ranked: true,
                usual: true,
                make: |data, _| Ok(Directions::Neurons(data.source.shape().1)),
            },
        }
    }

    /// The name on the command line and in output.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The title in the tables of an evaluation.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// The dense baseline whose directions it reduces to their largest entries; `None` for other
    /// baselines.
    pub fn dense_baseline(self) -> Option<Self> {
        (self == Self::KMeansCut).then_some(Self::KMeans)
    }

    /// A description of its directions, as a plural that can follow a number.
    pub fn what(self) -> &'static str {
        self.row().what
    }

    /// What determines the number of its directions.
    pub fn count(self) -> Count {
        self.row().count
    }

    /// Whether its directions are made from labels, one per label.
    pub fn supervised(self) -> bool {
        self.row().count == Count::Labels
    }

    /// Whether an evaluation chooses the best of its directions for a label; otherwise label i has
    /// direction i.
    pub fn ranked(self) -> bool {
        self.row().ranked
    }

    /// Whether an evaluation includes it if no methods are named.
    pub fn usual(self) -> bool {
        self.row().usual
    }

    /// Makes the set named `name` from the given rows. The directions of a supervised set have the
    /// labels as their titles.
    ///
    /// # Errors
    /// [`Error::Usage`] for a supervised baseline without labels; [`Error::Refused`] for more
    /// centroids than rows; what reading the rows returns; [`Error::Cancelled`].
    pub fn make(self, name: String, data: &BaselineData<'_>, ctx: &TaskCtx) -> Result<PlainSet> {
        let row = self.row();
        if self.supervised() && data.labels.is_empty() {
            return Err(Error::usage(format!(
                "the corpus has no labels, which {} needs: collect one that has (JSON: label → list of texts)",
                row.name
            )));
        }
        let titles = if self.supervised() {
            data.labels.clone()
        } else {
            Vec::new()
        };
        Ok(PlainSet::new(
            name,
            data.hook,
            (row.make)(data, ctx)?,
            titles,
        ))
    }
}

/// The rows and labels from which a baseline is made, and the configuration of the fit whose number
/// of features, sparsity and seed it uses.
pub struct BaselineData<'a> {
    /// The hook that the rows are activations of.
    pub hook: HookPoint,
    /// The rows, n × d.
    pub source: &'a dyn ActivationSource,
    /// The label of each of the n rows, as an index of `labels`.
    pub row_labels: Cow<'a, [Option<u32>]>,
    /// The names of the labels.
    pub labels: Vec<String>,
    /// k, the share of neurons of a feature and the seed.
    pub config: FitConfig,
}

impl BaselineData<'_> {
    /// The largest number of neurons of a feature of the fit.
    fn entries(&self) -> usize {
        let d = self.source.shape().1;
        support_size(self.config.sparsity_at(d), d)
    }
}

/// k centroids of all rows.
fn centroids(data: &BaselineData<'_>, ctx: &TaskCtx) -> Result<Directions> {
    kmeans::directions(data.source, data.config.features, data.config.seed, ctx)
}

impl From<Baseline> for SetKind {
    fn from(kind: Baseline) -> Self {
        Self::Baseline { kind, hook: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;
    use crate::directions::DirectionSet;
    use crate::model::HookSite;

    #[test]
    fn every_baseline_is_in_the_table_once_and_the_supervised_ones_lead() {
        let mut names = Baseline::ALL.map(Baseline::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(Baseline::ALL.is_sorted_by_key(|b| !b.supervised()));
        for reserved in ["fit", "sae", "shuffled"] {
            assert!(
                !names.contains(&reserved),
                "{reserved} means something else"
            );
        }
    }

    #[test]
    fn each_kind_is_made_of_the_rows_it_is_given() {
        let source = InMemory::new(
            4,
            3,
            vec![1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 4.0],
        );
        let mut data = BaselineData {
            hook: HookPoint {
                layer: 1,
                site: HookSite::MlpPost,
            },
            source: &source,
            row_labels: vec![Some(0), Some(0), Some(1), None].into(),
            labels: vec!["a".into(), "b".into()],
            config: FitConfig {
                features: 2,
                sparsity: Some(0.3),
                ..FitConfig::default()
            },
        };
        let make = |kind: Baseline, data: &BaselineData<'_>| {
            kind.make(kind.name().to_owned(), data, &TaskCtx::silent())
        };
        for kind in Baseline::ALL {
            let set = make(kind, &data).unwrap();
            let count = match kind.count() {
                Count::Labels | Count::Features => 2,
                Count::Neurons => 3,
            };
            let directions = set.directions();
            assert_eq!(
                (directions.count(), directions.height(), set.name()),
                (count, 3, kind.name())
            );
        }
        // ⌈0.3 · 3⌉ neurons of each centroid.
        let whole = make(Baseline::KMeans, &data).unwrap();
        let cut = make(Baseline::KMeansCut, &data).unwrap();
        assert_eq!(cut.directions(), &whole.directions().cut(1));
        let means = make(Baseline::DiffMean, &data).unwrap();
        assert_eq!(
            (means.title(1), means.directions().column(0)),
            (Some("b"), vec![1.5, 0.0, -4.5])
        );
        data.labels.clear();
        let error = make(Baseline::DiffMean, &data).unwrap_err();
        assert!(error.to_string().contains("no labels"), "{error}");
    }
}
