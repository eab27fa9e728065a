//! Which parameters learn, and how fast: frozen ones, and layers that learn more slowly the lower they lie.

use std::collections::{BTreeMap, BTreeSet};
use vlm_nn::weights::name_fits;

/// Parameters by how they learn.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    frozen: BTreeSet<String>,
    /// Learning rates of those that do not have the whole one, as factors.
    factors: BTreeMap<String, f64>,
}

/// Running means and variances are stored with the parameters but are none.
pub fn is_statistic(name: &str) -> bool {
    name.ends_with("running_mean") || name.ends_with("running_var")
}

/// What begins the name of a block of a tower, before its number.
const BLOCKS: [&str; 2] = [".blocks.", ".layers."];

/// Parts of names below the first block of a tower.
const EMBEDDINGS: [&str; 8] = [
    "patch",
    "class",
    "position",
    "token",
    "token_type",
    "pre_norm",
    "norm",
    "stem",
];

/// The tower of a parameter and the number of its block, if it is in one.
fn block(name: &str) -> Option<(&str, usize)> {
    BLOCKS.iter().find_map(|blocks| {
        let (tower, rest) = name.split_once(blocks)?;
        let number = rest.split('.').next()?.parse().ok()?;
        Some((tower, number))
    })
}

impl Groups {
    /// Groups of the parameters `names`.
    ///
    /// The layers of a tower are its embeddings, its blocks, and everything above them, which learns at the whole rate;
    /// each learns `layer_decay` times as fast as the next, as in BEiT. What is in no tower learns at the whole rate.
    ///
    /// # Errors
    /// A pattern that fits no parameter.
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        freeze: &[String],
        layer_decay: f64,
    ) -> Result<Self, String> {
        let names: Vec<&str> = names.into_iter().collect();
        let mut frozen = BTreeSet::new();
        for pattern in freeze {
            let before = frozen.len();
            let fitting = names.iter().filter(|name| name_fits(pattern, name));
            let mut any = false;
            frozen.extend(fitting.inspect(|_| any = true).map(|n| (*n).to_owned()));
            if !any && frozen.len() == before {
                let some: Vec<&str> = names.iter().copied().take(3).collect();
                return Err(format!(
                    "train.freeze: expected patterns that fit parameters, found {pattern:?}; there are {} ...",
                    some.join(", ")
                ));
            }
        }
        if !names.is_empty() && frozen.len() == names.len() {
            return Err("train.freeze: expected parameters that learn, found none".to_owned());
        }
        let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
        for (tower, number) in names.iter().filter_map(|name| block(name)) {
            let depth = depths.entry(tower).or_default();
            *depth = (*depth).max(number + 1);
        }
        let below_top = |name: &str| -> usize {
            if let Some((tower, number)) = block(name) {
                return depths[tower] - number;
            }
            let in_tower = depths.iter().find_map(|(tower, depth)| {
                let rest = name.strip_prefix(tower)?.strip_prefix('.')?;
                Some((rest.split('.').next().unwrap_or(rest), depth))
            });
            match in_tower {
                Some((part, depth)) if EMBEDDINGS.contains(&part) => depth + 1,
                _ => 0,
            }
        };
        let mut factors = BTreeMap::new();
        if layer_decay != 1.0 {
            for name in &names {
                let layers = below_top(name);
                if layers > 0 {
                    factors.insert((*name).to_owned(), layer_decay.powi(layers as i32));
                }
            }
        }
        Ok(Self { frozen, factors })
    }

    /// Names of the parameters that stay as they are.
    pub fn frozen(&self) -> &BTreeSet<String> {
        &self.frozen
    }

    /// What the learning rate of a parameter is multiplied by.
    pub fn factor(&self, name: &str) -> f64 {
        self.factors.get(name).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 10] = [
        "vision.patch.weight",
        "vision.position",
        "vision.blocks.0.attn.qkv.weight",
        "vision.blocks.1.mlp.fc1.bias",
        "vision.post_norm.weight",
        "vision.projection.weight",
        "text.token.weight",
        "text.blocks.0.norm1.weight",
        "text.post_norm.weight",
        "logit_scale",
    ];

    #[test]
    fn lower_layers_of_each_tower_learn_more_slowly() {
        let groups = Groups::new(NAMES, &[], 0.5).unwrap();
        let factors = NAMES.map(|name| groups.factor(name));
        // two blocks: embeddings are three layers below the top, the last block one
        assert_eq!(
            factors,
            [0.125, 0.125, 0.25, 0.5, 1.0, 1.0, 0.25, 0.5, 1.0, 1.0]
        );
        let even = Groups::new(NAMES, &[], 1.0).unwrap();
        assert!(NAMES.iter().all(|name| even.factor(name) == 1.0));
    }

    #[test]
    fn patterns_freeze_what_they_fit_and_must_fit_something() {
        let patterns = ["vision.**".to_owned(), "text.blocks.*.norm*.*".to_owned()];
        let groups = Groups::new(NAMES, &patterns, 1.0).unwrap();
        let frozen: Vec<&str> = groups.frozen().iter().map(String::as_str).collect();
        assert_eq!(frozen.len(), 7);
        assert!(frozen.contains(&"text.blocks.0.norm1.weight"));
        assert!(!frozen.contains(&"text.token.weight"));
        let error = Groups::new(NAMES, &["visual.**".to_owned()], 1.0).unwrap_err();
        assert!(error.contains("visual.**"), "{error}");
    }
}
