use crate::recipe::TrainRecipe;

/// The learning rate of a step (from 1): linear warm-up, then a cosine down to `min_learning_rate`.
pub fn learning_rate(recipe: &TrainRecipe, step: u64) -> f64 {
    if step <= recipe.warmup_steps {
        return recipe.learning_rate * step as f64 / recipe.warmup_steps.max(1) as f64;
    }
    let span = recipe.steps.saturating_sub(recipe.warmup_steps).max(1) as f64;
    let progress = ((step - recipe.warmup_steps) as f64 / span).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    recipe.min_learning_rate + (recipe.learning_rate - recipe.min_learning_rate) * cosine
}
