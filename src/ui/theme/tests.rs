use super::*;

fn rgb(c: Color) -> Rgb {
    match c {
        Color::Rgb(r, g, b) => (r, g, b),
        Color::Indexed(i) => indexed_rgb(i),
        other => panic!("{other:?} has no fixed value"),
    }
}

#[test]
fn every_text_colour_reads_on_its_background() {
    for profile in [Profile::TrueColour, Profile::Indexed] {
        for light in [false, true] {
            let theme = Theme::new(profile, light);
            let ground = if light { (255, 255, 255) } else { (30, 30, 30) };
            let row = rgb(theme.selected(true).bg.unwrap());
            for style in [
                theme.dim(),
                theme.accent(),
                theme.name(),
                theme.good(),
                theme.warning(),
                theme.error(),
                theme.positive(),
                theme.negative(),
            ] {
                let c = rgb(style.fg.unwrap());
                assert!(
                    contrast(c, ground) >= 4.5,
                    "{profile:?} light={light} {c:?}: {}",
                    contrast(c, ground)
                );
                assert!(
                    contrast(c, row) >= 4.5,
                    "selected {profile:?} light={light} {c:?}: {}",
                    contrast(c, row)
                );
            }
            for ramp in [Ramp::Sequential, Ramp::Diverging] {
                for style in theme.steps(ramp) {
                    let (fg, bg) = (rgb(style.fg.unwrap()), rgb(style.bg.unwrap()));
                    assert!(
                        contrast(fg, bg) >= 4.5,
                        "{profile:?} {ramp:?} {bg:?}: {}",
                        contrast(fg, bg)
                    );
                }
            }
        }
    }
}

#[test]
fn viridis_grows_lighter_step_by_step() {
    assert!(
        VIRIDIS
            .windows(2)
            .all(|w| luminance(w[0]) < luminance(w[1]))
    );
    assert!(
        VIRIDIS_256
            .windows(2)
            .all(|w| luminance(indexed_rgb(w[0])) < luminance(indexed_rgb(w[1])))
    );
}

#[test]
fn with_16_colours_what_is_strong_is_farther_from_the_ground() {
    // xterm's palette.
    let seen = |style: &Style| match style.bg.unwrap() {
        Color::Reset => None,
        Color::Blue => Some((0, 0, 238)),
        Color::LightBlue => Some((92, 92, 255)),
        Color::Cyan => Some((0, 205, 205)),
        Color::LightGreen => Some((0, 255, 0)),
        Color::LightYellow => Some((255, 255, 0)),
        Color::Red => Some((205, 0, 0)),
        Color::LightRed => Some((255, 92, 92)),
        other => panic!("{other:?} is not among the steps"),
    };
    for (light, ground) in [(false, (0, 0, 0)), (true, (255, 255, 255))] {
        let theme = Theme::new(Profile::Ansi, light);
        let far = |ramp| -> Vec<f64> {
            let steps = theme.steps(ramp).iter();
            steps
                .map(|s| contrast(seen(s).unwrap_or(ground), ground))
                .collect()
        };
        let up = far(Ramp::Sequential);
        assert!(up.windows(2).all(|w| w[0] < w[1]), "light={light} {up:?}");
        let both = far(Ramp::Diverging);
        assert!(
            both[0] > both[1] && both[1] > both[2] && both[2] < both[3] && both[3] < both[4],
            "light={light} {both:?}"
        );
    }
}

#[test]
fn about_zero_signed_values_are_close_to_the_ground_and_strong_ones_stand_out() {
    for profile in [Profile::TrueColour, Profile::Indexed] {
        for (light, ground) in [(false, (20, 20, 20)), (true, (255, 255, 255))] {
            let theme = Theme::new(profile, light);
            let far: Vec<f64> = theme
                .steps(Ramp::Diverging)
                .iter()
                .map(|s| contrast(rgb(s.bg.unwrap()), ground))
                .collect();
            let half = DIVERGING_STEPS / 2;
            assert!(far[half] < 1.6, "{profile:?} light={light} {far:?}");
            assert!(
                far[0] > 7.0 && far[DIVERGING_STEPS - 1] > 7.0,
                "{profile:?} light={light} {far:?}"
            );
            if !light {
                assert!(
                    far[..=half].windows(2).all(|w| w[0] > w[1] * 0.999),
                    "{profile:?} {far:?}"
                );
                assert!(
                    far[half + 1..].windows(2).all(|w| w[0] < w[1]),
                    "{profile:?} {far:?}"
                );
            }
        }
    }
}

#[test]
fn mono_has_no_colour_at_all() {
    let theme = Theme::new(Profile::Mono, false);
    let mut styles = vec![
        theme.dim(),
        theme.accent(),
        theme.error(),
        theme.selected(true),
        theme.bar(),
    ];
    styles.extend(theme.steps(Ramp::Sequential));
    styles.extend(theme.steps(Ramp::Diverging));
    assert!(styles.iter().all(|s| s.fg.is_none() && s.bg.is_none()));
}

#[test]
fn small_values_are_plain_and_the_ends_are_the_ends() {
    let theme = Theme::new(Profile::TrueColour, false);
    assert_eq!(theme.heat(Ramp::Sequential, 0.2, 10.0), Style::new());
    assert_eq!(theme.heat(Ramp::Sequential, 10.0, 10.0), theme.heat[15]);
    assert_eq!(theme.heat(Ramp::Sequential, -3.0, 10.0), Style::new());
    assert_eq!(theme.heat(Ramp::Diverging, -10.0, 10.0), theme.diverging[0]);
    assert_eq!(theme.heat(Ramp::Diverging, 10.0, 10.0), theme.diverging[16]);
    assert_eq!(
        theme.heat(Ramp::Diverging, -1.4, 10.0),
        Style::new(),
        "most signed values are small"
    );
    assert_eq!(theme.heat(Ramp::Sequential, f32::NAN, 10.0), Style::new());
    assert_eq!(Theme::mark(9.9, 10.0), Some('█'));
    assert_eq!(Theme::digit(5.5, 10.0), Some('⁵'));
}
