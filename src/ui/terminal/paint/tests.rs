//! Frames on small models of terminals that disagree on the cells of characters: after any frames
//! the screen is that of the last frame alone, and nothing stands beside its place.

use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

use super::Painter;
use crate::text;
use crate::ui::draw::put_at;

const WIDTH: u16 = 24;
const HEIGHT: u16 = 4;
/// Where a row's last letter stands, whatever comes before.
const END: u16 = 20;

/// How a terminal counts.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Each character by itself, vowel signs beside a letter in a cell of their own, flags' letters
    /// in two (xterm, screen).
    Characters,
    /// The same, all marks without a cell, emoji and flags' letters in one.
    Narrow,
    /// A grapheme has the cells of its first character.
    FirstOfGrapheme,
    /// A grapheme with more than one character has two cells.
    TwoForGraphemes,
}

const KINDS: [Kind; 4] = [
    Kind::Characters,
    Kind::Narrow,
    Kind::FirstOfGrapheme,
    Kind::TwoForGraphemes,
];

/// A screen: of each cell what was written into it, and its background.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    kind_graphemes: bool,
    cells: Vec<Vec<(String, bool)>>,
}

struct Emulator {
    kind: Kind,
    model: Model,
    x: usize,
    y: usize,
    coloured: bool,
}

impl Emulator {
    fn new(kind: Kind) -> Self {
        let row = vec![(" ".to_owned(), false); usize::from(WIDTH)];
        let kind_graphemes = matches!(kind, Kind::FirstOfGrapheme | Kind::TwoForGraphemes);
        let model = Model {
            kind_graphemes,
            cells: vec![row; usize::from(HEIGHT)],
        };
        Self {
            kind,
            model,
            x: 0,
            y: 0,
            coloured: false,
        }
    }

    fn takes(mut self, bytes: &[u8]) -> Self {
        self.process(bytes);
        self
    }

    fn process(&mut self, bytes: &[u8]) {
        let mut chars = std::str::from_utf8(bytes).unwrap().chars();
        while let Some(c) = chars.next() {
            if c != '\u{1b}' {
                self.print(c);
                continue;
            }
            assert_eq!(chars.next(), Some('['));
            let mut given = String::new();
            let end = loop {
                match chars.next().unwrap() {
                    c @ ('0'..='9' | ';') => given.push(c),
                    c => break c,
                }
            };
            let numbers: Vec<usize> = given.split(';').map(|n| n.parse().unwrap_or(0)).collect();
            match end {
                'H' => (self.y, self.x) = (numbers[0] - 1, numbers[1] - 1),
                'm' => self.coloured = numbers != [0],
                'J' => (0..usize::from(HEIGHT)).for_each(|y| self.erase(y)),
                'K' => self.erase(self.y),
                other => panic!("unknown sequence {other}"),
            }
        }
    }

    fn erase(&mut self, y: usize) {
        assert!(!self.coloured, "erased with a colour");
        self.model.cells[y].fill((" ".to_owned(), false));
    }

    /// A cell that is written over takes the other cells of its character with it.
    fn free(&mut self, x: usize) {
        let row = &mut self.model.cells[self.y];
        let first = (0..=x).rev().find(|&x| !row[x].0.is_empty()).unwrap();
        let end = (first + 1..row.len())
            .find(|&x| !row[x].0.is_empty())
            .unwrap_or(row.len());
        if end - first > 1 {
            row[first..end]
                .iter_mut()
                .for_each(|cell| cell.0 = " ".to_owned());
        }
    }

    fn print(&mut self, c: char) {
        let wide = c.width().unwrap_or(0);
        let sign = text::width(c.encode_utf8(&mut [0; 4])) > 0 && wide == 0;
        let flag = matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
        let cells = match self.kind {
            Kind::Characters if sign => 1,
            Kind::Characters if flag => 2,
            Kind::Narrow if c > '\u{1f000}' => 1,
            Kind::Narrow
                if text::agreed_width(c.encode_utf8(&mut [0; 4])).is_none()
                    && wide == 1
                    && sign_like(c) =>
            {
                0
            }
            _ => wide,
        };
        let lead = (0..self.x)
            .rev()
            .find(|&x| !self.model.cells[self.y][x].0.is_empty());
        if let Some(lead) = lead {
            let before = self.model.cells[self.y][lead].0.clone();
            let joined = format!("{before}{c}");
            if cells == 0
                || (self.model.kind_graphemes
                    && before != " "
                    && joined.graphemes(true).count() == 1)
            {
                self.model.cells[self.y][lead].0 = joined;
                if matches!(self.kind, Kind::TwoForGraphemes) && cells > 0 && self.x == lead + 1 {
                    let x = self.x.min(usize::from(WIDTH) - 1);
                    if x > lead {
                        self.free(x);
                        self.model.cells[self.y][x] = (String::new(), self.coloured);
                        self.x = x + 1;
                    }
                }
                return;
            }
        }
        if cells == 0 {
            return;
        }
        self.x = self.x.min(usize::from(WIDTH) - cells);
        for x in self.x..self.x + cells {
            self.free(x);
            let shown = if x == self.x {
                c.to_string()
            } else {
                String::new()
            };
            self.model.cells[self.y][x] = (shown, self.coloured);
        }
        self.x += cells;
    }
}

