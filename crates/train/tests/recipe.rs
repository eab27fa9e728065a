//! Recipes: what is refused, and how it is said.

use vlm_train::Recipe;

const RECIPE: &str = include_str!("../../../recipes/vlm-tiny.toml");

#[test]
fn the_shipped_recipe_is_understood_and_survives_a_round_trip() {
    let recipe = Recipe::parse(RECIPE).expect("the shipped recipe");
    let text = toml::to_string(&recipe).expect("recipes can be written");
    assert_eq!(Recipe::parse(&text).expect("own text"), recipe);
}

#[test]
fn the_recipes_of_the_tree_learn_the_same_and_those_of_fusions_differ_in_one_line() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/tree");
    let (mut fusions, mut seen) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).expect("recipes/tree") {
        let path = entry.expect("an entry").path();
        let recipe = Recipe::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let t = recipe.train();
        let pictures = t.steps * (t.batch_size * t.accumulate) as u64;
        seen.push((recipe.scenes().expect("scenes"), pictures));
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("fusion-") {
            fusions.push(std::fs::read_to_string(&path).expect("text"));
        }
    }
    assert!(
        seen.len() >= 13 && seen.iter().all(|s| *s == seen[0]),
        "{seen:?}"
    );
    assert_eq!(fusions.len(), 6);
    for other in &fusions[1..] {
        let lines = || fusions[0].lines().zip(other.lines());
        let different: Vec<_> = lines().filter(|(a, b)| a != b).collect();
        assert_eq!(fusions[0].lines().count(), other.lines().count());
        assert!(
            different.len() == 1 && different[0].0.starts_with("fusion = "),
            "{different:?}"
        );
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
