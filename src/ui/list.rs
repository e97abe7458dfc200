//! Motion in a list: where its cursor goes, and which of its rows are on the screen.

use super::action::Action;

/// The first row to show so that `selected` of `count` rows is seen in `height`, near where
/// `offset` was.
pub fn scroll(offset: usize, selected: usize, count: usize, height: usize) -> usize {
    let height = height.max(1);
    let last = count.saturating_sub(height);
    let low = (selected + 1).saturating_sub(height);
    offset.clamp(low, selected.max(low)).min(last)
}

/// Moves a cursor of a list of `count` by a motion; `None` for other actions.
pub fn motion(action: Action, at: usize, count: usize, page: usize) -> Option<usize> {
    let last = count.saturating_sub(1);
    let page = page.max(2) - 1;
    Some(match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => (at + 1).min(last),
        Action::PageUp => at.saturating_sub(page),
        Action::PageDown => (at + page).min(last),
        Action::First => 0,
        Action::Last => last,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_selected_row_is_always_seen(
            offset in 0usize..500, count in 1usize..400, selected in 0usize..400, height in 1usize..60
        ) {
            let selected = selected.min(count - 1);
            let top = scroll(offset, selected, count, height);
            prop_assert!(top <= selected && selected < top + height);
            prop_assert!(top + height <= count.max(height));
        }
    }
}
