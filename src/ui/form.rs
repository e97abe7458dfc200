//! A form: values under names that a cursor goes over, typed or stepped through. Owns where the
//! cursor stands and what is being typed; what a value may be is the owner's ([`Fields`]), and so is
//! where the form is drawn.
//!
//! Invariant: what is typed belongs to the field under the cursor.

use std::ops::RangeInclusive;

use crossterm::event::KeyEvent;

use super::input::LineInput;
use super::world::World;
use crate::text;

/// A value with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is called.
    pub name: String,
    /// What it means, in a line.
    pub help: String,
    /// The value as it is drawn.
    pub shown: String,
    /// What typing begins with; `None` where the value is stepped through and not typed.
    pub typed: Option<String>,
    /// A choice that is not taken, drawn dim.
    pub off: bool,
}

impl Field {
    /// A text or a number that is typed.
    pub fn text(name: impl Into<String>, help: impl Into<String>, typed: &str) -> Self {
        Self {
            shown: text::clean(typed),
            typed: Some(typed.to_owned()),
            ..Self::choice(name, help, "")
        }
    }

    /// One of several choices, now `shown`.
    pub fn choice(name: impl Into<String>, help: impl Into<String>, shown: &str) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            shown: shown.to_owned(),
            typed: None,
            off: false,
        }
    }

    /// A choice between yes and no.
    pub fn toggle(name: impl Into<String>, help: impl Into<String>, on: bool) -> Self {
        Self {
            off: !on,
            ..Self::choice(name, help, if on { "yes" } else { "no" })
        }
    }
}

/// Reads a whole number in `range`; blanks, commas and underscores group its digits.
///
/// # Errors
/// Where there is none, with `name` and what was wanted.
pub fn whole_number(
    typed: &str,
    name: &str,
    range: RangeInclusive<usize>,
) -> Result<usize, String> {
    let plain: String = typed.chars().filter(|c| !",_ ".contains(*c)).collect();
    let read = plain.parse().ok().filter(|n| range.contains(n));
    read.ok_or_else(|| match (*range.start(), *range.end()) {
        (1, usize::MAX) => format!("{name}: a whole number above 0"),
        (low, high) => format!("{name}: a whole number from {low} to {high}"),
    })
}

/// Reads a number from `low` to `high`.
///
/// # Errors
/// Where there is none, with `name` and what was wanted.
pub fn number(typed: &str, name: &str, low: f64, high: f64) -> Result<f64, String> {
    let typed = typed.trim();
    let read = typed.parse::<f64>().ok();
    let wrong = || format!("{name} is a number from {low} to {high}, not '{typed}'");
    read.filter(|v| v.is_finite() && (low..=high).contains(v))
        .ok_or_else(wrong)
}

/// The next larger or smaller of some ascending choices; `now` where there is none.
pub fn next_choice<T: PartialOrd + Copy>(choices: &[T], now: T, forward: bool) -> T {
    let found = if forward {
        choices.iter().find(|c| **c > now)
    } else {
        choices.iter().rev().find(|c| **c < now)
    };
    found.copied().unwrap_or(now)
}

/// The choice after or before `now`, round the end; the first where `now` is none of them.
pub fn cycle<T: PartialEq + Clone>(choices: &[T], now: &T, forward: bool) -> T {
    let n = choices.len();
    let at = choices.iter().position(|c| c == now);
    let to = match (at, forward) {
        (Some(i), true) => (i + 1) % n,
        (Some(i), false) => (i + n - 1) % n,
        (None, _) => 0,
    };
    choices.get(to).cloned().unwrap_or_else(|| now.clone())
}

/// What a form is of: its fields, and what changing one of them does.
pub trait Fields {
    /// The fields in the order of the cursor. Their number may depend on what is known.
    fn fields(&self, world: &World) -> Vec<Field>;

    /// Takes the next choice of field `at`, or the one before.
    ///
    /// # Errors
    /// Why it cannot be changed.
    fn step(&mut self, at: usize, forward: bool, world: &World) -> Result<(), String>;

    /// Takes what was typed into field `at`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn set(&mut self, at: usize, typed: &str, world: &World) -> Result<(), String>;
}