/// Marks that stand beside their letter.
fn sign_like(c: char) -> bool {
    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
    c.general_category() == GeneralCategory::SpacingMark
}

fn frame(rows: &[(Vec<&str>, bool)]) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, WIDTH, HEIGHT));
    let area = buffer.area;
    for (y, (words, coloured)) in rows.iter().enumerate() {
        let style = if *coloured {
            Style::new().bg(Color::Rgb(9, 9, 9))
        } else {
            Style::new()
        };
        let mut left = usize::from(END);
        for word in words {
            let shown = text::truncate(&text::clean(word), left);
            let at = usize::from(END) - left;
            left -= text::width(&shown);
            put_at(
                &mut buffer,
                area,
                at,
                y,
                &Line::from(Span::styled(shown, style)),
            );
        }
        put_at(&mut buffer, area, usize::from(END), y, &Line::raw("|end"));
    }
    buffer
}

const WORDS: [&str; 24] = [
    "plain",
    " ",
    "की",
    "हिन्दी",
    "क्षत्रिय",
    "நாட்கள்",
    "திங்கள்",
    "กำลัง",
    "วันที่",
    "বাংলা",
    "ভাষা",
    "ខ្មែរ",
    "مرحبا",
    "لا",
    "🇫🇷🇩🇪",
    "👨‍👩‍👧",
    "👍🏽",
    "1️⃣",
    "♻️",
    "🎉🎉",
    "日曜日",
    "ﾊﾟｶﾞ",
    "\u{1112}\u{1161}\u{11ab}\u{a960}\u{1161}",
    "e\u{301}\u{302}\u{303}\u{304}",
];

type Rows = Vec<(Vec<&'static str>, bool)>;

fn rows() -> impl Strategy<Value = Rows> {
    let words = proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..9);
    proptest::collection::vec((words, any::<bool>()), usize::from(HEIGHT))
}

proptest! {
    #[test]
    fn no_ghost_is_left_and_nothing_is_moved(frames in proptest::collection::vec(rows(), 1..6)) {
        for kind in KINDS {
            let mut painter = Painter::default();
            let mut emulator = Emulator::new(kind);
            for rows in &frames {
                let bytes = painter.paint(frame(rows)).unwrap();
                emulator.process(&bytes);
                let fresh = Emulator::new(kind).takes(&Painter::default().paint(frame(rows)).unwrap());
                prop_assert_eq!(&emulator.model, &fresh.model, "{:?}", kind);
                for row in &emulator.model.cells {
                    let end: String = row[usize::from(END)..].iter().map(|(symbol, _)| symbol.as_str()).collect();
                    prop_assert_eq!(end, "|end", "{:?}: {:?}", kind, row);
                }
            }
        }
    }
}

#[test]
fn a_frame_that_changes_little_is_short() {
    let mut painter = Painter::default();
    let rows = |last: &'static str| {
        vec![
            (vec!["plain"], false),
            (vec!["हिन्दी"], true),
            (vec![last], false),
        ]
    };
    painter.paint(frame(&rows("one"))).unwrap();
    assert!(painter.paint(frame(&rows("one"))).unwrap().is_empty());
    let bytes = painter.paint(frame(&rows("ore"))).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), "\u{1b}[0m\u{1b}[3;2Hr");
}

#[test]
fn what_is_drawn_over_half_of_a_wide_character_takes_its_place() {
    let mut buffer = frame(&[(vec!["日日日"], false)]);
    let area = buffer.area;
    put_at(&mut buffer, area, 1, 0, &Line::raw("│x"));
    let shown = Emulator::new(Kind::Characters).takes(&Painter::default().paint(buffer).unwrap());
    let row: String = shown.model.cells[0][..6]
        .iter()
        .map(|(symbol, _)| symbol.as_str())
        .collect();
    assert_eq!(row, " │x 日");
}

#[test]
fn nothing_is_asked_of_the_terminal() {
    let mut painter = Painter::default();
    let mut bytes = painter
        .paint(frame(&[(vec!["हिन्दी", "plain"], true)]))
        .unwrap();
    painter.invalidate();
    bytes.extend(painter.paint(frame(&[(vec!["plain"], true)])).unwrap());
    assert!(
        !bytes
            .windows(3)
            .any(|w| w == b"\x1b[6" || w == b"\x1b[c" || w == b"\x1b[?")
    );
}
