use super::*;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

fn ids(pane: &mut FeaturesPane, stage: &Stage) -> Vec<usize> {
    pane.reorder(&stage.app.cx(PaneId::Features));
    pane.order.clone()
}

#[test]
fn each_sort_puts_the_most_telling_first() {
    let stage = Stage::opened(80, 24, Profile::Mono);
    let rows = stage.app.world.rows();
    let mut pane = FeaturesPane {
        sort: Sort::Share,
        ..FeaturesPane::default()
    };
    assert!(
        ids(&mut pane, &stage)
            .windows(2)
            .all(|w| rows[w[0]].share >= rows[w[1]].share)
    );
    pane.sort = Sort::Purity;
    let purity = |id: usize| rows[id].purity.as_ref().map_or(0.0, |p| p.share);
    assert!(
        ids(&mut pane, &stage)
            .windows(2)
            .all(|w| purity(w[0]) >= purity(w[1]))
    );
    pane.sort = Sort::Id;
    let mut turned = ids(&mut pane, &stage);
    assert!(turned.is_sorted());
    pane.reversed = true;
    turned.reverse();
    assert_eq!(ids(&mut pane, &stage), turned);
}

#[test]
fn a_share_that_is_no_number_does_not_upset_the_order() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    let mut list = stage.demo.list(1, false);
    list.rows[5].share = f32::NAN;
    list.rows[6].density = f32::INFINITY;
    stage.event(Event::Features(std::sync::Arc::new(list)));
    assert!(stage.screen().contains("Features 40"));
}

#[test]
fn every_word_of_the_filter_must_be_found() {
    let stage = Stage::opened(80, 24, Profile::Mono);
    let query = LineInput::new("days frid");
    let mut pane = FeaturesPane {
        query,
        sort: Sort::Share,
        ..FeaturesPane::default()
    };
    assert_eq!(ids(&mut pane, &stage), [0, 12, 24, 36]);
    pane.query = LineInput::new("days kenya");
    assert!(ids(&mut pane, &stage).is_empty());
    pane.query = LineInput::new("#12");
    assert_eq!(ids(&mut pane, &stage), [12]);
}

#[test]
fn a_filter_that_finds_nothing_says_so() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("/").type_text("zzzz");
    assert!(
        stage.screen().contains("nothing matches 'zzzz'"),
        "{}",
        stage.screen()
    );
}

#[test]
fn what_is_copied_holds_no_control_character() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    let mut list = stage.demo.list(1, false);
    list.rows[0].top_tokens = vec!["\u{1b}]0;title\u{7}".to_owned()];
    stage
        .event(Event::Features(std::sync::Arc::new(list)))
        .keys("y t enter y enter y y");
    for effect in &stage.effects {
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
        stage
            .effects
            .iter()
            .filter(|e| matches!(e, crate::ui::app::Effect::Copy(..)))
            .count(),
        3
    );
}

#[test]
fn label_name_tokens_and_rating_sort() {
    let mut stage = Stage::opened(120, 36, Profile::Mono);
    let mut list = stage.demo.list(42, true);
    list.rows[9].note.rating = Some(5);
    list.rows[17].name = Some("Aardvarks".to_owned());
    stage.event(Event::Features(std::sync::Arc::new(list)));
    let first = |stage: &mut Stage, sort: &str| {
        while !stage.screen().contains(&format!("by {sort}")) {
            stage.keys("s");
        }
        stage.keys("g");
        stage.app.world.selected
    };
    let by_label =
        first(&mut stage, "label").and_then(|id| stage.app.world.row(id)?.purity.clone());
    assert_eq!(by_label.map(|p| p.label), Some("animals".to_owned()));
    assert_eq!(first(&mut stage, "name"), Some(17));
    let by_token = first(&mut stage, "tokens")
        .and_then(|id| stage.app.world.row(id)?.top_tokens.first().cloned());
    assert!(by_token.is_some_and(|token| !token.trim().starts_with(|c: char| c > 'a')));
    assert_eq!(first(&mut stage, "rating"), Some(9));
}

#[test]
fn a_question_under_way_is_told_until_it_is_answered_or_refused() {
    let mut stage = Stage::opened(120, 36, Profile::Mono);
    stage.answers = false;
    stage.keys("/").type_text("like:5");
    assert!(stage.screen().contains("asking…"), "{}", stage.screen());
    stage.wait(1.0);
    assert!(stage.screen().contains("asking…"), "{}", stage.screen());
    stage.reply(Event::Found(
        Probe::Like(5),
        std::sync::Arc::new(vec![1.0; 40]),
    ));
    assert!(!stage.screen().contains("asking…"), "{}", stage.screen());
    stage.keys("ctrl-u").type_text("fires:me").wait(1.0);
    assert!(stage.screen().contains("asking…"), "{}", stage.screen());
    stage.refuse(|c| matches!(c, Command::Find(_)), "no model is open");
    assert!(!stage.screen().contains("asking…"), "{}", stage.screen());
}

#[test]
fn what_answers_a_question_best_is_looked_at_and_stays() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.answers = false;
    stage.keys("j j j /").type_text("like:5").wait(1.0);
    let scores = (0..40)
        .map(|id| 1.0 - 0.01 * (id as f32 - 5.0).abs())
        .collect();
    stage.reply(Event::Found(Probe::Like(5), std::sync::Arc::new(scores)));
    assert_eq!(stage.app.world.selected, Some(5));
    stage.keys("esc");
    assert_eq!(
        stage.app.world.selected,
        Some(5),
        "the whole list again, the cursor where it was"
    );
    stage.keys("/").type_text("zzzz").keys("enter y");
    assert!(
        !stage
            .effects
            .iter()
            .any(|e| matches!(e, crate::ui::app::Effect::Copy(..)))
    );
}
