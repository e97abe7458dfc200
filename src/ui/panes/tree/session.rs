//! What the tree remembers from one run to the next: measure, folds, cursor, search, levels.

use serde_json::{Value, json};

use super::TreePane;
use super::plot::Item;
use crate::ui::input::LineInput;

impl TreePane {
    pub(super) fn session_value(&self) -> Value {
        let mut session = json!({
            "overlap": self.overlap,
            "linkage": self.linkage,
            "search": self.query.text(),
            "levels": self.levels.session(),
        });
        // What was saved and not taken up yet is still to come.
        let tree = if self.plot.is_empty() {
            self.saved.clone().unwrap_or_default()
        } else {
            self.saved_tree()
        };
        if let (Some(all), Value::Object(tree)) = (session.as_object_mut(), tree) {
            for name in [
                "fit",
                "fold_height",
                "alone_open",
                "folded",
                "unfolded",
                "cursor",
            ] {
                all.extend(tree.get(name).map(|value| (name.to_owned(), value.clone())));
            }
        }
        session
    }

    /// Folds and cursor. Clusters are named by their features, so that they are of one fit.
    fn saved_tree(&self) -> Value {
        let by_hand = |folded: bool| -> Vec<u64> {
            let mut keys: Vec<u64> = self
                .folds
                .by_hand
                .iter()
                .filter(|(_, f)| **f == folded)
                .map(|(key, _)| *key)
                .collect();
            keys.sort_unstable();
            keys
        };
        let cursor = self.cursor.map(|item| match item {
            Item::Node(node) => json!(self.plot.key(node)),
            Item::Alone => json!("alone"),
        });
        json!({
            "fit": self.folds_of,
            "fold_height": self.folds.height.is_finite().then_some(self.folds.height),
            "alone_open": self.folds.alone_open,
            "folded": by_hand(true),
            "unfolded": by_hand(false),
            "cursor": cursor,
        })
    }

    pub(super) fn restore_session(&mut self, session: &Value) {
        self.overlap = serde_json::from_value(session["overlap"].clone()).unwrap_or(self.overlap);
        self.linkage = serde_json::from_value(session["linkage"].clone()).unwrap_or(self.linkage);
        self.query = LineInput::new(session["search"].as_str().unwrap_or_default());
        self.levels.restore(&session["levels"]);
        self.saved = Some(session.clone());
    }

    /// Takes up the folds that a session saved, and tells where its cursor was; nothing where they
    /// are of another fit.
    pub(super) fn restore_folds(&mut self) -> Option<Item> {
        let saved = self.saved.take()?;
        if saved["fit"]
            .as_str()
            .is_some_and(|fit| self.folds_of.as_deref() != Some(fit))
        {
            return None;
        }
        if saved["fold_height"].is_null() && saved["folded"].is_null() {
            // It was left before its tree was seen.
            return None;
        }
        self.folds.height = saved["fold_height"]
            .as_f64()
            .map_or(f32::NEG_INFINITY, |height| height as f32);
        self.folds.alone_open = saved["alone_open"]
            .as_bool()
            .unwrap_or(self.folds.alone_open);
        for (name, folded) in [("folded", true), ("unfolded", false)] {
            let keys = saved[name]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_u64);
            self.folds.by_hand.extend(keys.map(|key| (key, folded)));
        }
        match &saved["cursor"] {
            Value::String(alone) if alone == "alone" => Some(Item::Alone),
            key => key
                .as_u64()
                .and_then(|key| self.plot.by_key(key))
                .map(Item::Node),
        }
    }
}
