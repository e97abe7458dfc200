//! The pages of the guide, shown by `mlpeek guide` and in this documentation.
//!
//! Owns the list of the pages, which lie in `src/guide/` and are embedded in the binary. Knows
//! nothing of their content.

/// A page of the guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The name that `mlpeek guide` takes.
    pub topic: &'static str,
    /// The subject in a few words, for the list of pages.
    pub about: &'static str,
    /// The text in Markdown.
    pub text: &'static str,
}

/// Declares a module for each page, for rustdoc, and the list of pages.
macro_rules! pages {
    ($($topic:ident: $about:literal),* $(,)?) => {
        /// Every page, in the order of a first reading.
        pub const PAGES: &[Page] = &[$(Page {
            topic: stringify!($topic),
            about: $about,
            text: include_str!(concat!("guide/", stringify!($topic), ".md")),
        }),*];
        $(
            #[doc = include_str!(concat!("guide/", stringify!($topic), ".md"))]
            pub mod $topic {}
        )*
    };
}

pages! {
    using: "panes, keys, filters, notes, every command, over SSH, a cluster of features taken apart",
    method: "the factorisation, its options, levels; what to cite",
    evaluation: "how directions are judged, and what came of it",
    results: "quality of features, and beside sparse autoencoders",
    benchmarks: "speed and memory beside others",
    parity: "every family of models beside Hugging Face transformers",
    gpu: "building for a card, which card, memory, the self-test",
    files: "the files of a study, to the byte",
    formats: "what is written for other tools and read from them, and by which conventions",
    python: "studies as numpy arrays, the program's answers as objects, steering other libraries' models",
    json: "the fields that every command prints",
    architecture: "the rooms of the code, and what a key and a fit do",
    contributing: "where a change goes, and how to test it",
}

/// The page of a topic; `None` if there is none of that name.
pub fn page(topic: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.topic == topic)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_page_is_listed_and_every_link_leads_to_a_page() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pages: Vec<_> = std::fs::read_dir(root.join("src/guide"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        pages.sort();
        let mut listed: Vec<_> = PAGES
            .iter()
            .map(|p| root.join(format!("src/guide/{}.md", p.topic)))
            .collect();
        listed.sort();
        assert_eq!(pages, listed);
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        for page in PAGES {
            assert!(
                page.text.starts_with("# "),
                "{} begins with its title",
                page.topic
            );
            assert!(
                readme.contains(&format!(
                    "[{0}](src/guide/{0}.md) | {1} |",
                    page.topic, page.about
                )),
                "{}",
                page.topic
            );
            for (at, _) in page.text.match_indices("](") {
                let target = page.text[at + 2..].split(')').next().unwrap();
                let is_page = target
                    .strip_suffix(".md")
                    .is_some_and(|topic| super::page(topic).is_some());
                assert!(
                    is_page || target.starts_with("http"),
                    "{} links to {target}",
                    page.topic
                );
            }
        }
    }

    #[test]
    fn the_readme_is_short() {
        let readme =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
        assert!(
            readme.len() <= 10_000,
            "{} bytes: what is longer belongs into the guide",
            readme.len()
        );
    }
}
