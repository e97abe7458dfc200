//! The ramps as numbers, and what is reckoned with colours. Knows no meaning.

use ratatui::style::{Color, Style};
use termprofile::TermProfile;

pub(super) type Rgb = (u8, u8, u8);

/// matplotlib's viridis at 16 even steps.
pub(super) const VIRIDIS: [Rgb; 16] = [
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

/// Red to blue about a dark middle: what is strong is bright, what is near zero is close to a dark
/// terminal's ground.
pub(super) const DARK_RDBU: [Rgb; 9] = [
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
pub(super) const DARK_RDBU_256: [u8; DIVERGING_STEPS] = [
    216, 209, 203, 196, 160, 124, 88, 52, 234, 18, 19, 24, 25, 31, 74, 117, 153,
];

/// ColorBrewer's RdBu, 11 classes, red to blue, for a light ground: what is strong is dark.
pub(super) const RDBU: [Rgb; 11] = [
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
pub(super) const VIRIDIS_256: [u8; 11] = [53, 54, 24, 30, 36, 71, 77, 113, 148, 184, 220];

/// RdBu in xterm's colours, for a light ground.
pub(super) const RDBU_256: [u8; DIVERGING_STEPS] = [
    52, 88, 124, 167, 173, 216, 223, 255, 231, 255, 153, 117, 110, 67, 25, 24, 17,
];

/// Steps of the diverging ramp, symmetric about the middle one.
pub(super) const DIVERGING_STEPS: usize = 17;

pub(super) fn luminance((r, g, b): Rgb) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// WCAG 2 contrast of two colours, 1 to 21.
pub(super) fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

pub(super) fn mix(stops: &[Rgb], t: f64) -> Rgb {
    let x = t.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let i = (x as usize).min(stops.len() - 2);
    let f = x - i as f64;
    let lerp = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * f).round() as u8;
    let (a, b) = (stops[i], stops[i + 1]);
    (lerp(a.0, b.0), lerp(a.1, b.1), lerp(a.2, b.2))
}

/// What xterm's colour cube and grey ramp show for an index from 16.
pub(super) fn indexed_rgb(index: u8) -> Rgb {
    if index >= 232 {
        let v = 8 + 10 * (index - 232);
        return (v, v, v);
    }
    let i = index.saturating_sub(16);
    let level = |v: u8| if v == 0 { 0 } else { 55 + 40 * v };
    (level(i / 36), level(i / 6 % 6), level(i % 6))
}

pub(super) fn indexed((r, g, b): Rgb) -> Color {
    TermProfile::Ansi256
        .adapt_color(Color::Rgb(r, g, b))
        .unwrap_or(Color::Reset)
}

/// Black or white, whichever reads better on a background.
pub(super) fn black_on(background: Rgb) -> bool {
    contrast(background, (0, 0, 0)) >= contrast(background, (255, 255, 255))
}

pub(super) fn on(rgb: Rgb) -> Style {
    let v = if black_on(rgb) { 0 } else { 255 };
    Style::new()
        .bg(Color::Rgb(rgb.0, rgb.1, rgb.2))
        .fg(Color::Rgb(v, v, v))
}

pub(super) fn on_indexed(index: u8) -> Style {
    let fg = if black_on(indexed_rgb(index)) {
        16
    } else {
        231
    };
    Style::new()
        .bg(Color::Indexed(index))
        .fg(Color::Indexed(fg))
}
