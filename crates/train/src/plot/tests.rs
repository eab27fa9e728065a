use super::*;

fn plot(panels: Vec<Panel>) -> Plot {
    Plot {
        title: "run".to_owned(),
        x_label: "step".to_owned(),
        panels,
    }
}

/// Fails unless every element is closed in order and every `&` begins an entity.
fn assert_well_formed(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("an unclosed tag");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;"];
            assert!(known.iter().any(|name| entity.starts_with(name)), "{text}");
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn names_from_the_user_are_escaped() {
    let mut plot = plot(vec![Panel::loss(vec![Series::new(
        "a<b> & \"c\"\u{1}",
        [(1, 1.0), (2, 0.5)],
    )])]);
    plot.title = "</title><script>x</script>".to_owned();
    plot.x_label = "&&".to_owned();
    let svg = plot.to_svg();
    assert_well_formed(&svg);
    assert!(!svg.contains("<script>"));
    assert!(svg.contains("a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}"));
}

#[test]
fn values_that_cannot_be_drawn_leave_gaps() {
    let points = [
        (1, 1.0),
        (2, 2.0),
        (3, f64::NAN),
        (4, f64::INFINITY),
        (5, 3.0),
        (6, 2.0),
        (7, -1.0),
        (8, 1.0),
        (9, 1e300),
    ];
    let x_axis = Axis::new(Kind::Steps, [0.0, 10.0], 0.0, 100.0);
    let strokes = |kind| {
        let y_axis = Axis::new(kind, points.map(|(_, value)| value), 100.0, 0.0);
        let strokes = Strokes::new(&points, &x_axis, &y_axis).strokes;
        strokes.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(strokes(Kind::Linear), [2, 4]);
    assert_eq!(strokes(Kind::Log), [2, 2, 1]);
    for scale in [Scale::Linear, Scale::Log, Scale::Percent] {
        let mut panel = Panel::loss(vec![Series::new("x", points)]);
        panel.scale = scale;
        assert_well_formed(&plot(vec![panel]).to_svg());
    }
}

#[test]
fn plots_without_values_say_so() {
    let nothing = plot(Vec::new()).to_svg();
    assert_well_formed(&nothing);
    assert!(nothing.contains("nothing to plot"));
    let empty_panels = [
        Panel::loss(Vec::new()),
        Panel::loss(vec![Series::new("x", [])]),
        Panel::loss(vec![Series::new("x", [(1, f64::NAN)])]),
        Panel::loss(vec![Series::new("x", [(1, -1.0), (2, 0.0)])]).log_scale(),
    ];
    for panel in empty_panels {
        let svg = plot(vec![panel]).to_svg();
        assert_well_formed(&svg);
        assert!(svg.contains("no values to plot yet"));
    }
}

#[test]
fn a_single_point_and_extreme_steps_are_drawn() {
    for points in [
        vec![(5, 2.0)],
        vec![(0, 0.0)],
        vec![(0, 1.0), (u64::MAX, 2.0)],
        vec![(u64::MAX, 1.0), (u64::MAX, 1.0)],
    ] {
        let svg = plot(vec![Panel::loss(vec![Series::new("x", points)])]).to_svg();
        assert_well_formed(&svg);
        assert!(!svg.contains("no values"));
    }
}

#[test]
fn a_million_points_make_a_small_picture_that_keeps_the_spikes() {
    let points = (0..1_000_000).map(|step| (step, if step == 654_321 { 9.0 } else { 1.0 }));
    let series = Series::new("x", points);
    let x_axis = Axis::new(Kind::Steps, [0.0, 1e6], 0.0, 800.0);
    let y_axis = Axis::new(Kind::Linear, [0.0, 9.0], 100.0, 0.0);
    let strokes = Strokes::new(&series.points, &x_axis, &y_axis);
    let highest = strokes.strokes[0].iter().map(|point| point.1);
    assert_eq!(highest.fold(f64::INFINITY, f64::min), y_axis.place(9.0));
    assert!(plot(vec![Panel::loss(vec![series])]).to_svg().len() < 150_000);
}

#[test]
fn the_moving_average_of_a_constant_is_that_constant_and_skips_gaps() {
    let points = [(1, 3.0), (2, 3.0), (3, f64::NAN), (4, 3.0)];
    let smoothed = moving_average(&points, Kind::Linear);
    for (found, expected) in smoothed.iter().zip(points) {
        assert_eq!(found.0, expected.0);
        assert!(found.1.is_nan() == expected.1.is_nan());
        assert!(found.1.is_nan() || (found.1 - 3.0).abs() < 1e-12);
    }
    // A window of two points: weights 1/2 and 1/4, over 3/4.
    let step = moving_average(&[(1, 0.0), (2, 3.0)], Kind::Linear);
    assert_eq!(step[1].1, 2.0);
}

#[test]
fn long_legends_wrap_within_the_picture_and_long_names_are_cut() {
    let series = (0..20)
        .map(|index| Series::new(format!("{} {index}", "long ".repeat(20)), [(1, 0.5)]))
        .collect();
    let panel = Panel::percent("accuracy", series);
    let entries = legend(&panel);
    assert!(entries.last().unwrap().line >= 4);
    for entry in &entries {
        assert!(entry.x + 26.0 + text_width(&entry.text, 12) <= WIDTH);
    }
    let styles: std::collections::HashSet<_> = (0..20).map(style).collect();
    assert_eq!(styles.len(), 20);
    assert_well_formed(&plot(vec![panel]).to_svg());
}
