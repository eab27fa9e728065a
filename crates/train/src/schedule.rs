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