/// A form and where its cursor stands.
#[derive(Debug, Default)]
pub struct Form<F> {
    /// What it is of.
    pub values: F,
    at: usize,
    input: Option<LineInput>,
    problem: Option<String>,
}

impl<F: Fields> Form<F> {
    /// With the cursor on the first field.
    pub fn new(values: F) -> Self {
        Self {
            values,
            at: 0,
            input: None,
            problem: None,
        }
    }

    /// The place of the cursor among the fields.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What was wrong with the last change.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What is being typed.
    pub fn input(&self) -> Option<&LineInput> {
        self.input.as_ref()
    }

    /// How many fields there are.
    pub fn count(&self, world: &World) -> usize {
        self.values.fields(world).len()
    }

    /// The field under the cursor.
    pub fn field(&self, world: &World) -> Option<Field> {
        self.values.fields(world).into_iter().nth(self.at)
    }

    /// Puts the cursor on field `at`; what was being typed is left.
    pub fn go(&mut self, at: usize) {
        (self.at, self.input, self.problem) = (at, None, None);
    }

    /// Begins to type into the field under the cursor; false where it is not typed.
    pub fn edit(&mut self, world: &World) -> bool {
        self.problem = None;
        let typed = self.field(world).and_then(|field| field.typed);
        self.input = typed.as_deref().map(LineInput::new);
        self.input.is_some()
    }

    /// Leaves what is being typed as it was before.
    pub fn leave(&mut self) {
        (self.input, self.problem) = (None, None);
    }

    /// Takes the next choice of the field under the cursor, or the one before.
    pub fn step(&mut self, forward: bool, world: &World) {
        self.problem = self.values.step(self.at, forward, world).err();
    }

    /// Takes a key into what is being typed; false where nothing is, or the key is no text.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        self.input.as_mut().is_some_and(|input| input.key(key))
    }

    /// Takes pasted text into what is being typed.
    pub fn paste(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            input.paste(text);
        }
    }

    /// Takes what is being typed as it stands, and goes on with typing.
    pub fn store(&mut self, world: &World) {
        if let Some(input) = &self.input {
            self.problem = self.values.set(self.at, input.text(), world).err();
        }
    }

    /// Takes what is being typed and ends typing, unless something is wrong with it.
    pub fn commit(&mut self, world: &World) {
        self.store(world);
        if self.problem.is_none() {
            self.input = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two numbers, of which the second is stepped through as well.
    #[derive(Default)]
    struct Numbers([usize; 2]);

    impl Fields for Numbers {
        fn fields(&self, _: &World) -> Vec<Field> {
            self.0
                .iter()
                .map(|n| Field::text("number", "", &n.to_string()))
                .collect()
        }

        fn step(&mut self, at: usize, forward: bool, _: &World) -> Result<(), String> {
            if at == 0 {
                return Err("it is typed".to_owned());
            }
            self.0[at] = if forward { 1 } else { 0 };
            Ok(())
        }

        fn set(&mut self, at: usize, typed: &str, _: &World) -> Result<(), String> {
            self.0[at] = whole_number(typed, "number", 1..=9)?;
            Ok(())
        }
    }

    #[test]
    fn a_wrong_value_stays_typed_until_it_is_right_or_left() {
        let (world, mut form) = (World::default(), Form::new(Numbers([3, 4])));
        assert!(form.edit(&world));
        form.paste("0");
        form.commit(&world);
        assert_eq!(form.problem(), Some("number: a whole number from 1 to 9"));
        assert!(form.input().is_some() && form.values.0 == [3, 4]);
        form.leave();
        assert!(form.input().is_none() && form.problem().is_none());
        form.go(1);
        form.step(true, &world);
        assert_eq!(form.values.0, [3, 1]);
        form.go(0);
        form.step(true, &world);
        assert_eq!(form.problem(), Some("it is typed"));
    }

    #[test]
    fn digits_may_be_grouped() {
        assert_eq!(whole_number(" 2,048", "n", 1..=usize::MAX), Ok(2048));
        assert_eq!(
            whole_number("0", "n", 1..=usize::MAX),
            Err("n: a whole number above 0".to_owned())
        );
    }
}
