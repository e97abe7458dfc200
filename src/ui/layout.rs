//! Where things are: a pure function of the size and of what is on show, used by drawing, scrolling
//! and mouse alike.
//!
//! Invariant: every rectangle lies inside the terminal, whatever its size.

use ratatui::layout::Rect;

use crate::ui::pane_id::PaneId;

/// The size classes of terminals, each with its arrangement of panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Too small for anything but a message.
    Tiny,
    /// One pane, no frame.
    Single,
    /// A list and a main pane.
    Standard,
    /// Three columns side by side.
    Wide,
}

impl Class {
    /// The class of a terminal of `width` × `height` cells.
    pub fn of(width: u16, height: u16) -> Self {
        match (width, height) {
            (w, h) if w < 30 || h < 8 => Self::Tiny,
            (w, h) if w < 60 || h < 16 => Self::Single,
            (w, h) if w >= 116 && h >= 28 => Self::Wide,
            _ => Self::Standard,
        }
    }
}

/// Where a pane is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaneArea {
    /// The pane that is drawn there.
    pub pane: PaneId,
    /// The line of the pane's title, above `inner`.
    pub title: Rect,
    /// The vertical rule at its left; `None` for the first column.
    pub rule: Option<Rect>,
    /// The cells that the pane draws in.
    pub inner: Rect,
}

/// Where everything is on the screen. An empty rectangle is not drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The size class of the terminal.
    pub class: Class,
    /// The line that names model, hook and corpus.
    pub header: Rect,
    /// The line of tabs, with the state of the fit at its right.
    pub tabs: Rect,
    /// The lines of a note that does not go away.
    pub notice: Rect,
    /// The panes on the screen.
    pub panes: Vec<PaneArea>,
    /// The line of the running job.
    pub progress: Rect,
    /// The footer's line of hints.
    pub footer: Rect,
}

/// What the layout depends on besides the size.
#[derive(Debug, Clone, Copy)]
pub struct LayoutInput {
    /// The pane with the focus, which is always on the screen.
    pub pane: PaneId,
    /// Whether the focused pane is alone on the screen.
    pub zoom: bool,
    /// How many lines the note takes; 0 without one.
    pub notice: u16,
    /// Whether a job runs.
    pub progress: bool,
    /// Whether there are no features to read yet: then the focused pane is alone.
    pub waiting: bool,
}

impl Layout {
    /// For a terminal of `width` × `height`.
    pub fn new(width: u16, height: u16, input: LayoutInput) -> Self {
        let class = Class::of(width, height);
        let mut rest = Rect::new(0, 0, width, height);
        let mut top = |lines: u16| {
            let taken = Rect {
                height: lines.min(rest.height),
                ..rest
            };
            rest.y += taken.height;
            rest.height -= taken.height;
            taken
        };
        let framed = matches!(class, Class::Standard | Class::Wide);
        let header = top(u16::from(framed));
        let tabs = top(u16::from(framed));
        let notice = top(if framed { input.notice.min(2) } else { 0 });
        let mut bottom = |lines: u16| {
            let taken = lines.min(rest.height);
            rest.height -= taken;
            Rect {
                y: rest.y + rest.height,
                height: taken,
                ..rest
            }
        };
        let footer = bottom(u16::from(class != Class::Tiny));
        let progress = bottom(u16::from(class != Class::Tiny && input.progress));
        let panes = if class == Class::Tiny {
            Vec::new()
        } else {
            columns(class, rest, input)
        };
        Self {
            class,
            header,
            tabs,
            notice,
            panes,
            progress,
            footer,
        }
    }

    /// Where a pane is, when it is on the screen.
    pub fn pane(&self, pane: PaneId) -> Option<&PaneArea> {
        self.panes.iter().find(|p| p.pane == pane)
    }
}

/// The first `height` lines of an area, and the rest.
pub fn split_top(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let rest = Rect {
        y: area.y + height,
        height: area.height - height,
        ..area
    };
    (Rect { height, ..area }, rest)
}

/// The first `width` columns of an area, and the rest.
pub fn split_left(area: Rect, width: u16) -> (Rect, Rect) {
    let width = width.min(area.width);
    let rest = Rect {
        x: area.x + width,
        width: area.width - width,
        ..area
    };
    (Rect { width, ..area }, rest)
}

/// The panes of the tab that `input.pane` belongs to.
fn columns(class: Class, body: Rect, input: LayoutInput) -> Vec<PaneArea> {
    use PaneId::{Contexts, Feature, Features};
    if class == Class::Single || input.zoom || input.waiting || !input.pane.is_column() {
        return vec![pane_area(input.pane, body, false)];
    }
    let width = body.width;
    let shares: Vec<(PaneId, u16)> = if class == Class::Wide {
        let list = (width * 7 / 20).clamp(38, 60);
        let detail = (width * 3 / 10).clamp(36, 60);
        vec![
            (Features, list),
            (Contexts, width - list - detail),
            (Feature, detail),
        ]
    } else {
        let list = (width * 2 / 5).clamp(24, 50);
        let main = if input.pane == Feature {
            Feature
        } else {
            Contexts
        };
        vec![(Features, list), (main, width - list)]
    };
    let mut x = body.x;
    shares
        .into_iter()
        .enumerate()
        .map(|(i, (pane, width))| {
            let column = Rect { x, width, ..body };
            x += width;
            pane_area(pane, column, i > 0)
        })
        .collect()
}

fn pane_area(pane: PaneId, area: Rect, ruled: bool) -> PaneArea {
    let (title, below) = split_top(area, 1);
    let (rule, inner) = split_left(below, u16::from(ruled));
    PaneArea {
        pane,
        title,
        rule: ruled.then_some(rule),
        inner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_area_lies_inside_the_screen(
            w in 0u16..=300, h in 0u16..=200, pane in 0..PaneId::ALL.len(), zoom: bool, notice in 0u16..4, progress: bool, waiting: bool
        ) {
            let screen = Rect::new(0, 0, w, h);
            let layout = Layout::new(w, h, LayoutInput { pane: PaneId::ALL[pane], zoom, notice, progress, waiting });
            let mut all = vec![layout.header, layout.tabs, layout.notice, layout.progress, layout.footer];
            for p in &layout.panes {
                all.extend([p.title, p.inner]);
                all.extend(p.rule);
            }
            for r in all {
                prop_assert_eq!(r.intersection(screen), r);
            }
            if layout.class != Class::Tiny {
                prop_assert!(layout.pane(PaneId::ALL[pane]).is_some_and(|p| !p.inner.is_empty()));
            }
        }
    }
}
