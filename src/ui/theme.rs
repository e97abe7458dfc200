//! Colours and glyphs by meaning. Owns the profile of the terminal, the ramps and their legends; nothing else names a
//! colour.
//!
//! Invariant: in [`Profile::Mono`] no style carries a colour, and every text colour reads at a contrast of 4.5 or more
//! on the background that it is meant for.

#[cfg(test)]
mod tests;

use ratatui::style::{Color, Modifier, Style};
use termprofile::TermProfile;

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 24-bit.
    TrueColour,
    /// xterm's 256.
    Indexed,
    /// The 16 of the user's own palette.
    Ansi,
    /// None: marks, bold, underline and reverse alone.
    Mono,
}

impl Profile {
    /// From the environment: `NO_COLOR`, `COLORTERM`, `TERM`, terminfo and tmux. An unknown terminal gets 256.
    pub fn detect() -> Self {
        match TermProfile::detect(&std::io::stdout(), termprofile::DetectorSettings::default()) {
            TermProfile::TrueColor => Self::TrueColour,
            TermProfile::Ansi256 => Self::Indexed,
            TermProfile::Ansi16 => Self::Ansi,
            TermProfile::NoColor | TermProfile::NoTty => Self::Mono,
        }
    }

    /// By the name that `--color` takes: `truecolor`, `256`, `16`, `none`; `auto` asks the environment.
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
    let Ok(value) = std::env::var("COLORFGBG") else { return false };
    matches!(value.rsplit(';').next(), Some("7" | "15"))
}

/// Whether the locale names an encoding other than UTF-8. An unset or `C` locale says nothing about the terminal.
pub fn ascii_locale() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|v| std::env::var(v).ok().filter(|v| !v.is_empty()));
    let encoding = locale.as_deref().and_then(|l| l.split_once('.')).map(|(_, e)| e.to_ascii_lowercase());
    encoding.is_some_and(|e| !e.starts_with("utf"))
}

type Rgb = (u8, u8, u8);

/// matplotlib's viridis at 16 even steps.
const VIRIDIS: [Rgb; 16] = [
    (68, 1, 84),
    (72, 26, 108),
    (71, 47, 125),
    (65, 68, 135),
    (57, 86, 140),
    (49, 104, 142),
    (42, 120, 142),
    (35, 136, 142),
    (31, 152, 139),
    (34, 168, 132),
    (53, 183, 121),
    (84, 197, 104),
    (122, 209, 81),
    (165, 219, 54),
    (210, 226, 27),
    (253, 231, 37),
];

/// Red to blue about a dark middle: what is strong is bright, what is near zero is close to a dark terminal's ground.
const DARK_RDBU: [Rgb; 9] = [
    (255, 190, 160),
    (247, 120, 92),
    (201, 57, 57),
    (120, 26, 38),
    (46, 42, 46),
    (20, 54, 106),
    (32, 104, 178),
    (88, 166, 232),
    (176, 220, 255),
];

/// The same in xterm's colours.
const DARK_RDBU_256: [u8; DIVERGING_STEPS] =
    [216, 209, 203, 196, 160, 124, 88, 52, 234, 18, 19, 24, 25, 31, 74, 117, 153];

/// ColorBrewer's RdBu, 11 classes, red to blue, for a light ground: what is strong is dark.
const RDBU: [Rgb; 11] = [
    (103, 0, 31),
    (178, 24, 43),
    (214, 96, 77),
    (244, 165, 130),
    (253, 219, 199),
    (247, 247, 247),
    (209, 229, 240),
    (146, 197, 222),
    (67, 147, 195),
    (33, 102, 172),
    (5, 48, 97),
];

/// Viridis in xterm's colours: as many steps as stay apart, each lighter than the one before.
const VIRIDIS_256: [u8; 11] = [53, 54, 24, 30, 36, 71, 77, 113, 148, 184, 220];

/// RdBu in xterm's colours, for a light ground.
const RDBU_256: [u8; DIVERGING_STEPS] = [52, 88, 124, 167, 173, 216, 223, 255, 231, 255, 153, 117, 110, 67, 25, 24, 17];

/// Steps of the diverging ramp, symmetric about the middle one.
const DIVERGING_STEPS: usize = 17;

