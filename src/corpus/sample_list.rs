//! Samples as they are read, with a count of everything unusual, so that nothing is dropped or
//! changed without a note.

use super::Sample;

/// At most so many names are listed in a message.
const NAMES: usize = 12;

/// The samples that were read so far.
#[derive(Debug, Default)]
pub(super) struct SampleList {
    pub(super) samples: Vec<Sample>,
    /// Remarks for the user, a line each.
    pub(super) notes: Vec<String>,
    empty_texts: usize,
    empty_labels: usize,
    /// Entries with both a prompt and a text.
    pub(super) both: usize,
    /// Whether any entry has a label, be it null.
    labelled: bool,
    /// Keys or columns that are not read, in the order of their first appearance.
    ignored: Vec<String>,
}

impl SampleList {
    /// Adds a text; an empty label counts as none.
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

    /// Adds a text whose label is null.
    pub(super) fn push_unlabelled(&mut self, text: String) {
        self.push(text, Some(String::new()));
    }

    /// Records keys or columns that are not read.
    pub(super) fn ignore<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            if self.ignored.len() <= NAMES && !self.ignored.iter().any(|n| n == name) {
                self.ignored.push(name.to_owned());
            }
        }
    }

    /// The samples, and remarks on them for the user.
    pub(super) fn finish(mut self) -> (Vec<Sample>, Vec<String>) {
        let mut note = |count: usize, one: &str, many: &str, what: &str| {
            if count > 0 {
                self.notes
                    .push(format!("{}{what}", plural(count, one, many)));
            }
        };
        note(
            self.empty_texts,
            "text is",
            "texts are",
            " empty, kept as samples without words",
        );
        note(
            self.empty_labels,
            "label is",
            "labels are",
            " null or empty: read as texts without a label",
        );
        note(
            self.both,
            "entry has",
            "entries have",
            " both a prompt and a text: the prompt is read",
        );
        if !self.labelled && !self.ignored.is_empty() {
            let ignored = names(self.ignored.iter().map(String::as_str));
            self.notes.push(format!(
                "no entry has a \"label\", so texts have none (there is {ignored} besides the text)"
            ));
        }
        (self.samples, self.notes)
    }
}

/// "1 half", "3 halves".
pub(super) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Names of keys or columns as a list for a message, shortened to fit a line.
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

/// Whether `name` is one of the names in `list`, which are separated by spaces.
pub(super) fn is_among(list: &str, name: &str) -> bool {
    list.split(' ').any(|one| one == name)
}
