use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::engine::{Event, Level};
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

#[test]
fn a_toast_over_a_heat_map_has_no_colours_of_the_cells_beneath() {
    let mut harness = Harness::opened(80, 24, Profile::TrueColour);
    harness.keys("enter z w");
    let before = harness.cells();
    harness.event(Event::Log(Level::Error, "what went wrong ".repeat(12)));
    let after = harness.cells();
    let marks: Vec<(u16, u16)> = (0..24)
        .flat_map(|y| (0..80).map(move |x| (x, y)))
        .filter(|&at| after[at].symbol() == "▌" && before[at].symbol() != "▌")
        .collect();
    let &(x, y) = marks.first().expect("a toast");
    let area = Rect::new(x, y, 79 - x, marks.len() as u16);
    let coloured = |buffer: &ratatui::buffer::Buffer| {
        area.positions()
            .filter(|&at| buffer[at].bg != Color::Reset)
            .count()
    };
    assert!(coloured(&before) > 0, "{}", harness.screen());
    assert_eq!(coloured(&after), 0, "{}", harness.styles());
}
