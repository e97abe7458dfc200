//! From keys to actions and back. Owns the spelling of keys and the binding table; refuses to know
//! what an action does.
//!
//! Invariant: a pane's own binding wins over a global one, and what help shows is what the keys do
//! now.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::action::{ACTIONS, Action, ActionInfo};
use crate::ui::pane_id::PaneId;

/// A key with its modifiers, normalised: shift is kept only where the character does not already
/// say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

const NAMED: &[(&str, KeyCode)] = &[
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("space", KeyCode::Char(' ')),
];

impl Key {
    /// From a terminal's event.
    pub fn of(event: KeyEvent) -> Self {
        let mut modifiers =
            event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let mut code = event.code;
        if let KeyCode::Char(c) = code {
            // ctrl-shift-p and ctrl-p arrive as the same key on most terminals.
            if modifiers.contains(KeyModifiers::CONTROL) {
                code = KeyCode::Char(c.to_ascii_lowercase());
            }
            modifiers.remove(KeyModifiers::SHIFT);
        }
        if code == KeyCode::BackTab {
            modifiers.remove(KeyModifiers::SHIFT);
        }
        Self { code, modifiers }
    }

    /// As a terminal would send it.
    pub fn event(self) -> KeyEvent {
        KeyEvent::new(self.code, self.modifiers)
    }

    /// Whether it cannot be text: a function key, or one with ctrl or alt.
    pub fn is_command(self) -> bool {
        !matches!(
            self.code,
            KeyCode::Char(_) | KeyCode::Backspace | KeyCode::Delete
        ) || self
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
    }

