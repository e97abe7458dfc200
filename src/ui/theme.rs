//! Colours and glyphs by meaning. Owns the profile of the terminal, the ramps and their legends;
//! nothing else names a colour.
//!
//! Invariant: in [`Profile::Mono`] no style carries a colour, and every text colour reads at a
//! contrast of 4.5 or more on the background that it is meant for.

mod colour;
#[cfg(test)]
mod tests;

use ratatui::style::{Color, Modifier, Style};
use termprofile::TermProfile;

use colour::*;

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Colours of 24 bits.
    TrueColour,
    /// The 256 colours of xterm.
    Indexed,
    /// The 16 of the user's own palette.
    Ansi,
    /// None: marks, bold, underline and reverse alone.
    Mono,
}

impl Profile {
    /// From the environment: `NO_COLOR`, `COLORTERM`, `TERM`, terminfo and tmux. An unknown
    /// terminal gets 256.
    pub fn detect() -> Self {
        match TermProfile::detect(&std::io::stdout(), termprofile::DetectorSettings::default()) {
            TermProfile::TrueColor => Self::TrueColour,
            TermProfile::Ansi256 => Self::Indexed,
            TermProfile::Ansi16 => Self::Ansi,
            TermProfile::NoColor | TermProfile::NoTty => Self::Mono,
        }
    }

    /// By the name that `--color` takes: `truecolor`, `256`, `16`, `none`; `auto` asks the
    /// environment.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "auto" => Self::detect(),
            "truecolor" | "24bit" => Self::TrueColour,
            "256" => Self::Indexed,
            "16" => Self::Ansi,
            "none" | "never" | "off" => Self::Mono,
            _ => return None,
        })
    }
}

/// Whether the terminal says, by `COLORFGBG`, that its background is light.
pub fn light_background() -> bool {
    let Ok(value) = std::env::var("COLORFGBG") else {
        return false;
    };
    matches!(value.rsplit(';').next(), Some("7" | "15"))
}

/// Whether the locale names an encoding other than UTF-8. An unset or `C` locale says nothing about
/// the terminal.
pub fn ascii_locale() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|v| std::env::var(v).ok().filter(|v| !v.is_empty()));
    let encoding = locale
        .as_deref()
        .and_then(|l| l.split_once('.'))
        .map(|(_, e)| e.to_ascii_lowercase());
    encoding.is_some_and(|e| !e.starts_with("utf"))
}

/// Below this share of the scale a value is shown as nothing.
pub const FLOOR: f32 = 0.05;

/// The same where values have a sign: every neuron has one on every token, and most are small.
pub const SIGNED_FLOOR: f32 = 0.15;

/// The steps of the sequential ramp among 16 colours, each lighter than the one before in the usual
/// palettes, with what reads on it.
const ANSI_STEPS: [(Color, Color); 5] = [
    (Color::Blue, Color::White),
    (Color::LightBlue, Color::Black),
    (Color::Cyan, Color::Black),
    (Color::LightGreen, Color::Black),
    (Color::LightYellow, Color::Black),
];

/// How a heat map scales and colours its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ramp {
    /// 0 to a maximum.
    Sequential,
    /// From minus a maximum to that maximum, symmetric about 0.
    Diverging,
}

impl Ramp {
    /// The share of the scale below which a value is shown as nothing.
    pub fn floor(self) -> f32 {
        if self == Self::Diverging {
            SIGNED_FLOOR
        } else {
            FLOOR
        }
    }
}

/// Every style of the explorer.
#[derive(Debug, Clone)]
pub struct Theme {
    /// How many colours the terminal shows.
    pub profile: Profile,
    /// Only ASCII reaches the terminal.
    pub ascii: bool,
    light: bool,
    heat: Vec<Style>,
    diverging: Vec<Style>,
}

