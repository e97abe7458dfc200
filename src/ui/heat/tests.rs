use super::*;
use crate::ui::theme::Profile;
use proptest::prelude::*;

fn shown(lines: &[Line]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

fn heat<'a>(tokens: &'a [String], values: &'a [f32], theme: &'a Theme) -> Heat<'a> {
    Heat {
        tokens,
        cut: [false; 2],
        values,
        max: 10.0,
        ramp: Ramp::Sequential,
        digits: false,
        cursor: None,
        theme,
    }
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn wraps_before_words_never_inside_one() {
    let tokens = words(&["The", " week", "day", " Sunday", ",", " at", " noon"]);
    let values = [0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0];
    let theme = Theme::new(Profile::TrueColour, false);
    let lines = heat(&tokens, &values, &theme).wrapped(12, 3, 9);
    assert_eq!(shown(&lines), ["The weekday", "Sunday, at", "noon"]);
    assert_eq!(
        lines[1].spans[0].style,
        theme.heat(Ramp::Sequential, 9.0, 10.0)
    );
}

#[test]
fn a_window_keeps_the_peak_and_says_that_it_is_one() {
    let tokens = words(&[
        "one", " two", " three", " four", " five", " six", " seven", " eight",
    ]);
    let theme = Theme::new(Profile::TrueColour, false);
    let lines = heat(&tokens, &[0.0; 8], &theme).wrapped(12, 4, 1);
    assert_eq!(lines.len(), 1);
    let line = lines[0].to_string();
    assert!(
        line.contains("five") && line.starts_with('…') && line.ends_with('…'),
        "{line}"
    );
}

#[test]
fn peaks_align() {
    let theme = Theme::new(Profile::Mono, false);
    let tokens = words(&["It", " was", " Sunday", " again"]);
    let line = heat(&tokens, &[0.0, 0.0, 10.0, 3.0], &theme)
        .aligned(24, 2, 8)
        .to_string();
    assert_eq!(line, "  It was █Sunday ░again");
    let short = heat(&tokens[2..], &[10.0, 3.0], &theme)
        .aligned(24, 0, 8)
        .to_string();
    assert_eq!(short, "         █Sunday ░again");
}

#[test]
fn without_colours_a_minus_tells_the_sign() {
    let theme = Theme::new(Profile::Mono, false);
    let tokens = words(&["up", " down", " little"]);
    let signed = Heat {
        ramp: Ramp::Diverging,
        ..heat(&tokens, &[9.0, -9.0, -0.1], &theme)
    };
    assert_eq!(shown(&signed.wrapped(40, 0, 3)), ["█up -█down little"]);
    let reversed = ratatui::style::Modifier::REVERSED;
    assert!(
        signed.wrapped(40, 0, 3)[0]
            .spans
            .iter()
            .all(|s| !s.style.add_modifier.contains(reversed))
    );
}

#[test]
fn a_bar_in_a_reversed_row_is_no_hole() {
    let line = Line::from("#3 ██▌");
    let mono = Theme::new(Profile::Mono, false);
    assert_eq!(
        crate::ui::draw::shaded(line.clone(), &mono).to_string(),
        "#3 ▒▒▌"
    );
    assert_eq!(
        crate::ui::draw::shaded(line.clone(), &Theme::new(Profile::TrueColour, false)),
        line
    );
}

#[test]
fn a_line_that_begins_inside_a_text_says_so() {
    let theme = Theme::new(Profile::TrueColour, false);
    let tokens = words(&["Wednesday", " night", " peak", " after"]);
    let line = heat(&tokens, &[0.0; 4], &theme)
        .aligned(24, 2, 8)
        .to_string();
    assert_eq!(line, "…y night peak after");
}

#[test]
fn a_character_that_is_split_over_tokens_has_the_strongest_of_their_values() {
    let theme = Theme::new(Profile::TrueColour, false);
    // Bytes of a character, and a letter with its vowel sign and its virama.
    let tokens = words(&[
        "今",
        "",
        "日",
        " \u{915}",
        "\u{94d}",
        "\u{937}\u{93e}\u{939}",
        "x",
    ]);
    let values = [1.0, -9.0, 0.0, 2.0, 5.0, 3.0, 0.0];
    let heat = Heat {
        ramp: Ramp::Diverging,
        ..heat(&tokens, &values, &theme)
    };
    let lines = heat.wrapped(40, 1, 3);
    assert_eq!(shown(&lines), ["今日 \u{915}\u{94d}\u{937}\u{93e}\u{939}x"]);
    assert_eq!(
        lines[0].spans[0].style,
        theme.heat(Ramp::Diverging, -9.0, 10.0)
    );
    assert_eq!(
        lines[0].spans[2].style,
        theme.heat(Ramp::Diverging, 5.0, 10.0)
    );
    assert_eq!(
        [heat.line_of(40, 1), heat.line_of(2, 1), heat.line_of(2, 2)],
        [0, 0, 1]
    );
    assert_eq!(heat.token_at(40, 1, 0), Some(0));
}

#[test]
fn digits_stand_behind_what_fires() {
    let theme = Theme::new(Profile::TrueColour, false);
    let tokens = words(&["a", " b"]);
    let heat = Heat {
        digits: true,
        ..heat(&tokens, &[0.1, 10.0], &theme)
    };
    assert_eq!(shown(&heat.wrapped(20, 1, 3)), ["a b⁹"]);
}

proptest! {
    #[test]
    fn no_line_is_too_wide(
        tokens in proptest::collection::vec("[ a-z\u{4e00}\u{202e}\n👍é\u{301}\u{93e}\u{94d}कกำ🇫]{0,9}", 1..24),
        width in 2usize..60, most in 1usize..6, peak in 0usize..30, column in 0usize..70
    ) {
        let theme = Theme::new(Profile::Mono, false);
        let values: Vec<f32> = (0..tokens.len()).map(|i| i as f32).collect();
        let heat = heat(&tokens, &values, &theme);
        for line in heat.wrapped(width, peak, most) {
            prop_assert!(text::width(&line.to_string()) <= width, "{:?}", line);
        }
        prop_assert!(heat.wrapped(width, peak, most).len() <= most);
        prop_assert!(text::width(&heat.aligned(width, peak, column).to_string()) <= width);
    }
}

#[test]
fn a_text_that_goes_on_is_marked_at_either_end() {
    let tokens = words(&["one", " two"]);
    let theme = Theme::new(Profile::TrueColour, false);
    let cut = |cut| Heat {
        cut,
        ..heat(&tokens, &[0.0; 2], &theme)
    };
    let both = cut([true, true]);
    assert_eq!(shown(&both.wrapped(20, 1, 2)), ["…one two…"]);
    assert_eq!(both.aligned(20, 1, 6).to_string(), "  …one two…");
    let end = cut([false, true]);
    assert_eq!(shown(&end.wrapped(20, 1, 2)), ["one two…"]);
    assert_eq!(shown(&cut([false; 2]).wrapped(20, 1, 2)), ["one two"]);
}
