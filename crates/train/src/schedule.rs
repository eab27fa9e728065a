use crate::recipe::TrainRecipe;

/// The learning rate of a step (from 1): linear warm-up, then the peak, then over the last `decay_steps` a cosine
/// down to `min_learning_rate`.
///
/// With `decay_steps = steps - warmup_steps` it is the usual warm-up and cosine. A shorter decay lets a run be
/// made longer while it goes on, because no earlier step depends on its length.
pub fn learning_rate(recipe: &TrainRecipe, step: u64) -> f64 {
    let (peak, end) = (recipe.learning_rate, recipe.min_learning_rate);
    if step <= recipe.warmup_steps {
        return peak * step as f64 / recipe.warmup_steps.max(1) as f64;
    }
    let left = recipe.steps.saturating_sub(step);
    if left >= recipe.decay_steps {
        return peak;
    }
    let progress = 1.0 - left as f64 / recipe.decay_steps as f64;
    end + (peak - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// The last step that is the same in runs of the recipe's length and of others: that before the decay.
pub fn last_step_before_decay(recipe: &TrainRecipe) -> u64 {
    recipe.steps.saturating_sub(recipe.decay_steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn recipe(steps: u64, warmup: u64, decay: u64) -> TrainRecipe {
        let text = include_str!("../../../recipes/vlm-tiny.toml");
        let mut recipe = Recipe::parse(text)
            .expect("the shipped recipe")
            .train()
            .clone();
        (recipe.steps, recipe.warmup_steps, recipe.decay_steps) = (steps, warmup, decay);
        (recipe.learning_rate, recipe.min_learning_rate) = (1.0, 0.1);
        recipe
    }

    #[test]
    fn rises_holds_and_falls_in_a_cosine() {
        let r = recipe(100, 10, 40);
        let rate = |step| learning_rate(&r, step);
        assert!((rate(1) - 0.1).abs() < 1e-12);
        assert_eq!((rate(10), rate(11), rate(60)), (1.0, 1.0, 1.0));
        assert!((rate(80) - 0.55).abs() < 1e-12, "half way down");
        assert!((rate(100) - 0.1).abs() < 1e-12);
        for step in 60..100 {
            assert!(rate(step + 1) < rate(step));
        }
    }

    #[test]
    fn steps_before_the_decay_do_not_depend_on_the_length() {
        let (short, long) = (recipe(100, 10, 40), recipe(500, 10, 40));
        for step in 1..=60 {
            assert_eq!(learning_rate(&short, step), learning_rate(&long, step));
        }
    }
}
