use std::sync::Arc;

use crate::analysis::LabelMatrix;
use crate::engine::{Command, Event};
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

#[test]
fn features_stand_by_their_labels_at_every_size() {
    for profile in [Profile::TrueColour, Profile::Mono] {
        for (width, height) in [(120, 36), (80, 24), (60, 18), (30, 8)] {
            let mut harness = Harness::opened(width, height, profile);
            harness.keys("M");
            assert!(harness.sent.contains(&Command::Labels));
            assert!(
                harness.screen().contains("of ΣY on"),
                "{}",
                harness.screen()
            );
            harness.keys("right right j j pagedown end G g left");
            let _ = harness.screen();
            harness.keys("enter");
            assert!(
                harness.screen().contains("Contexts"),
                "{}",
                harness.screen()
            );
        }
    }
}

#[test]
fn many_labels_take_the_whole_width_and_the_chosen_one_is_marked() {
    let labels: Vec<String> = (0..60)
        .map(|l| format!("family{}/label {l}", l / 12))
        .collect();
    let matrix = LabelMatrix {
        base: vec![0.1; labels.len()],
        shares: (0..40)
            .map(|id| {
                (0..60)
                    .map(|l| if l % 40 == id { 0.5 } else { 0.0 })
                    .collect()
            })
            .collect(),
        labels,
    };
    for (width, height) in [(120, 36), (80, 24), (60, 18), (30, 8)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        harness.answers = false;
        harness
            .keys("M")
            .reply(Event::Labels(Arc::new(matrix.clone())));
        for keys in ["", "right right", "left left left left left left"] {
            harness.keys(keys);
            let screen = harness.screen();
            let head = screen
                .lines()
                .find(|l| l.contains('▾') && l.contains("label"))
                .unwrap_or_default();
            assert!(
                !head.is_empty(),
                "the column is marked beside its name: {screen}"
            );
        }
        if width == 120 {
            let screen = harness.screen();
            assert!(
                screen.contains("╷family0"),
                "families can be read: {screen}"
            );
            let map = harness
                .styles()
                .lines()
                .filter(|l| l.contains(":118-") || l.contains("-119 "))
                .count();
            assert!(map > 0, "the map reaches the edge: {}", harness.styles());
        }
    }
}

#[test]
fn families_of_labels_stand_over_their_columns() {
    let labels = [
        "month/June",
        "month/May",
        "weekday/Friday",
        "weekday/Monday",
        "weekday/Sunday",
        "other",
    ];
    let row = |id: usize| {
        (0..labels.len())
            .map(|l| if l == id % labels.len() { 0.5 } else { 0.0 })
            .collect()
    };
    let matrix = LabelMatrix {
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        base: vec![0.1; labels.len()],
        shares: (0..40).map(row).collect(),
    };
    for (width, height) in [(120, 36), (80, 24), (60, 18), (30, 8)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        harness.answers = false;
        harness
            .keys("M")
            .reply(Event::Labels(Arc::new(matrix.clone())));
        let screen = harness.screen();
        assert!(width < 60 || screen.contains("╷month╷weekday"), "{screen}");
        harness.keys("left G");
        assert!(
            harness.screen().contains("of ΣY on weekday"),
            "{}",
            harness.screen()
        );
    }
}
