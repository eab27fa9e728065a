//! Published names to ours: a checkpoint is translated once, before the model takes its parameters.

use super::Checkpoint;
use super::tensor::Tensor;
use std::collections::BTreeMap;

/// One line of a translation.
///
/// In names `*` stands for any one part between dots or for some letters of it, `**` for any number of parts, none
/// included, and the stars of the new name take what those of the old one stood for, in order: `layers.*.ln_1.*` to
/// `blocks.*.norm1.*`, `**.attn.in_proj_*` to `**.attn.qkv.*`. No number is read or copied until a tensor is taken.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Another name for the same tensor.
    Name(&'static str, &'static str),
    /// A convolution kernel `[N, C, H, W]` as the matrix `[N, C * H * W]`, a scalar as `[1]`.
    Flatten(&'static str, &'static str),
    /// A tensor without its leading dimensions of one entry, of which the last dimension always stays: `[1, N, D]` as
    /// `[N, D]`, `[1, 1, D]` as `[D]`.
    Squeeze(&'static str, &'static str),
    /// A matrix with rows and columns exchanged: `x @ w` as what a linear layer multiplies by.
    Transpose(&'static str, &'static str),
    /// Tensors stacked along their first dimension, as a packed projection holds them.
    Stack(&'static [&'static str], &'static str),
    /// A tensor cut along its first dimension into parts of so many shares each.
    Cut(&'static str, &'static [(&'static str, usize)]),
    /// Nothing: the tensor is listed as ignored, as with [`Checkpoint::ignore`].
    Ignore(&'static str),
}

impl Checkpoint {
    /// Renames and reshapes tensors; the first rule whose name fits is applied.
    ///
    /// What no rule fits, what lacks a part, and what would take a name that is there already keeps its name, and is
    /// reported with the other differences when the model is built.
    #[must_use]
    pub fn translated(mut self, rules: &[Rule]) -> Self {
        let mut old = std::mem::take(&mut self.tensors);
        let names: Vec<String> = old.keys().cloned().collect();
        for name in names {
            // a part of a stack may be gone already
            let Some(stored) = old.remove(&name) else {
                continue;
            };
            let fits = rules.iter().find_map(|rule| {
                let new = rule.apply(&name, &stored, &mut old)?;
                Some((matches!(rule, Rule::Ignore(_)), new))
            });
            match fits {
                Some((true, _)) => {
                    self.ignored.insert(name, stored);
                }
                Some((false, new)) if new.iter().all(|(to, _)| !self.tensors.contains_key(to)) => {
                    self.tensors.extend(new);
                }
                _ => {
                    self.tensors.insert(name, stored);
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
        stored: &Tensor,
        others: &mut BTreeMap<String, Tensor>,
    ) -> Option<Vec<(String, Tensor)>> {
        let one = |from, to, tensor: Tensor| Some(vec![(fill(to, &captures(from, name)?), tensor)]);
        match self {
            Self::Name(from, to) => one(from, to, stored.clone()),
            Self::Flatten(from, to) => {
                let shape = match stored.shape.split_first() {
                    None => vec![1],
                    Some((&rows, [])) => vec![rows],
                    Some((&rows, rest)) => vec![rows, rest.iter().product()],
                };
                one(from, to, stored.reshaped(shape))
            }
            Self::Squeeze(from, to) => {
                let mut shape = stored.shape.as_slice();
                while let [1, rest @ ..] = shape
                    && !rest.is_empty()
                {
                    shape = rest;
                }
                one(from, to, stored.reshaped(shape.to_vec()))
            }
            Self::Transpose(from, to) => {
                captures(from, name)?;
                one(from, to, stored.transposed()?)
            }
            Self::Stack(from, to) => {
                // whichever part comes first in the order of names brings the others along
                let stars = from.iter().find_map(|from| captures(from, name))?;
                let parts: Vec<String> = from.iter().map(|from| fill(from, &stars)).collect();
                let part = |part: &String| {
                    if part == name {
                        Some(stored)
                    } else {
                        others.get(part)
                    }
                };
                let tensors = parts.iter().map(|p| part(p).cloned());
                let stacked = Tensor::stacked(tensors.collect::<Option<_>>()?)?;
                for part in &parts {
                    others.remove(part);
                }
                Some(vec![(fill(to, &stars), stacked)])
            }
            Self::Cut(from, to) => {
                let stars = captures(from, name)?;
                let shares: usize = to.iter().map(|(_, share)| share).sum();
                let &rows = stored.shape.first()?;
                if !rows.is_multiple_of(shares) {
                    return None;
                }
                let mut begin = 0;
                let cut = to.iter().map(|&(to, share)| {
                    let rows = rows / shares * share;
                    let part = stored.rows(begin, rows);
                    begin += rows;
                    (fill(to, &stars), part)
                });
                Some(cut.collect())
            }
            Self::Ignore(from) => captures(from, name).map(|_| Vec::new()),
        }
    }
}

/// Whether a name fits a pattern: `*` stands for any one part between dots or for some letters of it, `**` for any number
/// of parts, none included.
pub fn name_fits(pattern: &str, name: &str) -> bool {
    captures(pattern, name).is_some()
}

/// What the stars of a pattern stand for in a name that fits it.
pub(super) fn captures<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut found = Vec::new();
    fits(Some(pattern), Some(name), &mut found).then_some(found)
}

/// The first part and what is behind its dot, if there is one.
fn first_part(name: &str) -> (&str, Option<&str>) {
    match name.split_once('.') {
        Some((part, rest)) => (part, Some(rest)),
        None => (name, None),
    }
}

fn fits<'a>(pattern: Option<&str>, name: Option<&'a str>, found: &mut Vec<&'a str>) -> bool {
    let Some(pattern) = pattern else {
        return name.is_none();
    };
    let (expected, pattern) = first_part(pattern);
    let before = found.len();
    if expected == "**" {
        let whole = name.unwrap_or_default();
        let mut rest = name;
        loop {
            // what is taken ends before the dot in front of the rest
            let taken = rest.map_or(whole.len(), |r| (whole.len() - r.len()).saturating_sub(1));
            found.truncate(before);
            found.push(&whole[..taken]);
            if fits(pattern, rest, found) {
                return true;
            }
            match rest {
                Some(parts) => rest = first_part(parts).1,
                None => return false,
            }
        }
    }
    let Some(name) = name else {
        return false;
    };
    let (part, name) = first_part(name);
    if let Some((front, back)) = expected.split_once('*') {
        let Some(middle) = part.strip_prefix(front).and_then(|p| p.strip_suffix(back)) else {
            return false;
        };
        found.push(middle);
    } else if expected != part {
        return false;
    }
    fits(pattern, name, found)
}

fn fill(pattern: &str, stars: &[&str]) -> String {
    let mut stars = stars.iter().copied();
    let parts = pattern.split('.').filter_map(|part| {
        if part == "**" {
            let parts = stars.next().unwrap_or(part);
            return (!parts.is_empty()).then(|| parts.to_owned());
        }
        Some(match part.split_once('*') {
            Some((front, back)) => format!("{front}{}{back}", stars.next().unwrap_or("*")),
            None => part.to_owned(),
        })
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
    fn rules_apply_to_what_rules_made_and_to_strided_views() {
        let mut c = checkpoint(&[
            ("m", &[2, 3], &[1., 2., 3., 4., 5., 6.]),
            ("n", &[1, 3], &[7., 8., 9.]),
            ("table", &[1, 2, 2], &[1., 2., 3., 4.]),
            ("class", &[1, 1, 2], &[5., 6.]),
        ])
        .translated(&[
            Rule::Stack(&["m", "n"], "mn"),
            Rule::Squeeze("table", "table"),
            Rule::Squeeze("class", "class"),
        ])
        .translated(&[Rule::Transpose("mn", "t")])
        .translated(&[Rule::Cut("t", &[("first", 1), ("rest", 2)])]);
        let expected: [(&str, &[usize], &[f32]); 4] = [
            ("first", &[1, 3], &[1., 4., 7.]),
            ("rest", &[2, 3], &[2., 5., 8., 3., 6., 9.]),
            ("table", &[2, 2], &[1., 2., 3., 4.]),
            ("class", &[2], &[5., 6.]),
        ];
        for (name, shape, values) in expected {
            assert_eq!(c.take(name, shape).as_deref(), Ok(values), "{name}");
        }
    }

    #[test]
    fn stars_stand_for_parts_letters_and_any_number_of_parts() {
        for (from, name, to, expected) in [
            ("a.*.b", "a.1.b", "x.*", Some("x.1")),
            ("a.*.b", "a.1.2.b", "x.*", None),
            ("a.*", "a", "x.*", None),
            (
                "**.in_proj_*",
                "t.0.attn.in_proj_bias",
                "**.qkv.*",
                Some("t.0.attn.qkv.bias"),
            ),
            ("**.ids", "ids", "**.x", Some("x")),
            ("**.ids", "a.ids", "b.**.x", Some("b.a.x")),
            ("**.ids", "a.xids", "**", None),
            ("a.**", "a", "b.**", Some("b")),
            ("a.**", "a.1.2", "b.**", Some("b.1.2")),
            ("a.**.z.**", "a.b.z.c.z", "*.**", Some("b.c.z")),
            ("**", "", "x.**", Some("x")),
            ("a.*b*", "a.1b2*", "x.*", None),
        ] {
            let filled = captures(from, name).map(|stars| fill(to, &stars));
            assert_eq!(filled.as_deref(), expected, "{from} {name} {to}");
        }
    }

    #[test]
    fn ignored_tensors_are_listed_and_not_reported_as_unused() {
        let mut c = checkpoint(&[
            ("a.position_ids", &[1], &[0.]),
            ("position_ids", &[1], &[0.]),
            ("a.tracked", &[1], &[0.]),
            ("w", &[2], &[1., 2.]),
            ("tied", &[2], &[1., 2.]),
            ("untied", &[2], &[1., 3.]),
        ])
        .translated(&[Rule::Ignore("*.tracked")]);
        assert_eq!(c.ignore("**.position_ids"), 2);
        assert_eq!(c.ignore("**.position_ids"), 0);
        assert!(c.ignore_copy("tied", "w"));
        assert!(!c.ignore_copy("untied", "w"));
        let ignored: Vec<&str> = c.ignored().map(|t| t.name).collect();
        assert_eq!(
            ignored,
            ["a.position_ids", "a.tracked", "position_ids", "tied"]
        );
        assert_eq!(c.unused().collect::<Vec<_>>(), ["+ untied [2]", "+ w [2]"]);
    }

    #[test]
    fn a_prefix_is_stripped_if_all_names_have_it() {
        let mut c = checkpoint(&[("module.a", &[1], &[0.]), ("module.b", &[1], &[0.])]);
        assert!(c.strip_prefix("module."));
        assert!(c.contains("a") && c.contains("b"));
        let mut c = checkpoint(&[("module.a", &[1], &[0.]), ("b", &[1], &[0.])]);
        assert!(!c.strip_prefix("module."));
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
