use super::*;
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

fn ids(pane: &mut FeaturesPane, harness: &Harness) -> Vec<usize> {
    pane.reorder(&harness.app.cx(PaneId::Features));
    pane.order.clone()
}

#[test]
fn a_feature_that_is_asked_for_by_its_number_comes_first() {
    let mut harness = Harness::opened_with(120, 36, Profile::Mono, 40);
    harness.keys("/").type_text("#3").keys("enter g");
    assert_eq!(harness.app.world.selected, Some(3), "{}", harness.screen());
}

#[test]
fn each_sort_puts_the_strongest_feature_first() {
    let harness = Harness::opened(80, 24, Profile::Mono);
    let rows = harness.app.world.rows();
    let mut pane = FeaturesPane {
        sort: Sort::Share,
        ..FeaturesPane::default()
    };
    assert!(
        ids(&mut pane, &harness)
            .windows(2)
            .all(|w| rows[w[0]].share >= rows[w[1]].share)
    );
    pane.sort = Sort::Purity;
    let purity = |id: usize| rows[id].purity.as_ref().map_or(0.0, |p| p.share);
    assert!(
        ids(&mut pane, &harness)
            .windows(2)
            .all(|w| purity(w[0]) >= purity(w[1]))
    );
    pane.sort = Sort::Id;
    let mut turned = ids(&mut pane, &harness);
    assert!(turned.is_sorted());
    pane.reversed = true;
    turned.reverse();
    assert_eq!(ids(&mut pane, &harness), turned);
}

#[test]
fn a_share_that_is_no_number_does_not_upset_the_order() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    let mut list = harness.engine.list(1, false);
    list.rows[5].share = f32::NAN;
    list.rows[6].density = f32::INFINITY;
    harness.event(Event::Features(std::sync::Arc::new(list)));
    assert!(harness.screen().contains("Features 40"));
}

#[test]
fn every_word_of_the_filter_must_be_found() {
    let harness = Harness::opened(80, 24, Profile::Mono);
    let query = LineInput::new("days frid");
    let mut pane = FeaturesPane {
        query,
        sort: Sort::Share,
        ..FeaturesPane::default()
    };
    assert_eq!(ids(&mut pane, &harness), [0, 12, 24, 36]);
    pane.query = LineInput::new("days kenya");
    assert!(ids(&mut pane, &harness).is_empty());
    pane.query = LineInput::new("#12");
    assert_eq!(ids(&mut pane, &harness), [12]);
}

#[test]
fn a_filter_that_finds_nothing_says_so() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("/").type_text("zzzz");
    assert!(
        harness.screen().contains("nothing matches 'zzzz'"),
        "{}",
        harness.screen()
    );
}

#[test]
fn what_is_copied_holds_no_control_character() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    let mut list = harness.engine.list(1, false);
    list.rows[0].top_tokens = vec!["\u{1b}]0;title\u{7}".to_owned()];
    harness
        .event(Event::Features(std::sync::Arc::new(list)))
        .keys("y t enter y enter y y");
    for effect in &harness.effects {
        let crate::ui::app::Effect::Copy(text, _) = effect else {
            continue;
        };
        assert!(
            !text
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t'),
            "{text:?}"
        );
    }
    assert_eq!(
        harness
            .effects
            .iter()
            .filter(|e| matches!(e, crate::ui::app::Effect::Copy(..)))
            .count(),
        3
    );
}

#[test]
fn label_name_tokens_and_rating_sort() {
    let mut harness = Harness::opened(120, 36, Profile::Mono);
    let mut list = harness.engine.list(42, true);
    list.rows[9].note.rating = Some(5);
    list.rows[17].name = Some("Aardvarks".to_owned());
    harness.event(Event::Features(std::sync::Arc::new(list)));
    let first = |harness: &mut Harness, sort: &str| {
        while !harness.screen().contains(&format!("by {sort}")) {
            harness.keys("s");
        }
        harness.keys("g");
        harness.app.world.selected
    };
    let by_label =
        first(&mut harness, "label").and_then(|id| harness.app.world.row(id)?.purity.clone());
    assert_eq!(by_label.map(|p| p.label), Some("animals".to_owned()));
    assert_eq!(first(&mut harness, "name"), Some(17));
    let by_token = first(&mut harness, "tokens")
        .and_then(|id| harness.app.world.row(id)?.top_tokens.first().cloned());
    assert!(by_token.is_some_and(|token| !token.trim().starts_with(|c: char| c > 'a')));
    assert_eq!(first(&mut harness, "rating"), Some(9));
}

#[test]
fn an_open_request_is_shown_until_it_is_answered_or_refused() {
    let mut harness = Harness::opened(120, 36, Profile::Mono);
    harness.answers = false;
    harness.keys("/").type_text("like:5");
    assert!(harness.screen().contains("asking…"), "{}", harness.screen());
    harness.wait(1.0);
    assert!(harness.screen().contains("asking…"), "{}", harness.screen());
    harness.reply(Event::Found(
        Probe::Like(5),
        std::sync::Arc::new(vec![1.0; 40]),
    ));
    assert!(
        !harness.screen().contains("asking…"),
        "{}",
        harness.screen()
    );
    harness.keys("ctrl-u").type_text("fires:me").wait(1.0);
    assert!(harness.screen().contains("asking…"), "{}", harness.screen());
    harness.refuse(|c| matches!(c, Command::Find(_)), "no model is open");
    assert!(
        !harness.screen().contains("asking…"),
        "{}",
        harness.screen()
    );
}

#[test]
fn the_best_answer_to_a_question_is_selected_and_stays_selected() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.answers = false;
    harness.keys("j j j /").type_text("like:5").wait(1.0);
    let scores = (0..40)
        .map(|id| 1.0 - 0.01 * (id as f32 - 5.0).abs())
        .collect();
    harness.reply(Event::Found(Probe::Like(5), std::sync::Arc::new(scores)));
    assert_eq!(harness.app.world.selected, Some(5));
    harness.keys("esc");
    assert_eq!(
        harness.app.world.selected,
        Some(5),
        "the whole list again, the cursor where it was"
    );
    harness.keys("/").type_text("zzzz").keys("enter y");
    assert!(
        !harness
            .effects
            .iter()
            .any(|e| matches!(e, crate::ui::app::Effect::Copy(..)))
    );
}
