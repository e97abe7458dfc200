use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::engine::{Event, Level};
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

#[test]
fn a_toast_over_a_heat_map_has_no_colours_of_the_cells_beneath() {
    let mut stage = Stage::opened(80, 24, Profile::TrueColour);
    stage.keys("enter z w");
    let before = stage.cells();
    stage.event(Event::Log(Level::Error, "what went wrong ".repeat(12)));
    let after = stage.cells();
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
    assert!(coloured(&before) > 0, "{}", stage.screen());
    assert_eq!(coloured(&after), 0, "{}", stage.styles());
}
