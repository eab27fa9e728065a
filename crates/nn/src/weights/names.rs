//! Published names to ours: a checkpoint is translated once, before the model takes its parameters.

use super::Checkpoint;
use std::collections::BTreeMap;

type Stored = (Vec<usize>, Vec<f32>);

/// One line of a translation.
///
/// In names `*` stands for any one part between dots, and the stars of the new name take those of the old one in
/// order: `layers.*.ln_1.*` to `blocks.*.norm1.*`.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Another name for the same tensor.
    Name(&'static str, &'static str),
    /// A convolution kernel `[N, C, H, W]` as the matrix `[N, C * H * W]`, a scalar as `[1]`.
    Flatten(&'static str, &'static str),
    /// Tensors stacked along their first dimension, as a packed projection holds them.
    Stack(&'static [&'static str], &'static str),
    /// A tensor cut along its first dimension into parts of so many shares each.
    Cut(&'static str, &'static [(&'static str, usize)]),
}

impl Checkpoint {
    /// Renames and reshapes tensors; the first rule whose name fits is applied.
    ///
    /// What no rule fits, what lacks a part, and what would take a name that is there already keeps its name, and is
    /// reported with the other differences when the model is built.
    #[must_use]
    pub fn translated(mut self, rules: &[Rule]) -> Self {
        let tensors = self.tensors_mut();
        let mut old = std::mem::take(tensors);
        let names: Vec<String> = old.keys().cloned().collect();
        for name in names {
            // a part of a stack may be gone already
            let Some(stored) = old.remove(&name) else {
                continue;
            };
            let new = rules
                .iter()
                .find_map(|rule| rule.apply(&name, &stored, &mut old))
                .filter(|new| new.iter().all(|(to, _)| !tensors.contains_key(to)));
            match new {
                Some(new) => tensors.extend(new),
                None => {
                    tensors.insert(name, stored);
                }
            }
        }
        self
    }
}

impl Rule {
    /// What becomes of a tensor, if the rule is about it.
    fn apply(
        self,
        name: &str,
        (shape, values): &Stored,
        others: &mut BTreeMap<String, Stored>,
    ) -> Option<Vec<(String, Stored)>> {
        match self {
            Self::Name(from, to) => {
                let to = fill(to, &stars(from, name)?);
                Some(vec![(to, (shape.clone(), values.clone()))])
            }
            Self::Flatten(from, to) => {
                let to = fill(to, &stars(from, name)?);
                let shape = match shape.split_first() {
                    None => vec![1],
                    Some((&rows, [])) => vec![rows],
                    Some((&rows, rest)) => vec![rows, rest.iter().product()],
                };
                Some(vec![(to, (shape, values.clone()))])
            }
            Self::Stack(from, to) => {
                // whichever part comes first in the order of names brings the others along
                let stars = from.iter().find_map(|from| stars(from, name))?;
                let parts: Vec<String> = from.iter().map(|from| fill(from, &stars)).collect();
                let part = |part: &String, others: &BTreeMap<String, Stored>| {
                    if part == name {
                        Some((shape.clone(), values.clone()))
                    } else {
                        others.get(part).cloned()
                    }
                };
                let stored: Vec<Stored> = parts
                    .iter()
                    .map(|p| part(p, others))
                    .collect::<Option<_>>()?;
                let inner = shape.get(1..)?;
                if shape.is_empty() || stored.iter().any(|(s, _)| s.get(1..) != Some(inner)) {
                    return None;
                }
                for part in &parts {
                    others.remove(part);
                }
                let mut stacked = shape.clone();
                stacked[0] = stored.iter().map(|(s, _)| s[0]).sum();
                let values = stored.into_iter().flat_map(|(_, v)| v).collect();
                Some(vec![(fill(to, &stars), (stacked, values))])
            }
            Self::Cut(from, to) => {
                let stars = stars(from, name)?;
                let shares: usize = to.iter().map(|(_, share)| share).sum();
                let (&rows, inner) = shape.split_first()?;
                if !rows.is_multiple_of(shares) {
                    return None;
                }
                let width: usize = inner.iter().product();
                let mut rest = values.as_slice();
                let cut = to.iter().map(|&(to, share)| {
                    let rows = rows / shares * share;
                    let (part, after) = rest.split_at(rows * width);
                    rest = after;
                    let shape = std::iter::once(rows).chain(inner.iter().copied());
                    (fill(to, &stars), (shape.collect(), part.to_vec()))
                });
                Some(cut.collect())
            }
        }
    }
}

/// What the stars of a pattern stand for in a name that fits it.
fn stars<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut parts = name.split('.');
    for expected in pattern.split('.') {
        let part = parts.next()?;
        if expected == "*" {
            found.push(part);
        } else if expected != part {
            return None;
        }
    }
    parts.next().is_none().then_some(found)
}

fn fill(pattern: &str, stars: &[&str]) -> String {
    let mut stars = stars.iter();
    let parts = pattern.split('.').map(|part| {
        if part == "*" {
            stars.next().copied().unwrap_or(part)
        } else {
            part
        }
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::super::{StoreDtype, to_bytes};
    use super::*;

    fn checkpoint(tensors: &[(&str, &[usize], &[f32])]) -> Checkpoint {
        let tensors = tensors
            .iter()
            .map(|&(name, shape, values)| (name.to_owned(), (shape.to_vec(), values.to_vec())))
            .collect();
        let bytes = to_bytes(&tensors, StoreDtype::F32, None).unwrap();
        Checkpoint::parse(&bytes, "test").unwrap()
    }

    #[test]
    fn tensors_are_renamed_stacked_flattened_and_cut() {
        let mut c = checkpoint(&[
            ("layers.3.q.weight", &[1, 2], &[1., 2.]),
            ("layers.3.k.weight", &[2, 2], &[3., 4., 5., 6.]),
            ("layers.3.ln.bias", &[1], &[7.]),
            ("conv", &[1, 2, 1, 1], &[8., 9.]),
            ("scale", &[], &[10.]),
            ("packed", &[3], &[11., 12., 13.]),
        ])
        .translated(&[
            Rule::Name("layers.*.ln.*", "blocks.*.norm.*"),
            Rule::Stack(&["layers.*.q.*", "layers.*.k.*"], "blocks.*.qk.*"),
            Rule::Flatten("conv", "patch"),
            Rule::Flatten("scale", "scale"),
            Rule::Cut("packed", &[("q", 1), ("kv", 2)]),
        ]);
        let expected: [(&str, &[usize], &[f32]); 6] = [
            ("blocks.3.norm.bias", &[1], &[7.]),
            ("blocks.3.qk.weight", &[3, 2], &[1., 2., 3., 4., 5., 6.]),
            ("patch", &[1, 2], &[8., 9.]),
            ("scale", &[1], &[10.]),
            ("q", &[1], &[11.]),
            ("kv", &[2], &[12., 13.]),
        ];
        for (name, shape, values) in expected {
            assert_eq!(c.take(name, shape).as_deref(), Ok(values), "{name}");
        }
        assert_eq!(c.unused().count(), 0);
    }

    #[test]
    fn what_cannot_be_translated_keeps_its_name_and_is_reported() {
        let c = checkpoint(&[
            ("a.q", &[1, 2], &[1., 2.]),
            ("b.q", &[1, 2], &[1., 2.]),
            ("b.k", &[1, 3], &[1., 2., 3.]),
            ("packed", &[4], &[0.; 4]),
            ("old", &[1], &[0.]),
            ("new", &[1], &[0.]),
        ])
        .translated(&[
            Rule::Stack(&["*.q", "*.k"], "*.qk"),
            Rule::Cut("packed", &[("q", 1), ("kv", 2)]),
            Rule::Name("old", "new"),
        ]);
        let left: Vec<String> = c.unused().collect();
        assert_eq!(
            left,
            [
                "+ a.q [1, 2]",
                "+ b.k [1, 3]",
                "+ b.q [1, 2]",
                "+ new [1]",
                "+ old [1]",
                "+ packed [4]"
            ]
        );
    }
}