/// Below this share of the scale a value is shown as nothing.
pub const FLOOR: f32 = 0.05;

/// The same where values have a sign: every neuron has one on every token, and most are small.
pub const SIGNED_FLOOR: f32 = 0.15;

/// How a heat map scales and colours its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ramp {
    /// 0 to a maximum.
    Sequential,
    /// Symmetric about 0.
    Diverging,
}

impl Ramp {
    /// The share of the scale below which a value is shown as nothing.
    pub fn floor(self) -> f32 {
        if self == Self::Diverging { SIGNED_FLOOR } else { FLOOR }
    }
}

/// Every style of the explorer.
#[derive(Debug, Clone)]
pub struct Theme {
    /// The terminal's colours.
    pub profile: Profile,
    /// Only ASCII reaches the terminal.
    pub ascii: bool,
    light: bool,
    heat: Vec<Style>,
    diverging: Vec<Style>,
}

fn luminance((r, g, b): Rgb) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// WCAG 2 contrast of two colours, 1 to 21.
fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn mix(stops: &[Rgb], t: f64) -> Rgb {
    let x = t.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let i = (x as usize).min(stops.len() - 2);
    let f = x - i as f64;
    let lerp = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * f).round() as u8;
    let (a, b) = (stops[i], stops[i + 1]);
    (lerp(a.0, b.0), lerp(a.1, b.1), lerp(a.2, b.2))
}

/// What xterm's colour cube and grey ramp show for an index from 16.
fn indexed_rgb(index: u8) -> Rgb {
    if index >= 232 {
        let v = 8 + 10 * (index - 232);
        return (v, v, v);
    }
    let i = index.saturating_sub(16);
    let level = |v: u8| if v == 0 { 0 } else { 55 + 40 * v };
    (level(i / 36), level(i / 6 % 6), level(i % 6))
}

