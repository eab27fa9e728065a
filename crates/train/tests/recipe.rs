//! Recipes: what is refused, and how it is said.

use std::path::Path;
use vlm_train::Recipe;

const RECIPE: &str = include_str!("../../../recipes/vlm-tiny.toml");

#[test]
fn the_shipped_recipe_is_understood_and_survives_a_round_trip() {
    let recipe = Recipe::parse(RECIPE).expect("the shipped recipe");
    let text = toml::to_string(&recipe).expect("recipes can be written");
    assert_eq!(Recipe::parse(&text).expect("own text"), recipe);
}

/// The recipes of a directory by their file names, with their texts.
fn recipes(directory: &Path) -> Vec<(String, String, Recipe)> {
    let entries = std::fs::read_dir(directory).expect("recipes");
    let files = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|p| p.is_file());
    files
        .map(|path| {
            let recipe = Recipe::read(&path).unwrap_or_else(|e| panic!("{e}"));
            let text = std::fs::read_to_string(&path).expect("text");
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), text, recipe)
        })
        .collect()
}

#[test]
fn every_shipped_recipe_is_understood_and_those_compared_learn_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    assert!(recipes(&root).len() >= 17);
    for (directory, count, fusions) in [
        ("tree", 16, 6),
        ("tree-easy-vqa", 8, 6),
        ("tree-nlvr", 5, 3),
        ("tree-flickr8k", 6, 0),
        ("tree-caltech101", 4, 0),
    ] {
        let found = recipes(&root.join(directory));
        assert_eq!(found.len(), count, "{directory}");
        let learned = |recipe: &Recipe| {
            let t = recipe.train();
            let pictures = t.steps * (t.batch_size * t.accumulate) as u64;
            let sets = match recipe {
                Recipe::Set(set) => (set.data.sets.clone(), set.data.held_out),
                Recipe::Shapes(_) => Default::default(),
            };
            (recipe.scenes(), sets, pictures)
        };
        for (name, _, recipe) in &found {
            assert_eq!(learned(recipe), learned(&found[0].2), "{directory}/{name}");
            if let Recipe::Set(set) = recipe
                && let Some(detector) = &set.data.detector
            {
                let detector = Recipe::read(&root.join("..").join(detector));
                let detector = detector.unwrap_or_else(|e| panic!("{name}: {e}"));
                // it learns from such scenes as well
                assert_eq!(detector.scenes(), recipe.scenes(), "{directory}/{name}");
            }
        }
        let texts = found
            .iter()
            .filter(|(name, ..)| name.starts_with("fusion-"));
        let texts: Vec<&String> = texts.map(|(_, text, _)| text).collect();
        assert_eq!(texts.len(), fusions, "{directory}");
        for other in texts.iter().skip(1) {
            let lines = || texts[0].lines().zip(other.lines());
            let different: Vec<_> = lines().filter(|(a, b)| a != b).collect();
            assert_eq!(texts[0].lines().count(), other.lines().count());
            assert!(
                different.len() == 1 && different[0].0.starts_with("fusion = "),
                "{different:?}"
            );
        }
    }
}

#[test]
fn wrong_recipes_are_refused_in_one_line_that_names_the_key() {
    for (from, to, key) in [
        (
            "learning_rate = 7.0e-4",
            "learning_rat = 7.0e-4",
            "learning_rat",
        ),
        ("batch_size = 15", "batch_size = 0", "train.batch_size"),
        ("batch_size = 15", "batch_size = \"many\"", "batch_size"),
        ("clip_norm = 1.0", "", "clip_norm"),
        ("world = \"shapes\"", "world = \"faces\"", "data.world"),
        ("difficulty = [0.0, 0.6]", "difficulty = [0.0, 7.5]", "data"),
        (
            "precision = \"auto\"",
            "precision = \"f8\"",
            "train.precision",
        ),
        (
            "warmup_steps = 200",
            "warmup_steps = 200000",
            "train.decay_steps",
        ),
        ("patch_size = 16", "patch_size = 17", "model"),
        ("image_size = 128", "image_size = 64", "image_size"),
        ("name = \"vlm-tiny\"", "name = \"../x\"", "name"),
    ] {
        let text = RECIPE.replacen(from, to, 1);
        assert_ne!(text, RECIPE, "{from} is not in the recipe");
        let error = Recipe::parse(&text).expect_err(to);
        assert!(error.contains(key), "{to}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
