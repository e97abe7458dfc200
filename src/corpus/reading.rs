//! Samples as they are read, with a count of everything that was odd: nothing is dropped or changed
//! without a word.

use super::Sample;

/// Names that a message has room for.
const NAMES: usize = 12;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) samples: Vec<Sample>,
    /// Lines to be told, each with a count.
    pub(super) notes: Vec<String>,
    empty_texts: usize,
    empty_labels: usize,
    /// Entries with both a prompt and a text.
    pub(super) both: usize,
    /// An entry has a label, though it may be null.
    labelled: bool,
    /// Keys or columns that are not read, as they came.
    unread: Vec<String>,
}

impl Reading {
    pub(super) fn push(&mut self, text: String, label: Option<String>) {
        let empty = label.as_deref() == Some("");
        self.labelled |= label.is_some();
        self.empty_labels += usize::from(empty);
        self.empty_texts += usize::from(text.trim().is_empty());
        self.samples.push(Sample {
            text,
            label: label.filter(|_| !empty),
        });
    }

    /// A label that is there and null.
    pub(super) fn push_unlabelled(&mut self, text: String) {
        self.push(text, Some(String::new()));
    }

    /// Keys or columns that are there beside those that are read.
    pub(super) fn leave<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            if self.unread.len() <= NAMES && !self.unread.iter().any(|n| n == name) {
                self.unread.push(name.to_owned());
            }
        }
    }

    /// The samples and everything that is to be told of them.
    pub(super) fn finish(mut self) -> (Vec<Sample>, Vec<String>) {
        let mut tell = |count: usize, one: &str, many: &str, what: &str| {
            if count > 0 {
                self.notes
                    .push(format!("{}{what}", plural(count, one, many)));
            }
        };
        tell(
            self.empty_texts,
            "text is",
            "texts are",
            " empty, kept as samples without words",
        );
        tell(
            self.empty_labels,
            "label is",
            "labels are",
            " null or empty: read as texts without a label",
        );
        tell(
            self.both,
            "entry has",
            "entries have",
            " both a prompt and a text: the prompt is read",
        );
        if !self.labelled && !self.unread.is_empty() {
            let unread = names(self.unread.iter().map(String::as_str));
            self.notes.push(format!(
                "no entry has a \"label\", so texts have none (there is {unread} besides the text)"
            ));
        }
        (self.samples, self.notes)
    }
}

/// "1 half", "3 halves".
pub(super) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Names of keys or columns in a list for a message, no longer than a line has room for.
pub(super) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const LONGEST: usize = 40;
    let mut shown = Vec::new();
    let mut more = 0;
    for name in names {
        if shown.len() == NAMES {
            more += 1;
            continue;
        }
        let short: String = name.chars().take(LONGEST).collect();
        let cut = if short.len() < name.len() { "…" } else { "" };
        shown.push(format!("{}{cut}", short.escape_debug()));
    }
    match (shown.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (_, 0) => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether a name is among those of a list, separated by spaces.
pub(super) fn is_among(list: &str, name: &str) -> bool {
    list.split(' ').any(|one| one == name)
}