    /// The names of keys that have one.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, _)| *name)
    }

    /// From its spelling: `j`, `G`, `ctrl-p`, `alt-enter`, `pageup`, `f5`, `space`.
    pub fn parse(spelling: &str) -> Option<Self> {
        let mut modifiers = KeyModifiers::NONE;
        let mut rest = spelling;
        loop {
            let lower = rest.to_ascii_lowercase();
            let (modifier, cut) = match () {
                () if lower.starts_with("ctrl-") => (KeyModifiers::CONTROL, 5),
                () if lower.starts_with("alt-") => (KeyModifiers::ALT, 4),
                () if lower.starts_with("shift-") => (KeyModifiers::SHIFT, 6),
                () => break,
            };
            modifiers |= modifier;
            rest = &rest[cut..];
        }
        let lower = rest.to_ascii_lowercase();
        let mut chars = rest.chars();
        let code = match (chars.next(), chars.next()) {
            (Some(c), None) => KeyCode::Char(c),
            _ => match NAMED.iter().find(|(name, _)| *name == lower) {
                Some((_, code)) => *code,
                None => KeyCode::F(
                    lower
                        .strip_prefix('f')?
                        .parse()
                        .ok()
                        .filter(|n| (1..=24).contains(n))?,
                ),
            },
        };
        Some(Self::of(KeyEvent::new(code, modifiers)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, name) in [
            (KeyModifiers::CONTROL, "ctrl-"),
            (KeyModifiers::ALT, "alt-"),
            (KeyModifiers::SHIFT, "shift-"),
        ] {
            if self.modifiers.contains(flag) {
                f.write_str(name)?;
            }
        }
        match (NAMED.iter().find(|(_, code)| *code == self.code), self.code) {
            (Some((name, _)), _) => f.write_str(name),
            (None, KeyCode::Char(c)) => write!(f, "{c}"),
            (None, KeyCode::F(n)) => write!(f, "f{n}"),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}

/// Which key does what, where.
#[derive(Debug, Clone)]
pub struct Keymap {
    bindings: Vec<(Key, Action)>,
}

impl Default for Keymap {
    fn default() -> Self {
        let bindings = ACTIONS
            .iter()
            .flat_map(|info| {
                info.keys
                    .iter()
                    .filter_map(|k| Some((Key::parse(k)?, info.action)))
            })
            .collect();
        Self { bindings }
    }
}

impl Keymap {
    /// Gives `action` the key `key`, which loses what it did in the same panes: everywhere, for an
    /// action that lives everywhere. What it did and does no more.
    pub fn bind(&mut self, key: Key, action: Action) -> Vec<Action> {
        let panes = action.info().panes;
        let mut lost = Vec::new();
        self.bindings.retain(|(k, a)| {
            let loses = *k == key && (panes.is_empty() || a.info().panes == panes);
            lost.extend((loses && *a != action).then_some(*a));
            !loses
        });
        self.bindings.push((key, action));
        lost
    }

    /// Takes everything from `key`.
    pub fn release(&mut self, key: Key) {
        self.bindings.retain(|(k, _)| *k != key);
    }

    /// Takes every key from `action`: its configured keys replace the defaults.
    pub fn unbind(&mut self, action: Action) {
        self.bindings.retain(|(_, a)| *a != action);
    }

    /// What `key` does in `pane`.
    pub fn action(&self, key: Key, pane: PaneId) -> Option<Action> {
        let bound = || {
            self.bindings
                .iter()
                .filter(|(k, a)| *k == key && a.info().lives_in(pane))
                .map(|(_, a)| *a)
        };
        bound()
            .find(|a| !a.info().panes.is_empty())
            .or_else(|| bound().next())
    }

    /// The keys of `action`, as spelt; empty when it has none.
    pub fn keys(&self, action: Action) -> Vec<String> {
        self.bindings
            .iter()
            .filter(|(_, a)| *a == action)
            .map(|(k, _)| k.to_string())
            .collect()
    }

    /// The first key of `action` for a hint, short: `enter` as `⏎`.
    pub fn key(&self, action: Action) -> String {
        self.bindings
            .iter()
            .find(|(_, a)| *a == action)
            .map_or_else(|| "–".to_owned(), |(k, _)| k.to_string())
    }

    /// The rows of the action table with the keys that they have now.
    pub fn table(&self) -> Vec<KeyRow> {
        ACTIONS
            .iter()
            .map(|info| KeyRow::new(info, self.keys(info.action)))
            .collect()
    }
}

/// A row of the key reference.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyRow {
    /// The action's name in the configuration.
    pub action: &'static str,
    /// Keys, as spelt in the configuration.
    pub keys: Vec<String>,
    /// "everywhere", or the panes.
    pub place: String,
    /// What the action does, in a line.
    pub doc: &'static str,
}

impl KeyRow {
    fn new(info: &'static ActionInfo, keys: Vec<String>) -> Self {
        Self {
            action: info.name,
            keys,
            place: info.place(),
            doc: info.doc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_key_can_be_spelt_and_read_back() {
        for info in ACTIONS {
            for spelling in info.keys {
                let key = Key::parse(spelling).unwrap_or_else(|| panic!("{spelling}"));
                assert_eq!(&key.to_string(), spelling);
            }
        }
        assert_eq!(Key::parse("ctrl-"), None);
        assert_eq!(Key::parse("hyper-x"), None);
        assert_eq!(Key::parse("f25"), None);
    }

    #[test]
    fn a_pane_wins_over_everywhere() {
        let map = Keymap::default();
        let enter = Key::parse("enter").unwrap();
        assert_eq!(map.action(enter, PaneId::Start), Some(Action::Run));
        assert_eq!(map.action(enter, PaneId::Features), Some(Action::Open));
        let q = Key::parse("q").unwrap();
        assert!(
            PaneId::ALL
                .into_iter()
                .all(|p| map.action(q, p) == Some(Action::Quit))
        );
    }

    #[test]
    fn shifted_letters_arrive_in_two_ways() {
        let plain = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::NONE);
        let shifted = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT);
        assert_eq!(Key::of(plain), Key::of(shifted));
        assert_eq!(Key::of(plain), Key::parse("G").unwrap());
    }

    #[test]
    fn rebinding_moves_a_key_and_help_follows() {
        let mut map = Keymap::default();
        map.unbind(Action::Sort);
        map.bind(Key::parse("ctrl-o").unwrap(), Action::Sort);
        assert_eq!(map.keys(Action::Sort), vec!["ctrl-o"]);
        assert_eq!(map.action(Key::parse("s").unwrap(), PaneId::Features), None);
        assert_eq!(
            map.action(Key::parse("ctrl-o").unwrap(), PaneId::Features),
            Some(Action::Sort)
        );
    }
}