impl Theme {
    /// The theme for a terminal of this profile, on a light or a dark background.
    pub fn new(profile: Profile, light: bool) -> Self {
        let heat = match profile {
            Profile::TrueColour => VIRIDIS.iter().map(|&c| on(c)).collect(),
            Profile::Indexed => VIRIDIS_256.iter().map(|&i| on_indexed(i)).collect(),
            Profile::Ansi => [
                (Color::Blue, Color::White),
                (Color::Cyan, Color::Black),
                (Color::Green, Color::Black),
                (Color::LightGreen, Color::Black),
                (Color::LightYellow, Color::Black),
            ]
            .map(|(bg, fg)| Style::new().bg(bg).fg(fg))
            .to_vec(),
            Profile::Mono => mono_steps().to_vec(),
        };
        let diverging = match profile {
            Profile::TrueColour => {
                let stops = if light { &RDBU[..] } else { &DARK_RDBU };
                (0..DIVERGING_STEPS).map(|i| on(mix(stops, i as f64 / (DIVERGING_STEPS - 1) as f64))).collect()
            }
            Profile::Indexed => (if light { RDBU_256 } else { DARK_RDBU_256 }).iter().map(|&i| on_indexed(i)).collect(),
            Profile::Ansi => [
                (Color::Red, Color::White),
                (Color::LightRed, Color::Black),
                (Color::Reset, Color::Reset),
                (Color::LightBlue, Color::Black),
                (Color::Blue, Color::White),
            ]
            .map(|(bg, fg)| Style::new().bg(bg).fg(fg))
            .to_vec(),
            Profile::Mono => {
                let up = mono_steps();
                up.iter().rev().chain([&Style::new()]).chain(&up).copied().collect()
            }
        };
        Self { profile, ascii: false, light, heat, diverging }
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

    /// Lines between panes.
    pub fn rule(&self, focused: bool) -> Style {
        if focused { self.accent() } else { self.fg((98, 98, 98), (160, 160, 160), Color::DarkGray) }
    }

    /// Keys, the focused pane, whatever can be acted on.
    pub fn accent(&self) -> Style {
        self.fg((108, 203, 222), (0, 95, 115), if self.light { Color::Blue } else { Color::Cyan })
    }

    /// The name of a pane.
    pub fn title(&self, focused: bool) -> Style {
        if focused { self.accent().add_modifier(Modifier::BOLD) } else { self.dim() }
    }

    /// A heading inside a pane.
    pub fn heading(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// A name that a person gave.
    pub fn name(&self) -> Style {
        self.fg((229, 192, 123), (120, 72, 0), if self.light { Color::Reset } else { Color::Yellow })
            .add_modifier(Modifier::BOLD)
    }

    /// Went well.
    pub fn good(&self) -> Style {
        self.fg((135, 205, 120), (25, 100, 25), Color::Green)
    }

    /// Needs a look.
    pub fn warning(&self) -> Style {
        self.fg((232, 194, 100), (122, 74, 0), if self.light { Color::Reset } else { Color::Yellow })
    }

    /// Went wrong.
    pub fn error(&self) -> Style {
        self.fg((255, 138, 125), (170, 20, 20), Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A weight above zero.
    pub fn positive(&self) -> Style {
        self.fg((125, 187, 222), (20, 85, 150), if self.light { Color::Blue } else { Color::LightBlue })
    }

    /// A weight below zero.
    pub fn negative(&self) -> Style {
        self.fg((243, 150, 112), (170, 25, 40), Color::Red)
    }

    /// The row under the cursor. Not by hue: a shade where there are colours to spare, else reversed.
    pub fn selected(&self, focused: bool) -> Style {
        match (self.profile, focused) {
            (Profile::TrueColour | Profile::Indexed, true) => {
                Style::new().bg(self.colour((48, 54, 66), (222, 226, 234), Color::Reset)).add_modifier(Modifier::BOLD)
            }
            (_, true) => Style::new().add_modifier(Modifier::REVERSED),
            (_, false) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// What a search found, or what the cursor is on among lines.
    pub fn found(&self) -> Style {
        if self.marks() { Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)) } else { self.accent() }
    }

    /// A text cursor.
    pub fn cursor(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The filled part of a bar.
    pub fn bar(&self) -> Style {
        self.fg((53, 183, 121), (20, 110, 70), Color::Green)
    }

    /// Style of a value on a scale of `max` (its absolute value, for [`Ramp::Diverging`]). Below [`FLOOR`] of it:
    /// plain.
    pub fn heat(&self, ramp: Ramp, value: f32, max: f32) -> Style {
        let t = if max > 0.0 { value / max } else { 0.0 };
        if t.is_nan() || t.abs() < ramp.floor() || (ramp == Ramp::Sequential && t < 0.0) {
            return Style::new();
        }
        match ramp {
            Ramp::Sequential => self.heat[((t * self.heat.len() as f32) as usize).min(self.heat.len() - 1)],
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

    /// A mark for a value where there are no colours: `·░▒▓█`; a minus sign goes before negative ones.
    pub fn mark(value: f32, max: f32) -> Option<char> {
        let t = if max > 0.0 { (value / max).abs() } else { 0.0 };
        (t >= FLOOR).then(|| ['·', '░', '▒', '▓', '█'][((t * 5.0) as usize).min(4)])
    }

    /// A digit 0 to 9 (in superscript, so that it cannot be read as part of the token) for a value.
    pub fn digit(value: f32, max: f32) -> Option<char> {
        let t = if max > 0.0 { (value / max).abs() } else { 0.0 };
        (t >= FLOOR).then(|| ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][((t * 10.0) as usize).min(9)])
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

fn indexed((r, g, b): Rgb) -> Color {
    TermProfile::Ansi256.adapt_color(Color::Rgb(r, g, b)).unwrap_or(Color::Reset)
}

/// Black or white, whichever reads better on a background.
fn black_on(background: Rgb) -> bool {
    contrast(background, (0, 0, 0)) >= contrast(background, (255, 255, 255))
}

fn on(rgb: Rgb) -> Style {
    let v = if black_on(rgb) { 0 } else { 255 };
    Style::new().bg(Color::Rgb(rgb.0, rgb.1, rgb.2)).fg(Color::Rgb(v, v, v))
}

fn on_indexed(index: u8) -> Style {
    let fg = if black_on(indexed_rgb(index)) { 16 } else { 231 };
    Style::new().bg(Color::Indexed(index)).fg(Color::Indexed(fg))
}
