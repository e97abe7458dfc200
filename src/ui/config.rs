//! The configuration file: keys, colours, mouse. Owns its syntax and its complaints; a wrong line
//! never stops the explorer, and is never passed over in silence.
//!
//! ```toml
//! color = "256"          # auto, truecolor, 256, 16, none
//! background = "light"   # auto, dark, light
//! glyphs = "ascii"       # auto, ascii, unicode
//! mouse = false
//!
//! [keys]
//! "ctrl-o" = "sort"      # names as in `mlpeek keys`
//! "m" = "none"           # takes the key away
//! ```

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::action::{ACTIONS, Action};
use super::keymap::{Key, Keymap};
use super::theme::Profile;

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Keys, the defaults where the file says nothing.
    pub keymap: Keymap,
    /// How many colours are drawn with.
    pub colour: Option<Profile>,
    /// The terminal's background is light.
    pub light: Option<bool>,
    /// Only ASCII may reach the terminal.
    pub ascii: Option<bool>,
    /// Mouse capture at the start.
    pub mouse: Option<bool>,
    /// What is wrong with the file, each with its line: for a person.
    pub problems: Vec<String>,
}

/// Where the configuration lies: `$XDG_CONFIG_HOME/mlpeek/config.toml`.
pub fn path() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    etcetera::choose_base_strategy()
        .ok()
        .map(|s| s.config_dir().join("mlpeek").join("config.toml"))
}

/// Reads the user's file; without one, the defaults.
pub fn load() -> Config {
    let Some(path) = path() else {
        return Config::default();
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text, &path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Config::default(),
        Err(e) => Config {
            problems: vec![format!("{}: {e}; the defaults hold", path.display())],
            ..Config::default()
        },
    }
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    config: Config,
}

/// Reads a configuration; `path` is for its complaints.
pub fn parse(text: &str, path: &Path) -> Config {
    let mut reader = Reader {
        text,
        path,
        config: Config::default(),
    };
    match DeTable::parse(text) {
        Ok(table) => reader.table(table.get_ref()),
        Err(e) => {
            let what = format!("{}; the whole file is left aside", e.message());
            reader.complain(e.span().map_or(0, |s| s.start), &what);
        }
    }
    reader.config
}

impl Reader<'_> {
    fn complain(&mut self, at: usize, what: &str) {
        let line = self
            .text
            .get(..at)
            .unwrap_or(self.text)
            .matches('\n')
            .count()
            + 1;
        self.config
            .problems
            .push(format!("{}:{line}: {what}", self.path.display()));
    }

    fn table(&mut self, table: &DeTable) {
        for (name, value) in table {
            let at = name.span().start;
            let shown = value.get_ref();
            match (name.get_ref().as_ref(), shown) {
                ("keys", DeValue::Table(keys)) => self.keys(keys),
                ("color" | "colour", DeValue::String(s)) => match Profile::by_name(s) {
                    Some(profile) => self.config.colour = Some(profile),
                    None => self.complain(
                        at,
                        &format!("unknown color '{s}': auto, truecolor, 256, 16 or none"),
                    ),
                },
                ("background", DeValue::String(s)) => match s.as_ref() {
                    "light" => self.config.light = Some(true),
                    "dark" => self.config.light = Some(false),
                    "auto" => {}
                    _ => self.complain(
                        at,
                        &format!("unknown background '{s}': auto, dark or light"),
                    ),
                },
                ("glyphs", DeValue::String(s)) => match s.as_ref() {
                    "ascii" => self.config.ascii = Some(true),
                    "unicode" => self.config.ascii = Some(false),
                    "auto" => {}
                    _ => {
                        self.complain(at, &format!("unknown glyphs '{s}': auto, ascii or unicode"))
                    }
                },
                ("mouse", DeValue::Boolean(on)) => self.config.mouse = Some(*on),
                ("keys", _) => self.complain(at, "keys is a table: [keys]"),
                ("color" | "colour" | "background" | "glyphs", _) => {
                    self.complain(at, &format!("{} is a string", name.get_ref()))
                }
                ("mouse", _) => self.complain(at, "mouse is true or false"),
                (other, _) => {
                    let near = nearest(
                        other,
                        ["keys", "color", "background", "glyphs", "mouse"].into_iter(),
                    );
                    self.complain(at, &format!("unknown setting '{other}'{near}"));
                }
            }
        }
    }

    fn keys(&mut self, keys: &DeTable) {
        for (spelling, value) in keys {
            let at = spelling.span().start;
            let Some(key) = Key::parse(spelling.get_ref()) else {
                let (spelling, bare) =
                    (spelling.get_ref(), spelling.get_ref().to_ascii_lowercase());
                let name = bare
                    .rsplit_once('-')
                    .map_or(bare.as_str(), |(_, name)| name);
                let near = nearest(name, Key::names());
                let near = if near.contains("did you mean") {
                    near
                } else {
                    String::new()
                };
                let what = format!(
                    "unknown key '{spelling}'{near}: write it as j, G, ctrl-o, pageup, f5 or space"
                );
                self.complain(at, &what);
                continue;
            };
            let DeValue::String(name) = value.get_ref() else {
                self.complain(at, &format!("the action of '{key}' is a string"));
                continue;
            };
            match Action::by_name(name) {
                Some(action) => {
                    // A key that does the same in every pane takes it from those that had a use of
                    // their own for it.
                    let lost = self.config.keymap.bind(key, action);
                    let lost = lost
                        .into_iter()
                        .filter(|a| !a.info().panes.is_empty() && action.info().panes.is_empty());
                    for other in lost {
                        let (keymap, place) = (&self.config.keymap, other.info().place());
                        let left = match keymap.keys(other).as_slice() {
                            [] => format!(
                                "has no key now; : finds it, or \"KEY\" = \"{}\" gives it one",
                                other.info().name
                            ),
                            keys => format!("is at {}", keys.join(", ")),
                        };
                        let what = format!(
                            "'{key}' is {name} everywhere now: {} in {place} {left}",
                            other.info().name
                        );
                        self.complain(at, &what);
                    }
                }
                None if name == "none" => self.config.keymap.release(key),
                None => {
                    let near = nearest(name, ACTIONS.iter().map(|info| info.name));
                    self.complain(
                        value.span().start,
                        &format!("unknown action '{name}'{near}"),
                    );
                }
            }
        }
    }
}