impl Theme {
    /// The theme for a terminal of this profile, on a light or a dark background.
    pub fn new(profile: Profile, light: bool) -> Self {
        let heat = match profile {
            Profile::TrueColour => VIRIDIS.iter().map(|&c| on(c)).collect(),
            Profile::Indexed => VIRIDIS_256.iter().map(|&i| on_indexed(i)).collect(),
            Profile::Ansi => {
                let mut steps = ANSI_STEPS.map(|(bg, fg)| Style::new().bg(bg).fg(fg));
                // What is strong stands out from the ground.
                if light {
                    steps.reverse();
                }
                steps.to_vec()
            }
            Profile::Mono => mono_steps().to_vec(),
        };
        let diverging = match profile {
            Profile::TrueColour => {
                let stops = if light { &RDBU[..] } else { &DARK_RDBU };
                (0..DIVERGING_STEPS)
                    .map(|i| on(mix(stops, i as f64 / (DIVERGING_STEPS - 1) as f64)))
                    .collect()
            }
            Profile::Indexed => (if light { RDBU_256 } else { DARK_RDBU_256 })
                .iter()
                .map(|&i| on_indexed(i))
                .collect(),
            Profile::Ansi => {
                let (deep, pale) = (
                    [(Color::Red, Color::White), (Color::Blue, Color::White)],
                    [
                        (Color::LightRed, Color::Black),
                        (Color::LightBlue, Color::Black),
                    ],
                );
                let (strong, weak) = if light { (deep, pale) } else { (pale, deep) };
                [
                    strong[0],
                    weak[0],
                    (Color::Reset, Color::Reset),
                    weak[1],
                    strong[1],
                ]
                .map(|(bg, fg)| Style::new().bg(bg).fg(fg))
                .to_vec()
            }
            Profile::Mono => {
                let up = mono_steps();
                up.iter()
                    .rev()
                    .chain([&Style::new()])
                    .chain(&up)
                    .copied()
                    .collect()
            }
        };
        Self {
            profile,
            ascii: false,
            light,
            heat,
            diverging,
        }
    }

    /// Whether values need a mark in the text because no colour shows them.
    pub fn marks(&self) -> bool {
        self.profile == Profile::Mono
    }

    fn colour(&self, dark: Rgb, light: Rgb, ansi: Color) -> Color {
        let rgb = if self.light { light } else { dark };
        match self.profile {
            Profile::TrueColour => Color::Rgb(rgb.0, rgb.1, rgb.2),
            Profile::Indexed => indexed(rgb),
            Profile::Ansi => ansi,
            Profile::Mono => Color::Reset,
        }
    }

    fn fg(&self, dark: Rgb, light: Rgb, ansi: Color) -> Style {
        match self.colour(dark, light, ansi) {
            Color::Reset => Style::new(),
            c => Style::new().fg(c),
        }
    }

    /// Plain text: the terminal's own.
    pub fn text(&self) -> Style {
        Style::new()
    }

    /// What is there to be looked up, not read.
    pub fn dim(&self) -> Style {
        self.fg((168, 168, 168), (88, 88, 88), Color::Reset)
    }

    /// The lines between panes, and around the focused one.
    pub fn rule(&self, focused: bool) -> Style {
        if focused {
            self.accent()
        } else {
            self.fg((98, 98, 98), (160, 160, 160), Color::DarkGray)
        }
    }

    /// Keys, the focused pane, whatever can be acted on.
    pub fn accent(&self) -> Style {
        self.fg(
            (108, 203, 222),
            (0, 95, 115),
            if self.light { Color::Blue } else { Color::Cyan },
        )
    }

    /// The name of a pane.
    pub fn title(&self, focused: bool) -> Style {
        if focused {
            self.accent().add_modifier(Modifier::BOLD)
        } else {
            self.dim()
        }
    }

