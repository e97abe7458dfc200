use crate::ui::pane_id::PaneId;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

#[test]
fn every_label_is_reached_by_the_cursor() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut stage = Stage::opened(width, height, Profile::Mono);
        stage.keys("s g enter enter");
        assert_eq!(stage.app.focus(), PaneId::Feature);
        stage.keys("G");
        assert!(
            stage.screen().contains("6 more: enter"),
            "{}",
            stage.screen()
        );
        assert!(
            stage.find("questions").is_none(),
            "the eleventh of twelve: {}",
            stage.screen()
        );
        stage.keys("enter G");
        assert!(
            stage.find("questions").is_some() && stage.find("weather").is_some(),
            "{}",
            stage.screen()
        );
        assert!(stage.find("more: enter").is_none(), "{}", stage.screen());
        // The cursor is on a label, which leads to all features against labels.
        stage.keys("enter");
        assert_eq!(stage.app.focus(), PaneId::Labels);
        stage.keys("esc");
        assert_eq!(stage.app.focus(), PaneId::Feature);
        // Another feature begins with the strongest few again.
        stage.keys("] G");
        assert!(
            stage.screen().contains("6 more: enter"),
            "{}",
            stage.screen()
        );
    }
}
