//! From a buffer of cells to the bytes that bring it to the terminal. Owns what the terminal shows
//! now; knows neither what the cells mean nor where the bytes go.
//!
//! Terminals disagree on how many cells some characters take. Invariant: a row that holds such a
//! character, or held one, is erased and written whole when it changes, and the cursor is placed
//! anew behind each of them. So a row looks the same however the screen came to be, in any
//! terminal, and no terminal moves what follows. Nothing is asked of the terminal.

use std::io;

use crossterm::cursor::MoveTo;
use crossterm::queue;
use crossterm::style::{Attribute, Print, SetAttribute, SetStyle};
use crossterm::terminal::{Clear, ClearType};
use ratatui::backend::IntoCrossterm;
use ratatui::buffer::{Buffer, Cell, CellWidth};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::text;

/// What turns buffers into bytes.
#[derive(Default)]
pub(super) struct Painter {
    /// What the terminal shows; `None` where it is not known.
    shown: Option<Buffer>,
}

impl Painter {
    /// What the terminal shows is not known any more: the next frame is drawn on a cleared screen.
    pub fn invalidate(&mut self) {
        self.shown = None;
    }

    /// The bytes that turn what the terminal shows into `next`; none where it shows that already.
    ///
    /// # Errors
    /// None that a writer into memory has.
    pub fn paint(&mut self, next: Buffer) -> io::Result<Vec<u8>> {
        let mut pen = Pen::default();
        let kept = self.shown.take().filter(|shown| shown.area == next.area);
        let before = match kept {
            Some(shown) => shown,
            None => {
                pen.plain()?;
                queue!(pen.out, Clear(ClearType::All))?;
                Buffer::empty(next.area)
            }
        };
        for y in 0..next.area.height {
            let (old, new) = (row(&before, y), row(&next, y));
            if old == new {
            } else if is_sure(old) && is_sure(new) {
                pen.changes(y, old, new)?;
            } else {
                pen.whole(y, new)?;
            }
        }
        if !pen.out.is_empty() {
            pen.plain()?;
        }
        self.shown = Some(next);
        Ok(pen.out)
    }
}

fn row(buffer: &Buffer, y: u16) -> &[Cell] {
    let Rect { width, .. } = buffer.area;
    let from = usize::from(y) * usize::from(width);
    &buffer.content[from..from + usize::from(width)]
}

/// Whether every terminal gives each of these cells one symbol of one cell.
fn is_sure(cells: &[Cell]) -> bool {
    cells
        .iter()
        .all(|cell| text::agreed_width(cell.symbol()) == Some(1))
}

/// Colours and attributes of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct CellStyle(Color, Color, Modifier);

/// Writes symbols, and remembers where the terminal's cursor is and how it writes.
#[derive(Default)]
struct Pen {
    out: Vec<u8>,
    /// Where the next symbol would stand; it is not known after a symbol that terminals disagree on.
    at: Option<(u16, u16)>,
    style: Option<CellStyle>,
}

impl Pen {
    /// No colours and no attributes.
    fn plain(&mut self) -> io::Result<()> {
        if self.style != Some(CellStyle::default()) {
            queue!(self.out, SetAttribute(Attribute::Reset))?;
            self.style = Some(CellStyle::default());
        }
        Ok(())
    }

    fn to(&mut self, x: u16, y: u16) -> io::Result<()> {
        if self.at != Some((x, y)) {
            queue!(self.out, MoveTo(x, y))?;
            self.at = Some((x, y));
        }
        Ok(())
    }

    /// Takes on the colours and attributes of `cell`.
    fn set_style(&mut self, cell: &Cell) -> io::Result<()> {
        let wanted = CellStyle(cell.fg, cell.bg, cell.modifier);
        if self.style != Some(wanted) {
            // Attributes cannot be taken away one by one: bold and dim share their end.
            self.plain()?;
            let set = |colour: Color| Some(colour).filter(|c| *c != Color::Reset);
            let style = Style {
                fg: set(cell.fg),
                bg: set(cell.bg),
                ..Style::new()
            }
            .add_modifier(cell.modifier);
            queue!(self.out, SetStyle(style.into_crossterm()))?;
            self.style = Some(wanted);
        }
        Ok(())
    }

    fn put(&mut self, x: u16, y: u16, cell: &Cell, cells: u16) -> io::Result<()> {
        let sure = text::agreed_width(cell.symbol()) == Some(usize::from(cells));
        self.set_style(cell)?;
        if !sure {
            // Whatever the terminal makes of the symbol, its cells have its colour.
            self.to(x, y)?;
            queue!(self.out, Print(" ".repeat(usize::from(cells))))?;
            self.at = None;
        }
        self.to(x, y)?;
        queue!(self.out, Print(cell.symbol()))?;
        self.at = sure.then_some((x + cells, y));
        Ok(())
    }

    /// The cells of a row that differ.
    fn changes(&mut self, y: u16, old: &[Cell], new: &[Cell]) -> io::Result<()> {
        for (x, (_, cell)) in old
            .iter()
            .zip(new)
            .enumerate()
            .filter(|(_, (old, new))| old != new)
        {
            self.put(x as u16, y, cell, 1)?;
        }
        Ok(())
    }

    /// A row on a cleared line.
    fn whole(&mut self, y: u16, cells: &[Cell]) -> io::Result<()> {
        self.to(0, y)?;
        self.plain()?;
        queue!(self.out, Clear(ClearType::CurrentLine))?;
        let end = cells
            .iter()
            .rposition(|cell| *cell != Cell::EMPTY)
            .map_or(0, |last| last + 1);
        let mut x = 0;
        while x < end {
            let wanted = usize::from(cells[x].cell_width().max(1));
            // Something else may have been drawn over its further cells.
            let free = cells[x + 1..]
                .iter()
                .take(wanted - 1)
                .take_while(|cell| cell.symbol() == " ")
                .count()
                + 1;
            if free < wanted {
                let mut blank = cells[x].clone();
                blank.set_symbol(" ");
                (x..x + free).try_for_each(|x| self.put(x as u16, y, &blank, 1))?;
            } else {
                self.put(x as u16, y, &cells[x], wanted as u16)?;
            }
            x += free;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
