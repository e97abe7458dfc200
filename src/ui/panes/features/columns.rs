//! The columns of the feature list: which fit a width, and how a line looks.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Cx, Sort};
use crate::analysis::FeatureRow;
use crate::text;
use crate::ui::describe::distinct_tokens;
use crate::ui::draw::thin_bar;

/// Which columns fit a width, and how wide the label's is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    width: usize,
    share: bool,
    bar: bool,
    purity: bool,
    neurons: bool,
    label: usize,
}

impl Columns {
    /// The narrowest leave out a number for the words: the share, or the purity where the list is
    /// sorted by share.
    pub(super) fn for_width(width: usize, sort: Sort) -> Self {
        let purity = width >= 30 || (width >= 20 && sort != Sort::Share);
        Self {
            width,
            share: width >= 30 || !purity,
            bar: width >= 38,
            purity,
            neurons: width >= 76,
            label: if width >= 52 { 11 } else { 0 },
        }
    }

    pub(super) fn head(self, sort: Option<Sort>, reversed: bool, cx: &Cx) -> Line<'static> {
        let arrow = |s: Sort| match (Some(s) == sort, reversed) {
            (false, _) => "",
            (true, false) => "▾",
            (true, true) => "▴",
        };
        let style = |s: Sort| {
            if Some(s) == sort {
                cx.theme.accent()
            } else {
                cx.theme.dim()
            }
        };
        let cell = |s: Sort, name: &str, cells: usize| {
            Span::styled(
                text::pad_left(&format!("{name}{}", arrow(s)), cells),
                style(s),
            )
        };
        // A sorted column takes all of its cells: its neighbour makes room.
        let crowded = if self.share {
            sort == Some(Sort::Share)
        } else {
            sort == Some(Sort::Purity)
        };
        let mut spans = vec![match crowded {
            true => Span::styled(text::pad("  id", 5), style(Sort::Id)),
            false => cell(Sort::Id, "id", 5),
        }];
        if self.share {
            spans.extend([cell(Sort::Share, "share", 6), Span::raw(" ")]);
        }
        if self.bar {
            spans.push(Span::raw(" "));
            spans.push(Span::styled(
                text::pad(&format!("dens{}", arrow(Sort::Density)), 5),
                style(Sort::Density),
            ));
        }
        if self.purity {
            spans.push(cell(Sort::Purity, "pure", 5));
        }
        if self.label > 0 {
            let head = format!(" label{}", arrow(Sort::Label));
            spans.push(Span::styled(
                text::pad(&head, self.label + 1),
                style(Sort::Label),
            ));
        }
        if self.neurons {
            spans.push(cell(Sort::Neurons, "neur", 6));
        }
        let room = self
            .width
            .saturating_sub(spans.iter().map(Span::width).sum::<usize>() + 2);
        let name = if room >= 16 {
            "strongest tokens"
        } else {
            "tokens"
        };
        spans.push(Span::styled(format!("  {name}"), cx.theme.dim()));
        Line::from(spans)
    }

    pub(super) fn line(
        self,
        row: &FeatureRow,
        selected: bool,
        densest: f32,
        cx: &Cx,
    ) -> Line<'static> {
        let theme = cx.theme;
        let marked = cx.world.marked.contains(&row.id);
        let marker = match (selected, marked) {
            (_, true) => "◆",
            (true, false) => "▌",
            (false, false) => " ",
        };
        let mut spans = vec![
            Span::styled(marker, theme.accent()),
            Span::styled(text::pad_left(&row.id.to_string(), 4), theme.dim()),
        ];
        if self.share {
            spans.extend([
                Span::raw(text::pad_left(&text::percent(row.share), 6)),
                Span::raw(" "),
            ]);
        }
        if self.bar {
            spans.push(Span::raw(" "));
            spans.push(Span::styled(thin_bar(row.density, densest, 4), theme.bar()));
            spans.push(Span::raw(" "));
        }
        if self.purity {
            spans.push(purity(row, theme.good(), theme.dim()));
        }
        if self.label > 0 {
            let label = row
                .purity
                .as_ref()
                .map(|p| text::clean(&p.label))
                .unwrap_or_default();
            spans.push(Span::styled(
                format!(
                    " {}",
                    text::pad(&text::label(&label, self.label), self.label)
                ),
                theme.dim(),
            ));
        }
        if self.neurons {
            spans.push(Span::raw(text::pad_left(&text::count(row.neurons), 6)));
        }
        spans.push(Span::raw("  "));
        let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
        let mut room = self.width.saturating_sub(used);
        if let Some(name) = &row.name {
            let name = text::truncate(&text::clean(name), room);
            room = room.saturating_sub(text::width(&name) + 2);
            spans.push(Span::styled(name, theme.name()));
            let doubtful = row.note.doubtful.is_some();
            spans.push(Span::styled(
                if doubtful { "? " } else { "  " },
                theme.warning(),
            ));
        }
        spans.push(Span::raw(text::truncate(
            &distinct_tokens(&row.top_tokens, usize::MAX),
            room,
        )));
        Line::from(spans)
    }
}

fn purity(row: &FeatureRow, high: Style, low: Style) -> Span<'static> {
    match &row.purity {
        // Telling only when it is both high and far above chance.
        Some(p) => {
            let style = if p.share >= 0.6 && p.share >= 2.0 * p.base {
                high
            } else {
                low
            };
            Span::styled(
                text::pad_left(&format!("{:.0}%", p.share * 100.0), 5),
                style,
            )
        }
        None => Span::styled(text::pad_left("–", 5), low),
    }
}
