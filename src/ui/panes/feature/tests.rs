use crate::ui::harness::Harness;
use crate::ui::pane_id::PaneId;
use crate::ui::theme::Profile;

#[test]
fn every_label_is_reached_by_the_cursor() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = Harness::opened(width, height, Profile::Mono);
        harness.keys("s g enter enter");
        assert_eq!(harness.app.focus(), PaneId::Feature);
        harness.keys("G");
        assert!(
            harness.screen().contains("6 more: enter"),
            "{}",
            harness.screen()
        );
        assert!(
            harness.find("questions").is_none(),
            "the eleventh of twelve: {}",
            harness.screen()
        );
        harness.keys("enter G");
        assert!(
            harness.find("questions").is_some() && harness.find("weather").is_some(),
            "{}",
            harness.screen()
        );
        assert!(
            harness.find("more: enter").is_none(),
            "{}",
            harness.screen()
        );
        // The cursor is on a label, which leads to all features against labels.
        harness.keys("enter");
        assert_eq!(harness.app.focus(), PaneId::Labels);
        harness.keys("esc");
        assert_eq!(harness.app.focus(), PaneId::Feature);
        // Another feature begins with the strongest few again.
        harness.keys("] G");
        assert!(
            harness.screen().contains("6 more: enter"),
            "{}",
            harness.screen()
        );
    }
}
