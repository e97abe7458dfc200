//! What an evaluation by descriptions came to, plain data for whoever shows it.

use serde::{Deserialize, Serialize};

use super::super::causal::Causal;
use crate::eval::steering::report::MeanInterval;
use crate::eval::steering::side::Side;

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// What steering does, a side each: tables of two judges, as each reads another description.
    pub sides: Vec<Causal>,
    /// What sentences for the descriptions tell, a line a method and side.
    pub detections: Vec<SideDetection>,
    /// What each feature was judged by.
    pub concepts: Vec<ConceptLine>,
}

/// How directions of a method tell sentences that fit a description from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideDetection {
    /// Name of the method.
    pub method: String,
    /// Of which descriptions.
    pub side: Side,
    /// Where its directions live.
    pub hook: String,
    /// S_CD, the mean over features where it is defined.
    pub s_cd: Option<MeanInterval>,
    /// The share of features whose S_CD is above 0, of those where it is defined.
    pub above_0: Option<f64>,
    /// Features whose mean scores are not both above 0.
    pub undefined: usize,
    /// Features that have sentences.
    pub features: usize,
}

/// A feature with a description of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConceptLine {
    /// The name of its set.
    pub set: String,
    /// Its number there.
    pub feature: usize,
    /// Which side is described.
    pub side: Side,
    /// The description, one line as its author gave it.
    pub description: String,
    /// Who described it.
    pub described_by: String,
    /// Its own direction's S_CD.
    pub s_cd: Option<f64>,
}