    /// A heading inside a pane.
    pub fn heading(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// A name that a person gave.
    pub fn name(&self) -> Style {
        self.fg(
            (229, 192, 123),
            (120, 72, 0),
            if self.light {
                Color::Reset
            } else {
                Color::Yellow
            },
        )
        .add_modifier(Modifier::BOLD)
    }

    /// For what went well.
    pub fn good(&self) -> Style {
        self.fg((135, 205, 120), (25, 100, 25), Color::Green)
    }

    /// What a person should notice: a warning, a value that needs attention.
    pub fn warning(&self) -> Style {
        self.fg(
            (232, 194, 100),
            (122, 74, 0),
            if self.light {
                Color::Reset
            } else {
                Color::Yellow
            },
        )
    }

    /// For what went wrong.
    pub fn error(&self) -> Style {
        self.fg((255, 138, 125), (170, 20, 20), Color::Red)
            .add_modifier(Modifier::BOLD)
    }

    /// A weight above zero.
    pub fn positive(&self) -> Style {
        self.fg(
            (125, 187, 222),
            (20, 85, 150),
            if self.light {
                Color::Blue
            } else {
                Color::LightBlue
            },
        )
    }

    /// A weight below zero.
    pub fn negative(&self) -> Style {
        self.fg((243, 150, 112), (170, 25, 40), Color::Red)
    }

    /// The row under the cursor. Not by hue: a shade where there are colours to spare, else
    /// reversed.
    pub fn selected(&self, focused: bool) -> Style {
        match (focused, self.reverses_selection()) {
            (true, true) => Style::new().add_modifier(Modifier::REVERSED),
            (true, false) => Style::new()
                .bg(self.colour((48, 54, 66), (222, 226, 234), Color::Reset))
                .add_modifier(Modifier::BOLD),
            (false, _) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// Whether the row under the cursor is drawn reversed.
    pub fn reverses_selection(&self) -> bool {
        matches!(self.profile, Profile::Ansi | Profile::Mono)
    }

    /// What a search found, or what the cursor is on among lines.
    pub fn found(&self) -> Style {
        if self.marks() {
            Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED))
        } else {
            self.accent()
        }
    }

    /// The cell of a text cursor.
    pub fn cursor(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The filled part of a bar.
    pub fn bar(&self) -> Style {
        self.fg((53, 183, 121), (20, 110, 70), Color::Green)
    }

    /// Style of a value on a scale of `max` (its absolute value, for [`Ramp::Diverging`]). Below
    /// [`FLOOR`] of it: plain.
    pub fn heat(&self, ramp: Ramp, value: f32, max: f32) -> Style {
        let t = if max > 0.0 { value / max } else { 0.0 };
        if t.is_nan() || t.abs() < ramp.floor() || (ramp == Ramp::Sequential && t < 0.0) {
            return Style::new();
        }
        match ramp {
            Ramp::Sequential => {
                self.heat[((t * self.heat.len() as f32) as usize).min(self.heat.len() - 1)]
            }
            Ramp::Diverging => {
                let n = self.diverging.len();
                let x = (t.clamp(-1.0, 1.0) + 1.0) / 2.0 * (n - 1) as f32;
                self.diverging[(x.round() as usize).min(n - 1)]
            }
        }
    }

    /// The steps of a ramp from low to high, for a legend.
    pub fn steps(&self, ramp: Ramp) -> &[Style] {
        match ramp {
            Ramp::Sequential => &self.heat,
            Ramp::Diverging => &self.diverging,
        }
    }

    /// A mark for a value where there are no colours: `·░▒▓█`; a minus sign goes before negative
    /// ones.
    pub fn mark(value: f32, max: f32) -> Option<char> {
        let t = if max > 0.0 { (value / max).abs() } else { 0.0 };
        (t >= FLOOR).then(|| ['·', '░', '▒', '▓', '█'][((t * 5.0) as usize).min(4)])
    }

    /// A digit 0 to 9 (in superscript, so that it cannot be read as part of the token) for a value.
    pub fn digit(value: f32, max: f32) -> Option<char> {
        let t = if max > 0.0 { (value / max).abs() } else { 0.0 };
        (t >= FLOOR).then(|| {
            ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][((t * 10.0) as usize).min(9)]
        })
    }
}

fn mono_steps() -> [Style; 5] {
    let plain = Style::new();
    [
        plain,
        plain.add_modifier(Modifier::UNDERLINED),
        plain.add_modifier(Modifier::UNDERLINED),
        plain.add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
        // Reversed, the block that marks it would be a hole.
        plain.add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
    ]
}