/// `; did you mean 'sort'?`, when something is near enough.
fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> String {
    among
        .map(|candidate| (crate::text::edit_distance(name, candidate), candidate))
        .min()
        .filter(|(d, candidate)| *d <= 1 + candidate.len().min(name.len()) / 3)
        .map_or_else(
            || "; `mlpeek keys` lists what there is".to_owned(),
            |(_, near)| format!("; did you mean '{near}'?"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::pane_id::PaneId;

    fn read(text: &str) -> Config {
        parse(text, Path::new("config.toml"))
    }

    #[test]
    fn keys_can_be_rebound_and_unbound() {
        let config =
            read("mouse = false\ncolor = \"16\"\n[keys]\n\"ctrl-o\" = \"sort\"\nm = \"none\"\n");
        assert!(config.problems.is_empty(), "{:?}", config.problems);
        let action = |k: &str| {
            config
                .keymap
                .action(Key::parse(k).unwrap(), PaneId::Features)
        };
        assert_eq!(action("ctrl-o"), Some(Action::Sort));
        assert_eq!(action("s"), Some(Action::Sort), "the default stays");
        assert_eq!(action("m"), None);
        assert_eq!(
            (config.mouse, config.colour),
            (Some(false), Some(Profile::Ansi))
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_the_rest_holds() {
        let config = read(
            "colour = \"mauve\"\nmuose = true\n[keys]\nx = \"sorrt\"\n\"hyper-x\" = \"sort\"\ny = \"zoom\"\n",
        );
        let problems = config.problems.join("\n");
        assert!(
            problems.contains("config.toml:1: unknown color 'mauve'"),
            "{problems}"
        );
        assert!(
            problems.contains("config.toml:2: unknown setting 'muose'; did you mean 'mouse'?"),
            "{problems}"
        );
        assert!(
            problems.contains("config.toml:4: unknown action 'sorrt'; did you mean 'sort'?"),
            "{problems}"
        );
        assert!(
            problems.contains("config.toml:5: unknown key 'hyper-x'"),
            "{problems}"
        );
        let near = read("[keys]\npagedwn = \"sort\"\n\"ctrl-entre\" = \"sort\"\n")
            .problems
            .join("\n");
        assert!(
            near.contains("did you mean 'pagedown'?") && near.contains("did you mean 'enter'?"),
            "{near}"
        );
        assert_eq!(config.problems.len(), 4);
        assert_eq!(
            config
                .keymap
                .action(Key::parse("y").unwrap(), PaneId::Features),
            Some(Action::Zoom)
        );
    }

    #[test]
    fn a_key_for_everywhere_takes_it_from_a_pane_and_says_so() {
        let config = read("[keys]\ns = \"help\"\n");
        let action = |pane| config.keymap.action(Key::parse("s").unwrap(), pane);
        assert_eq!(
            (action(PaneId::Features), action(PaneId::Fit)),
            (Some(Action::Help), Some(Action::Help))
        );
        let problems = config.problems.join("\n");
        assert!(
            problems.contains("config.toml:2: 's' is help everywhere now: sort in Features"),
            "{problems}"
        );
        // What a person bound keeps its own key.
        let both = read("[keys]\ns = \"help\"\n\"ctrl-s\" = \"sort\"\n");
        assert_eq!(
            both.keymap
                .action(Key::parse("ctrl-s").unwrap(), PaneId::Features),
            Some(Action::Sort)
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_left_aside_with_its_line() {
        let config = read("mouse = true\n[keys\n");
        assert_eq!(config.problems.len(), 1);
        assert!(
            config.problems[0].starts_with("config.toml:2:"),
            "{:?}",
            config.problems
        );
        assert_eq!(config.mouse, None);
    }
}
