//! What is steered with belongs to the list that it was taken from: a fit's features, or a set of
//! directions. Owns what was chosen of the lists that are not on show.

use std::collections::HashMap;

use super::values::Values;
use crate::engine::FeatureList;

/// The features with their weights, and their cluster.
type Selection = (Vec<(usize, f32)>, Vec<usize>);

/// The list on show, and what was chosen of the others.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// The name of the list on show.
    shown: Option<String>,
    /// The set that it is, where it is no fit.
    pub set: Option<String>,
    /// The fit that was last on show.
    fit: Option<String>,
    others: HashMap<String, Selection>,
}

impl Lists {
    /// A session goes on whose form is of this fit.
    pub fn restore(&mut self, fit: Option<&str>) {
        let fit = fit.map(str::to_owned);
        *self = Self {
            shown: fit.clone(),
            fit,
            ..Self::default()
        };
    }

    /// The fit on show, or that was last.
    pub fn fit(&self) -> Option<&str> {
        self.fit.as_deref()
    }

    /// Another list may be on show: its own choice takes the place of the one before. Whether it is
    /// another.
    pub fn change_list(&mut self, list: &FeatureList, values: &mut Values) -> bool {
        self.set = list.set.as_ref().map(|set| set.kind.to_string());
        if self.set.is_none() {
            self.fit = Some(list.fit.clone());
        }
        let before = self.shown.replace(list.fit.clone());
        let Some(before) = before.filter(|before| *before != list.fit) else {
            return false;
        };
        let (features, cluster) = self.others.remove(&list.fit).unwrap_or_default();
        let chosen = (
            std::mem::replace(&mut values.features, features),
            std::mem::replace(&mut values.cluster, cluster),
        );
        self.others.insert(before, chosen);
        true
    }

    /// The values with what was chosen of the fit: what a session remembers begins with a fit on
    /// show.
    pub fn of_fit(&self, values: &Values) -> Values {
        let mut values = values.clone();
        if self.set.is_some() {
            let kept = self
                .fit
                .as_ref()
                .and_then(|fit| self.others.get(fit))
                .cloned();
            (values.features, values.cluster) = kept.unwrap_or_default();
        }
        values
    }

    /// Another study: its lists are others, whatever they are called.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
